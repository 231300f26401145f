"""The inside of a mixer, against the definition in float64."""

import pytest
import torch
import torch.nn.functional as F
from support import TOLERANCE, close, same_as_reference

from dis_ssm.torch import bimamba_inner_fn, mamba_inner_fn, mamba_inner_fn_no_out_proj
from dis_ssm.torch.reference import bimamba_inner_ref, causal_conv1d_ref, mamba_inner_ref, selective_scan_ref


def inner_arguments(variable_b=True, variable_c=True, bias=True, both=False, layout="bdl"):
    draw = torch.Generator().manual_seed(7)
    batch, channels, length, states, rank, model = 2, 24, 11, 5, 3, 13

    def normal(*shape, scale=1.0):
        return scale * torch.randn(*shape, generator=draw)

    xz = normal(batch, 2 * channels, length)
    if layout == "bld":
        xz = xz.transpose(1, 2).contiguous().transpose(1, 2)
    arguments = {
        "xz": xz,
        "conv1d_weight": normal(channels, 1, 4),
        "conv1d_bias": normal(channels),
        "x_proj_weight": normal(rank + states * (variable_b + variable_c), channels, scale=0.3),
        "delta_proj_weight": normal(channels, rank, scale=0.3),
        "out_proj_weight": normal(model, channels, scale=0.3),
        "A": -torch.exp(0.5 * normal(channels, states)),
        "D": normal(channels),
        "delta_bias": normal(channels),
    }
    if bias:
        arguments["out_proj_bias"] = normal(model)
    if both:
        arguments["A_b"] = -torch.exp(0.5 * normal(channels, states))
    for name, variable in (("B", variable_b), ("C", variable_c)):
        if not variable:
            arguments[name] = normal(channels, states)
        elif bias:
            arguments[name + "_proj_bias"] = normal(states)
    return arguments


def with_bias(function):
    """`out_proj_bias` has no default."""
    return lambda **arguments: function(**{"out_proj_bias": None, **arguments})


@pytest.mark.parametrize("layout", ["bdl", "bld"])
@pytest.mark.parametrize("variable_b", [False, True])
@pytest.mark.parametrize("variable_c", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_mamba_inner(layout, variable_b, variable_c, bias):
    arguments = inner_arguments(variable_b, variable_c, bias, layout=layout)
    same_as_reference(with_bias(mamba_inner_fn), with_bias(mamba_inner_ref), arguments, delta_softplus=True)


@pytest.mark.parametrize("bias", [False, True])
def test_bimamba_inner(bias):
    arguments = inner_arguments(bias=bias, both=True)
    same_as_reference(with_bias(bimamba_inner_fn), with_bias(bimamba_inner_ref), arguments)


def test_without_the_last_projection():
    arguments = inner_arguments()
    whole = mamba_inner_fn(**arguments)
    weight, bias = arguments.pop("out_proj_weight"), arguments.pop("out_proj_bias")
    y = mamba_inner_fn_no_out_proj(**arguments)
    assert y.shape == (2, 24, 11)
    assert torch.equal(F.linear(y.transpose(1, 2), weight, bias), whole)


def test_norms_of_falcon_mamba():
    arguments = inner_arguments(bias=False)
    norms = {"b_rms_weight": torch.rand(5), "c_rms_weight": torch.rand(5), "dt_rms_weight": torch.rand(24)}
    y = with_bias(mamba_inner_fn)(**arguments, **norms, b_c_dt_rms_eps=1e-3)
    wide = {name: value.double() for name, value in {**arguments, **norms}.items()}

    def norm(x, weight):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-3) * weight

    x, z = wide["xz"].chunk(2, dim=1)
    u = causal_conv1d_ref(x, wide["conv1d_weight"][:, 0], wide["conv1d_bias"], activation="silu")
    delta, B, C = (u.transpose(1, 2) @ wide["x_proj_weight"].t()).split([3, 5, 5], dim=-1)
    delta = norm(delta @ wide["delta_proj_weight"].t(), wide["dt_rms_weight"])
    scanned = selective_scan_ref(
        u,
        delta.transpose(1, 2),
        wide["A"],
        norm(B, wide["b_rms_weight"]).transpose(1, 2),
        norm(C, wide["c_rms_weight"]).transpose(1, 2),
        wide["D"],
        z,
        wide["delta_bias"],
        True,
    )
    close(y, scanned.transpose(1, 2) @ wide["out_proj_weight"].t(), "out", TOLERANCE[torch.float32])


def test_autocast():
    arguments = inner_arguments()
    with torch.autocast("cpu", torch.bfloat16):
        y = mamba_inner_fn(**arguments)
    assert y.dtype == torch.bfloat16
    close(y, mamba_inner_fn(**arguments), "out", 5e-2)
