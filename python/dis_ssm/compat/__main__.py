"""`python -m dis_ssm.compat script.py arguments...` or `python -m dis_ssm.compat -m module arguments...`."""

from __future__ import annotations

import os
import runpy
import sys

from . import install

_USAGE = """usage: python -m dis_ssm.compat script.py [argument ...]
       python -m dis_ssm.compat -m module [argument ...]

Runs a program with mamba_ssm and causal_conv1d backed by dis_ssm, on the CPU."""


def main(arguments):
    """Runs the program that the arguments name; gives the exit status for wrong usage."""
    if not arguments or arguments[0] in ("-h", "--help") or (arguments[0] == "-m" and len(arguments) < 2):
        asked = arguments[:1] in (["-h"], ["--help"])
        print(_USAGE, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    module = arguments[0] == "-m"
    rest = arguments[1:] if module else arguments
    if not module and not os.path.exists(rest[0]):
        print(f"dis_ssm.compat: no such file: {rest[0]}", file=sys.stderr)
        return 2
    sys.argv = list(rest)
    # As `python script.py` and `python -m module` have it.
    sys.path[0] = os.getcwd() if module else os.path.dirname(os.path.abspath(rest[0]))
    install()
    if module:
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(rest[0], run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
