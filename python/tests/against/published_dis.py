"""The published DiS model code, unmodified, against the golden numbers computed with it in float64.

    python python/tests/against/published_dis.py CHECKOUT [--fork]

CHECKOUT is a clone of the authors' repository (feizc/DiS), outside this one. Needs torch, einops and safetensors. Every
golden case of kind `full_model` is computed, in float32 and through `dis_ssm.compat`, and must be within its tolerance.
With `--fork` the mixers are those of the authors' fork of `mamba_ssm`, otherwise `dis_ssm.torch.Mamba`.
"""

import json
import math
import pathlib
import sys

import numpy as np
import torch
from safetensors.torch import load_file

import dis_ssm.compat

GOLDEN = pathlib.Path(__file__).resolve().parents[3] / "tests" / "golden"


def noise(key, count, case_seed):
    """The manifests' numbers in [-1, 1) for a key."""
    seed = 2166136261
    for byte in key.encode():
        seed = (seed ^ byte) * 16777619 & 0xFFFFFFFF
    h = (np.arange(count, dtype=np.uint64) * 0x9E3779B9 + (seed ^ case_seed)) & 0xFFFFFFFF
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h = ((h ^ h >> np.uint64(shift)) * factor) & 0xFFFFFFFF
    h ^= h >> np.uint64(16)
    return 2 * (h >> np.uint64(8)).astype(np.float64) / 2**24 - 1


def weight(key, shape, case_seed):
    """The weight that the manifests' rule gives."""
    last = key.rsplit(".", 1)[-1]
    fan_in = math.prod(shape[1:])
    offset, scale = 0.0, (0.75 if key == "final_layer.linear.weight" else 1.5) / math.sqrt(fan_in)
    if last in ("A_log", "A_b_log"):
        offset, scale = np.log(np.arange(1, shape[1] + 1.0))[None], 0.1
    elif last in ("D", "D_b"):
        offset, scale = 1.0, 0.3
    elif key.endswith(("dt_proj.bias", "dt_proj_b.bias")):
        offset, scale = -3.5, 1.0
    elif key.endswith(("dt_proj.weight", "dt_proj_b.weight")):
        scale = 0.5 / math.sqrt(shape[1])
    elif "conv1d" in key and last == "weight":
        scale = 0.5
    elif "norm" in key and last == "weight":
        offset, scale = 1.0, 0.2
    elif last == "bias":
        scale = 0.1
    elif last == "pos_embed":
        scale = 0.3
    elif "embedding_table" in key:
        scale = 0.5
    values = offset + scale * noise(key, math.prod(shape), case_seed).reshape(shape)
    return torch.from_numpy(np.ascontiguousarray(values).astype(np.float32))


def check(models, path):
    """Computes one case; gives its error relative to the largest magnitude, and the tolerance."""
    manifest = json.loads(path.read_text())
    expected = load_file(path.with_suffix(".safetensors"))
    seed, setting = manifest["case_seed"], manifest["setting"]
    model = models[manifest["model"]](**setting).eval()
    state = {key: weight(key, tuple(value.shape), seed) for key, value in model.state_dict().items()}
    for key, values in manifest["self_check"].items():
        if key in state:
            assert np.allclose(state[key].flatten()[: len(values)], values, atol=1e-7), key
    model.load_state_dict(state)
    shape = (manifest["batch"], setting["channels"], setting["img_size"], setting["img_size"])
    x = torch.from_numpy((1.7 * noise("input.x", math.prod(shape), seed)).astype(np.float32)).reshape(shape)
    arguments = [x, expected["t"]] + [expected[name] for name in ("labels", "y") if name in expected]
    with torch.no_grad():
        out = model(*arguments)
    largest = expected["out"].abs().max()
    return ((out - expected["out"]).abs().max() / largest).item(), manifest["tolerance"]["rtol"]


def main(checkout, fork):
    sys.path.insert(0, checkout)
    if fork:
        sys.path.insert(0, str(pathlib.Path(checkout) / "mamba"))
    dis_ssm.compat.install()
    import models_dis
    from models_dis import DiS_models

    print(f"mixer: {models_dis.Mamba.__module__} in {sys.modules[models_dis.Mamba.__module__].__file__}")
    failed = 0
    for path in sorted(GOLDEN.glob("full_dis_*.json")):
        error, tolerance = check(DiS_models, path)
        failed += error > tolerance
        print(f"{path.stem}: error {error:.1e} of the largest magnitude, tolerance {tolerance:.0e}")
    return 1 if failed else 0


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--fork"]
    if len(arguments) != 1:
        sys.exit(__doc__)
    sys.exit(main(arguments[0], "--fork" in sys.argv))
