"""Numbers that the published code computed, at the tolerances of their manifests (tests/golden of the repository)."""

import json
import pathlib

import numpy as np
import pytest

import dis_ssm

FOLDER = pathlib.Path(__file__).parents[2] / "tests/golden"
SCANS = sorted(path.stem for path in FOLDER.glob("selective_scan_*.json") if not path.stem.endswith("_more"))


def golden(name):
    manifest = json.loads((FOLDER / f"{name}.json").read_text())
    data = (FOLDER / f"{name}.safetensors").read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    tensors = {}
    for key, info in json.loads(data[8:start]).items():
        if info.get("dtype") == "F32":
            first, last = info["data_offsets"]
            tensors[key] = np.frombuffer(data[start + first : start + last], np.float32).reshape(info["shape"])
    return manifest, tensors


def compare(found, expected, rtol, name):
    assert found.shape == expected.shape, name
    assert np.abs(found - expected).max(initial=0) <= rtol * np.abs(expected).max(initial=0), name


@pytest.mark.skipif(not FOLDER.exists(), reason="outside the repository")
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", SCANS)
def test_scans(name, reverse):
    manifest, tensors = golden(name)
    rtol, prefix = manifest["tolerance"]["rtol"], "rev_" if reverse else ""
    if prefix + "out" not in tensors:
        pytest.skip("one direction only")
    names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
    arguments = {key: tensors.get(key) for key in names}
    options = dict(delta_softplus=manifest["config"]["delta_softplus"], reverse=reverse)
    y, last = dis_ssm.selective_scan(**arguments, **options, return_last_state=True)
    compare(y, tensors[prefix + "out"], rtol, "out")
    compare(last, tensors[prefix + "last_state"], rtol, "last_state")
    if "dout" not in tensors:
        return
    grads = dis_ssm.selective_scan_grad(**arguments, **options, dout=tensors["dout"])
    for key in names:
        if f"{prefix}grad_{key}" in tensors:
            compare(getattr(grads, key), tensors[f"{prefix}grad_{key}"], rtol, key)


@pytest.mark.skipif(not FOLDER.exists(), reason="outside the repository")
def test_convolutions():
    manifest, tensors = golden("causal_conv1d")
    for case in manifest["cases"]:
        of = {key.partition(".")[2]: x for key, x in tensors.items() if key.startswith(case["case"] + ".")}
        arguments = dict(x=of["x"], weight=of["weight"], bias=of.get("bias"), activation="silu" if case["silu"] else None)
        rtol = manifest["tolerance"]["rtol"]
        compare(dis_ssm.causal_conv1d(**arguments), of["out"], rtol, case["case"])
        grads = dis_ssm.causal_conv1d_grad(**arguments, dout=of["dout"])
        for key in ("x", "weight", "bias"):
            if f"grad_{key}" in of:
                compare(getattr(grads, key), of[f"grad_{key}"], rtol, f"{case['case']} {key}")
