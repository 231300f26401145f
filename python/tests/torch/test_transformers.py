"""Hugging Face transformers with random weights: what `dis_ssm.compat` gives is what their own slow path gives."""

import pathlib
import subprocess
import sys

import pytest
import torch
from support import close

pytest.importorskip("transformers")
SCRIPT = pathlib.Path(__file__).with_name("transformers_models.py")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("transformers")

    def run(*options):
        file = folder / f"found{len(options)}.pt"
        subprocess.run([sys.executable, "-W", "ignore", str(SCRIPT), str(file), *options], check=True)
        return torch.load(file)

    return run("--compat"), run()


@pytest.mark.parametrize("model", ["Mamba", "FalconMamba", "Mamba2", "Jamba"])
def test_same_as_the_slow_path(found, model):
    ours, slow = found
    if model not in slow:
        pytest.skip(f"this release of transformers has no {model}")
    assert ours[model].keys() == slow[model].keys()
    for name, expected in slow[model].items():
        if name == "generated":
            assert torch.equal(ours[model][name], expected)
        else:
            # Two float32 computations; the slow path of gradients adds in another order.
            close(ours[model][name], expected, f"{model}: {name}", 2e-4 if "gradient" in name else 2e-5)


def test_our_operators_were_used(found):
    assert found[0]["operators"] == ["selective_scan", "causal_conv1d"]
