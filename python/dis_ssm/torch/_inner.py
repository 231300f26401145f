"""The inside of a Mamba mixer in one call, as `mamba_ssm` and its forks for images name it.

Everything between the projections stays in (batch, length, channels) order, which is what matrix products give and
take, so nothing is transposed that is given so.
"""

from __future__ import annotations

import torch.nn.functional as F

from . import _checks as check
from ._conv import conv_silu
from ._norm import rms_norm
from ._scan import selective_scan_fn


def _selective_inputs(
    op,
    xz,
    conv1d_weight,
    conv1d_bias,
    x_proj_weight,
    delta_proj_weight,
    A,
    B,
    C,
    B_proj_bias,
    C_proj_bias,
    norms=(None, None, None, 1e-6),
):
    """What the scan takes: u, delta (batch, channels, length), B, C, and the gate z."""
    for name, value in (
        ("xz", xz),
        ("A", A),
        ("x_proj_weight", x_proj_weight),
        ("delta_proj_weight", delta_proj_weight),
    ):
        check.tensor(op, name, value)
    check.dims(op, "xz", xz, (3,), "(batch, 2 channels, length)")
    check.dims(op, "A", A, (2,), "(channels, states)")
    check.dims(op, "delta_proj_weight", delta_proj_weight, (2,), "(channels, rank)")
    channels, states = A.shape
    check.shape(op, "xz", xz, (xz.shape[0], 2 * channels, xz.shape[2]), "(batch, 2 channels, length)")
    rank = delta_proj_weight.shape[1]
    check.shape(op, "delta_proj_weight", delta_proj_weight, (channels, rank), "(channels, rank)")
    outputs = rank + states * ((B is None) + (C is None))
    words = "(rank + states for B and for C where they depend on the input, channels)"
    check.shape(op, "x_proj_weight", x_proj_weight, (outputs, channels), words)
    check.tensor(op, "conv1d_weight", conv1d_weight)
    check.dims(op, "conv1d_weight", conv1d_weight, (3,), "(channels, 1, width)")
    x, z = xz.chunk(2, dim=1)
    u = conv_silu(op, x, conv1d_weight.squeeze(1), conv1d_bias)
    projected = F.linear(u.transpose(1, 2), x_proj_weight)
    b_norm, c_norm, delta_norm, eps = norms
    rest = projected[..., rank:]
    delta = _normed(F.linear(projected[..., :rank], delta_proj_weight), delta_norm, eps).transpose(1, 2)
    if B is None:
        B = _normed(_biased(rest[..., :states], B_proj_bias), b_norm, eps).transpose(1, 2)
        rest = rest[..., states:]
    if C is None:
        C = _normed(_biased(rest, C_proj_bias), c_norm, eps).transpose(1, 2)
    return u, delta, B, C, z


def _biased(x, bias):
    return x if bias is None else x + bias.to(x.dtype)


def _normed(x, weight, eps):
    return x if weight is None else rms_norm(x, weight, eps)


def mamba_inner_fn_no_out_proj(
    xz,
    conv1d_weight,
    conv1d_bias,
    x_proj_weight,
    delta_proj_weight,
    A,
    B=None,
    C=None,
    D=None,
    delta_bias=None,
    B_proj_bias=None,
    C_proj_bias=None,
    delta_softplus=True,
    checkpoint_lvl=1,
):
    """`mamba_inner_fn` without the projection at its end: gives (batch, channels, length).

    Parameters and errors are those of `mamba_inner_fn`.
    """
    u, delta, B, C, z = _selective_inputs(
        "mamba_inner_fn_no_out_proj",
        xz,
        conv1d_weight,
        conv1d_bias,
        x_proj_weight,
        delta_proj_weight,
        A,
        B,
        C,
        B_proj_bias,
        C_proj_bias,
    )
    return selective_scan_fn(u, delta, A, B, C, D, z, delta_bias, delta_softplus)


def mamba_inner_fn(
    xz,
    conv1d_weight,
    conv1d_bias,
    x_proj_weight,
    delta_proj_weight,
    out_proj_weight,
    out_proj_bias,
    A,
    B=None,
    C=None,
    D=None,
    delta_bias=None,
    B_proj_bias=None,
    C_proj_bias=None,
    delta_softplus=True,
    checkpoint_lvl=1,
    b_rms_weight=None,
    c_rms_weight=None,
    dt_rms_weight=None,
    b_c_dt_rms_eps=1e-6,
):
    """Convolution, projections, selective scan, gate and output projection of a Mamba mixer.

    Parameters
    ----------
    xz : (batch, 2 channels, length), the input and the gate after the first projection.
    conv1d_weight : (channels, 1, width), width 2 to 4. conv1d_bias : (channels,) or None.
    x_proj_weight : (rank + states for each of B and C that is not given, channels).
    delta_proj_weight : (channels, rank). delta_bias : (channels,).
    out_proj_weight : (width of the model, channels). out_proj_bias : (width of the model,) or None.
    A : (channels, states), real. B, C : (channels, states), or None where they depend on the input.
    D : (channels,). B_proj_bias, C_proj_bias : (states,), added to B and C that depend on the input.
    b_rms_weight, c_rms_weight, dt_rms_weight : (states,), (states,) and (channels,), root-mean-square norms of B, C and
        the steps after their projection. That is what `mamba_ssm` computes; transformers' slow path of Falcon Mamba
        norms the steps before the projection.
    checkpoint_lvl : accepted and not used: what the backward needs is kept.

    Returns
    -------
    (batch, length, width of the model), in the type that matrix products of the inputs have. Differentiable.

    Raises
    ------
    TypeError, ValueError
        They name the argument, its type, device or shape, and what was expected.
    """
    u, delta, B, C, z = _selective_inputs(
        "mamba_inner_fn",
        xz,
        conv1d_weight,
        conv1d_bias,
        x_proj_weight,
        delta_proj_weight,
        A,
        B,
        C,
        B_proj_bias,
        C_proj_bias,
        (b_rms_weight, c_rms_weight, dt_rms_weight, b_c_dt_rms_eps),
    )
    y = selective_scan_fn(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    return F.linear(y.transpose(1, 2), out_proj_weight, out_proj_bias)


def bimamba_inner_fn(
    xz,
    conv1d_weight,
    conv1d_bias,
    x_proj_weight,
    delta_proj_weight,
    out_proj_weight,
    out_proj_bias,
    A,
    A_b,
    B=None,
    C=None,
    D=None,
    delta_bias=None,
    B_proj_bias=None,
    C_proj_bias=None,
    delta_softplus=True,
    checkpoint_lvl=1,
):
    """`mamba_inner_fn` that scans in both directions, backwards with the state matrix A_b, and adds the two.

    Everything else is shared by the directions. Parameters, result and errors are those of `mamba_inner_fn`.
    """
    u, delta, B, C, z = _selective_inputs(
        "bimamba_inner_fn",
        xz,
        conv1d_weight,
        conv1d_bias,
        x_proj_weight,
        delta_proj_weight,
        A,
        B,
        C,
        B_proj_bias,
        C_proj_bias,
    )
    y = selective_scan_fn(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    y = y + selective_scan_fn(u, delta, A_b, B, C, D, z, delta_bias, delta_softplus, reverse=True)
    return F.linear(y.transpose(1, 2), out_proj_weight, out_proj_bias)
