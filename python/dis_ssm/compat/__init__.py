"""Public code that needs `mamba_ssm` and `causal_conv1d`, on a CPU and unmodified.

`install()` makes these names importable, backed by `dis_ssm.torch`::

    import dis_ssm.compat
    dis_ssm.compat.install()
    from mamba_ssm.modules.mamba_simple import Mamba

A program that says nothing of it is run by `python -m dis_ssm.compat script.py arguments...`, or with `-m module`.

What is there
-------------
* `causal_conv1d` and `mamba_ssm` with its submodules for Mamba (version 1) layers: scans, step by step updates, norms,
  mixers, blocks and the language model. What Mamba-2 adds is absent, and importing it says so, as in releases of
  `mamba_ssm` before 2.0.
* Where a fork of `mamba_ssm` is on the path without its CUDA build, or lies inside another package as ZigMa has it, its
  own Python is used, and only the modules that need CUDA or Triton are replaced.
* `selective_scan_cuda` and `causal_conv1d_cuda` for code that calls the extensions themselves.
* Mixers of Hugging Face transformers use them on a CPU. Releases before 5 ask for a CUDA device first; their Mamba,
  Falcon Mamba, Jamba and Zamba layers are given a `forward` that does not.

Installed extensions win: where `selective_scan_cuda` can be imported, nothing of `mamba_ssm` is replaced, and the same
holds for `causal_conv1d_cuda`; `install(force=True)` replaces them too.
"""

from __future__ import annotations

import importlib.util
import sys

from ._finder import Finder

__all__ = ["install", "uninstall"]

_EXTENSIONS = {"mamba_ssm": "selective_scan_cuda", "causal_conv1d": "causal_conv1d_cuda"}


def _found(name):
    """Whether a top-level module can be imported, without importing it."""
    if name in sys.modules:
        return True
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:
        return False


def install(force=False):
    """Makes `mamba_ssm` and `causal_conv1d` importable where their CUDA extensions are missing.

    Call it before anything imports them, and before transformers' models are imported. A second call does nothing.

    Parameters
    ----------
    force : whether they are replaced although their extensions are installed, for a machine without a GPU.

    Returns
    -------
    The names that are served, a tuple of strings; empty where the extensions are installed.

    Raises
    ------
    RuntimeError
        If one of the packages was imported before from elsewhere; it names the package.
    """
    present = Finder.installed()
    if present is not None:
        return present.names
    served = [name for name, extension in _EXTENSIONS.items() if force or not _found(extension)]
    for name in served:
        if name in sys.modules:
            raise RuntimeError(f"{name} was imported before dis_ssm.compat.install(); call that first")
    if not served:
        return ()
    names = tuple(served) + tuple(_EXTENSIONS[name] for name in served)
    # A fork's own Python is kept: its mixers differ.
    fork = "mamba_ssm" in served and not force and _found("mamba_ssm")
    sys.meta_path.insert(0, Finder(names, fork))
    return names


def uninstall():
    """Takes back what `install` did for imports to come, and forgets the modules it made."""
    finder = Finder.installed()
    if finder is None:
        return
    sys.meta_path.remove(finder)
    for name in [name for name, module in sys.modules.items() if getattr(module, "__dis_ssm__", False)]:
        del sys.modules[name]
