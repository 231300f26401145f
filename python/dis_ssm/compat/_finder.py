"""The importer behind `install`: which names it serves, and how a module is made."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.metadata
import os
import sys

from . import _modules, _transformers


class Finder(importlib.metadata.DistributionFinder):
    """Serves the modules of `_modules` by name, and metadata that says their versions.

    Parameters
    ----------
    names : top-level modules that are served.
    fork : whether a fork's `mamba_ssm` is on the path, of which only the parts that need a GPU are replaced.
    """

    def __init__(self, names, fork):
        self.names = names
        self.fork = fork

    @staticmethod
    def installed():
        """The finder on `sys.meta_path`, or None."""
        return next((finder for finder in sys.meta_path if isinstance(finder, Finder)), None)

    def find_spec(self, name, path=None, target=None):
        """The module of this name, if it is one of ours."""
        if name in _transformers.GATED:
            return _transformers.spec(self, name, path)
        if not name.startswith(self.names) and ".mamba_ssm." not in name:
            return None
        contents = _modules.CONTENTS.get(self._own_name(name))
        if contents is None:
            return None
        package = any(other.startswith(name + ".") for other in _modules.CONTENTS)
        spec = importlib.machinery.ModuleSpec(
            name, _Loader(contents), origin="dis_ssm.compat", is_package=package
        )
        if package:
            spec.submodule_search_locations = []
        return spec

    def _own_name(self, name):
        """What `_modules` calls a module, or None for one that somebody else has to make."""
        parts = name.split(".")
        if parts[0] in self.names and not (parts[0] == "mamba_ssm" and self.fork):
            return name
        if "mamba_ssm" not in self.names or "mamba_ssm" not in parts:
            return None
        # A fork, on the path or inside another package.
        own = ".".join(parts[parts.index("mamba_ssm") :])
        return own if own in _modules.REPLACED_IN_FORKS else None

    def find_distributions(self, context=None):
        """Metadata of the packages that are served, for code that asks for their versions."""
        asked = getattr(context, "name", None)
        asked = None if asked is None else asked.replace("-", "_").lower()
        for name, version in _modules.VERSIONS.items():
            if name in self.names and asked in (None, name) and not (name == "mamba_ssm" and self.fork):
                yield _Distribution(name, version)


class _Loader:
    """Makes a module of a function that gives its contents."""

    def __init__(self, contents):
        self.contents = contents

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        module.__dis_ssm__ = True
        module.__doc__ = "Backed by dis_ssm.torch; see dis_ssm.compat."
        # Some programs look whether a package has a file.
        module.__file__ = os.path.join(os.path.dirname(__file__), "_modules.py")
        module.__dict__.update(self.contents())


class _Distribution(importlib.metadata.Distribution):
    def __init__(self, name, version):
        self._text = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"

    def read_text(self, filename):
        return self._text if filename == "METADATA" else None

    def locate_file(self, path):
        return path
