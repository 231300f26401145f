"""The mixers as modules, and the norms."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from support import close

from dis_ssm.torch import BiMamba, Mamba, RMSNorm, layer_norm_fn, rms_norm_fn
from dis_ssm.torch.reference import bimamba_inner_ref, causal_conv1d_ref, selective_scan_ref

ONE_WAY = {
    "A_log": (48, 6),
    "D": (48,),
    "in_proj.weight": (96, 24),
    "conv1d.weight": (48, 1, 4),
    "conv1d.bias": (48,),
    "x_proj.weight": (14, 48),
    "dt_proj.weight": (48, 2),
    "dt_proj.bias": (48,),
    "out_proj.weight": (24, 48),
}


def test_published_names():
    shapes = {name: tuple(value.shape) for name, value in Mamba(24, d_state=6).state_dict().items()}
    assert shapes == ONE_WAY
    both = {name: tuple(value.shape) for name, value in BiMamba(24, d_state=6).state_dict().items()}
    names = {"A_log": "A_b_log", "D": "D_b"}
    for name, shape in ONE_WAY.items():
        module, _, kind = name.partition(".")
        back = names.get(name, f"{module}_b.{kind}")
        if module not in ("in_proj", "out_proj"):
            assert both.pop(back) == shape
    assert both == ONE_WAY
    shared = Mamba(24, d_state=6, bimamba_type="v1", init_layer_scale=0.5).state_dict()
    assert set(shared) - set(ONE_WAY) == {"A_b_log", "gamma"}


def direction(weights, x, z, suffix=""):
    """One direction of a mixer by its definition; `weights` are float64."""
    u = causal_conv1d_ref(
        x, weights[f"conv1d{suffix}.weight"][:, 0], weights[f"conv1d{suffix}.bias"], activation="silu"
    )
    delta, B, C = (u.transpose(1, 2) @ weights[f"x_proj{suffix}.weight"].t()).split([2, 6, 6], dim=-1)
    return selective_scan_ref(
        u,
        (delta @ weights[f"dt_proj{suffix}.weight"].t()).transpose(1, 2),
        -torch.exp(weights[f"A{suffix}_log"]),
        B.transpose(1, 2),
        C.transpose(1, 2),
        weights["D" + suffix],
        z,
        weights[f"dt_proj{suffix}.bias"],
        True,
    )


@pytest.mark.parametrize("kind", ["none", "v1", "v2"])
@pytest.mark.parametrize("divide", [False, True])
def test_against_the_definition(kind, divide):
    torch.manual_seed(0)
    mixer = Mamba(24, d_state=6, bimamba_type=kind, if_divide_out=divide, init_layer_scale=0.7)
    x = torch.randn(2, 9, 24, requires_grad=True)
    y = mixer(x)
    y.square().sum().backward()
    weights = {name: value.detach().double().requires_grad_() for name, value in mixer.named_parameters()}
    wide = x.detach().double().requires_grad_()
    xz = (wide @ weights["in_proj.weight"].t()).transpose(1, 2)
    if kind == "v1":
        expected = bimamba_inner_ref(
            xz,
            weights["conv1d.weight"],
            weights["conv1d.bias"],
            weights["x_proj.weight"],
            weights["dt_proj.weight"],
            weights["out_proj.weight"],
            None,
            -torch.exp(weights["A_log"]),
            -torch.exp(weights["A_b_log"]),
            D=weights["D"],
            delta_bias=weights["dt_proj.bias"],
        )
    else:
        inner, gate = xz.chunk(2, dim=1)
        out = direction(weights, inner, gate)
        if kind == "v2":
            out = out + direction(weights, inner.flip(-1), gate.flip(-1), "_b").flip(-1)
            out = out / 2 if divide else out
        expected = out.transpose(1, 2) @ weights["out_proj.weight"].t()
    expected = expected * weights["gamma"]
    close(y, expected, "out", 2e-5)
    expected.square().sum().backward()
    close(x.grad, wide.grad, "gradient of x", 5e-5)
    for name, parameter in mixer.named_parameters():
        close(parameter.grad, weights[name].grad, f"gradient of {name}", 5e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("prompt", [1, 2, 6])
def test_token_by_token(dtype, prompt):
    torch.manual_seed(1)
    mixer = Mamba(24, d_state=6, layer_idx=0).to(dtype).eval()
    x = torch.randn(2, 9, 24).to(dtype)
    with torch.no_grad():
        whole = mixer(x)
        cache = SimpleNamespace(key_value_memory_dict={}, seqlen_offset=0)
        outs = [mixer(x[:, :prompt], inference_params=cache)]
        for t in range(prompt, 9):
            cache.seqlen_offset = t
            outs.append(mixer(x[:, t : t + 1], inference_params=cache))
    close(torch.cat(outs, dim=1), whole, "out", 1e-5 if dtype == torch.float32 else 4e-2)


def test_what_cannot_go_token_by_token():
    with pytest.raises(ValueError, match="two-way"):
        mixer = BiMamba(24)
        mixer.step(torch.zeros(1, 1, 24), *mixer.allocate_inference_cache(1, 1))
    with pytest.raises(ValueError, match=r"hidden_states has shape \(1, 2, 24\)"):
        mixer = Mamba(24)
        mixer.step(torch.zeros(1, 2, 24), *mixer.allocate_inference_cache(1, 1))
    with pytest.raises(ValueError, match="layer_idx"):
        Mamba(24)(torch.zeros(1, 1, 24), SimpleNamespace(key_value_memory_dict={}, seqlen_offset=0))


@pytest.mark.parametrize("option, value", [("bimamba_type", "v3"), ("dt_init", "ones"), ("d_conv", 5)])
def test_unknown_options(option, value):
    with pytest.raises(ValueError, match=option):
        Mamba(24, **{option: value})


def test_norms():
    torch.manual_seed(2)
    x, residual, weight, bias = torch.randn(2, 3, 8), torch.randn(2, 3, 8), torch.randn(8), torch.randn(8)
    out, total = layer_norm_fn(x, weight, bias, residual, eps=1e-5, prenorm=True)
    assert torch.equal(total, x + residual)
    close(out, F.layer_norm(total, (8,), weight, bias, 1e-5), "out", 1e-6)
    out, total = rms_norm_fn(x, weight, None, residual, eps=1e-5, prenorm=True)
    close(out, F.rms_norm(total, (8,), weight, 1e-5), "out", 1e-6)
    first, second = layer_norm_fn(x, weight, None, x1=residual, weight1=bias, eps=1e-5)
    close(first, F.layer_norm(x + residual, (8,), weight, None, 1e-5), "first", 1e-6)
    close(second, F.layer_norm(x + residual, (8,), bias, None, 1e-5), "second", 1e-6)
    narrow = x.bfloat16()
    out, total = rms_norm_fn(narrow, weight, None, prenorm=True, residual_in_fp32=True)
    assert out.dtype == torch.bfloat16 and total.dtype == torch.float32
    norm = RMSNorm(8, eps=1e-5)
    close(norm(x), F.rms_norm(x, (8,), None, 1e-5), "module", 1e-6)
    assert list(norm.state_dict()) == ["weight"]
