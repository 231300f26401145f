#!/usr/bin/env bash
# The second test suite, of dis_ssm.torch and dis_ssm.compat, with a CPU torch; not a part of .ci/run, since torch from
# PyPI brings several gigabytes of CUDA libraries that it does not import without.
#
#     python/tests/torch/run.sh WHEEL [FOLDER [TORCH]]
#
# Makes a virtual environment in FOLDER (default: a new temporary one; an existing one is used again), installs WHEEL, torch
# (TORCH, default "torch", a pip requirement) and transformers, and runs the tests. pytest's options go in PYTEST_ADDOPTS.
set -euo pipefail
wheel=$(realpath "$1")
folder=${2:-$(mktemp -d)}
torch=${3:-torch}
here=$(dirname "$(realpath "$0")")
[ -x "$folder/bin/python" ] || python3 -m venv "$folder"
"$folder/bin/python" -m pip install --quiet "$torch" numpy pytest hypothesis transformers
"$folder/bin/python" -m pip install --quiet --force-reinstall --no-deps "$wheel"
cd "$folder"
"$folder/bin/python" -m pytest -q -p no:cacheprovider "$here"
