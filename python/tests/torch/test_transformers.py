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


@pytest.mark.parametrize("model", ["Mamba", "FalconMamba", "Mamba2", "Jamba", "Zamba"])
def test_same_as_the_slow_path(found, model):
    ours, slow = (run["found"] for run in found)
    if model not in slow:
        pytest.skip(f"this release of transformers has no {model}")
    assert ours[model].keys() == slow[model].keys()
    for name, expected in slow[model].items():
        if model == "FalconMamba" and name.startswith(("loss", "gradient")):
            # The fused function of mamba_ssm norms the steps after their projection, and this slow path before.
            continue
        if name == "generated":
            assert torch.equal(ours[model][name], expected)
        else:
            # Two float32 computations; the slow path of gradients adds in another order.
            close(ours[model][name], expected, f"{model}: {name}", 2e-4 if "gradient" in name else 2e-5)


@pytest.mark.parametrize("model", ["Mamba", "FalconMamba", "Jamba", "Zamba"])
def test_our_operators_were_used(found, model):
    ours, slow = (run["calls"] for run in found)
    assert slow == {}
    if model not in ours:
        pytest.skip(f"this release of transformers has no {model}")
    # Five forward passes of two layers at least, seven tokens in generation, and a step of training.
    assert ours[model]["conv"] >= 10 and ours[model]["conv_update"] >= 14
    assert ours[model]["scan"] >= 24
    assert ours[model]["scan_backward"] >= 2 and ours[model]["conv_backward"] >= 2
