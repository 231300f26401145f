#!/usr/bin/env bash
# Runs the tests of causal_conv1d and mamba_ssm, unmodified, on a CPU against an installed dis_ssm.
#
#     python/tests/against/public_tests.sh PYTHON FOLDER [pytest arguments...]
#
# PYTHON has dis_ssm, torch, einops and pytest. FOLDER lies outside this repository; it receives the sdist of
# causal_conv1d from PyPI, which holds its tests. Those of mamba_ssm's scan are in no sdist: a clone of
# state-spaces/mamba is expected as FOLDER/mamba, and is left out where it is missing. Nothing is copied into the
# repository. The test of race conditions is left out (ten thousand runs of one shape).
set -euo pipefail
python=$1 folder=$(realpath "$2")
shift 2
here=$(dirname "$(realpath "$0")")
version=1.7.0
conv=$folder/causal_conv1d-$version
if [ ! -d "$conv" ]; then
    CAUSAL_CONV1D_SKIP_CUDA_BUILD=TRUE "$python" -m pip download --quiet --no-deps --no-binary :all: \
        --no-build-isolation --dest "$folder" "causal_conv1d==$version"
    tar -xzf "$conv.tar.gz" -C "$folder"
fi
files=$conv/causal_conv1d/causal_conv1d_interface.py:$conv/causal_conv1d/causal_conv1d_varlen.py
tests=("$conv/tests/test_causal_conv1d.py")
mamba=$folder/mamba
if [ -d "$mamba" ]; then
    ops=$mamba/mamba_ssm/ops
    files=$files:$ops/selective_scan_interface.py:$ops/triton/selective_state_update.py
    tests+=("$mamba/tests/ops/test_selective_scan.py" "$mamba/tests/ops/triton/test_selective_state_update.py")
fi
cd "$folder"
PUBLISHED_FILES=$files PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH} "$python" -m pytest -q -p cpu_plugin -p no:cacheprovider \
    --import-mode=importlib --rootdir "$folder" -k "not race_condition" "$@" "${tests[@]}"
