"""The definitions in plain torch: slow, differentiable by autograd, on any device.

They compute in float64 where the first argument is float64 and in float32 otherwise, and give its type. Public code
imports them beside the fast functions, and the tests compare with them in float64.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def _wide(x, dtype):
    return None if x is None else x.to(dtype)


def _compute_dtype(x):
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _every_channel(matrix, batch, channels, length, dtype):
    """B or C in any of its forms as (batch, channels, states, length)."""
    matrix = matrix.to(dtype)
    if matrix.dim() == 2:
        return matrix[None, :, :, None].expand(batch, channels, matrix.shape[1], length)
    if matrix.dim() == 3:
        return matrix[:, None].expand(batch, channels, *matrix.shape[1:])
    return matrix.repeat_interleave(channels // matrix.shape[1], dim=1)


def selective_scan_ref(
    u,
    delta,
    A,
    B,
    C,
    D=None,
    z=None,
    delta_bias=None,
    delta_softplus=False,
    return_last_state=False,
    *,
    initial_state=None,
    reverse=False,
    discretization="mamba",
):
    """`selective_scan_fn` as a loop over tokens: same arguments, shapes and results."""
    dtype = _compute_dtype(u)
    out_dtype = u.dtype
    u, delta, A, D, z, delta_bias = (_wide(x, dtype) for x in (u, delta, A, D, z, delta_bias))
    batch, channels, length = u.shape
    B = _every_channel(B, batch, channels, length, dtype)
    C = _every_channel(C, batch, channels, length, dtype)
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    if delta_softplus:
        delta = F.softplus(delta)
    if initial_state is None:
        state = u.new_zeros(batch, channels, A.shape[1])
    else:
        state = initial_state.to(dtype)
    outputs = [None] * length
    for t in reversed(range(length)) if reverse else range(length):
        step = delta[:, :, t, None]
        decay = torch.exp(step * A)
        if discretization == "mamba":
            drive = step * B[..., t]
        else:
            # (exp(step A) - 1) / A, which is the step itself where A is zero.
            safe = torch.where(A == 0, torch.ones_like(A), A)
            drive = torch.where(A == 0, step.expand_as(decay), torch.expm1(step * A) / safe) * B[..., t]
        state = decay * state + drive * u[:, :, t, None]
        outputs[t] = (state * C[..., t]).sum(dim=-1)
    y = torch.stack(outputs, dim=-1) if outputs else u
    if D is not None:
        y = y + u * D[:, None]
    if z is not None:
        y = y * F.silu(z)
    y = y.to(out_dtype)
    return (y, state) if return_last_state else y


def selective_state_update_ref(state, x, dt, A, B, C, D=None, z=None, dt_bias=None, dt_softplus=False):
    """`selective_state_update` in plain torch: same arguments, shapes and results; `state` is changed in place."""
    dtype = _compute_dtype(state)
    batch, *inner, states = state.shape
    heads = inner[0]
    wide_x, dt, A, D, z, dt_bias = (_wide(value, dtype) for value in (x, dt, A, D, z, dt_bias))

    def of_channels(matrix):
        matrix = matrix.to(dtype)
        if matrix.dim() == 3:
            matrix = matrix.repeat_interleave(heads // matrix.shape[1], dim=1)
            return matrix if len(inner) == 1 else matrix[:, :, None]
        return matrix.reshape(batch, *([1] * len(inner)), states)

    if dt_bias is not None:
        dt = dt + dt_bias
    if dt_softplus:
        dt = F.softplus(dt)
    step = dt[..., None]
    new = state.to(dtype) * torch.exp(step * A) + step * of_channels(B) * wide_x[..., None]
    state.copy_(new)
    y = (new * of_channels(C)).sum(dim=-1)
    if D is not None:
        y = y + D * wide_x
    if z is not None:
        y = y * F.silu(z)
    return y.to(x.dtype)


def causal_conv1d_ref(
    x,
    weight,
    bias=None,
    initial_states=None,
    return_final_states=False,
    final_states_out=None,
    activation=None,
    seq_idx=None,
    *,
    reverse=False,
):
    """`causal_conv1d_fn` in plain torch: same shapes and results."""
    if seq_idx is not None:
        raise NotImplementedError("causal_conv1d_ref: seq_idx is computed by causal_conv1d_fn alone")
    dtype = _compute_dtype(x)
    width = weight.shape[1]
    joined, before = x.to(dtype), _wide(initial_states, dtype)
    if reverse:
        joined, before = joined.flip(-1), None if before is None else before.flip(-1)
    if before is None:
        joined = F.pad(joined, (width - 1, 0))
    else:
        joined = torch.cat([before, joined], dim=-1)
    if x.numel():
        y = F.conv1d(joined, weight.to(dtype).unsqueeze(1), _wide(bias, dtype), groups=weight.shape[0])
    else:
        y = x.to(dtype)
    y = y if activation is None else F.silu(y)
    y = (y.flip(-1) if reverse else y).to(x.dtype)
    if not return_final_states:
        return y
    final = joined[..., joined.shape[-1] - (width - 1) :].to(x.dtype)
    if final_states_out is not None:
        final_states_out.copy_(final)
        final = final_states_out
    return y, final


def causal_conv1d_update_ref(x, conv_state, weight, bias=None, activation=None, cache_seqlens=None):
    """`causal_conv1d_update` in plain torch; `conv_state` is changed in place."""
    single = x.dim() == 2
    tokens = x[..., None] if single else x
    length, held = tokens.shape[-1], conv_state.shape[-1]
    if cache_seqlens is not None:
        # The ring in the order of time, and written back in its own order.
        order = (torch.arange(held, device=x.device)[None] + cache_seqlens.long()[:, None]) % held
        order = order[:, None].expand_as(conv_state)
        past = conv_state.gather(2, order)
        order = (order + length) % held
    else:
        past = conv_state.clone()
    joined = torch.cat([past, tokens.to(past.dtype)], dim=-1)
    y = causal_conv1d_ref(joined.to(weight.dtype), weight, bias, activation=activation)[..., held:]
    kept = joined[..., joined.shape[-1] - held :]
    if cache_seqlens is not None:
        conv_state.scatter_(2, order, kept)
    else:
        conv_state.copy_(kept)
    y = y.to(x.dtype)
    return y[..., 0] if single else y


def causal_conv1d_varlen_states_ref(x, cu_seqlens, state_len):
    """`causal_conv1d_varlen_states` sequence by sequence: same arguments, shapes and results."""
    states = []
    for first, end in zip(cu_seqlens[:-1].tolist(), cu_seqlens[1:].tolist()):
        kept = x[max(first, end - state_len) : end]
        states.append(F.pad(kept.t(), (state_len - kept.shape[0], 0)))
    return torch.stack(states)


def mamba_inner_ref(
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
):
    """`mamba_inner_fn` in plain torch: same arguments, shapes and results."""
    u, delta, B, C, z = _inner_inputs(
        xz, conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, A, B, C, B_proj_bias, C_proj_bias
    )
    y = selective_scan_ref(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    return F.linear(y.transpose(1, 2), out_proj_weight, out_proj_bias)


def bimamba_inner_ref(
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
):
    """`bimamba_inner_fn` in plain torch: same arguments, shapes and results."""
    u, delta, B, C, z = _inner_inputs(
        xz, conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, A, B, C, B_proj_bias, C_proj_bias
    )
    y = selective_scan_ref(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    y = y + selective_scan_ref(u, delta, A_b, B, C, D, z, delta_bias, delta_softplus, reverse=True)
    return F.linear(y.transpose(1, 2), out_proj_weight, out_proj_bias)


def _inner_inputs(
    xz, conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, A, B, C, B_proj_bias, C_proj_bias
):
    rank, states = delta_proj_weight.shape[1], A.shape[1]
    x, z = xz.chunk(2, dim=1)
    u = causal_conv1d_ref(x, conv1d_weight.squeeze(1), conv1d_bias, activation="silu")
    projected = u.transpose(1, 2) @ x_proj_weight.t()
    delta = (projected[..., :rank] @ delta_proj_weight.t()).transpose(1, 2)
    if B is None:
        B = projected[..., rank : rank + states]
        B = (B if B_proj_bias is None else B + B_proj_bias.to(B.dtype)).transpose(1, 2)
    if C is None:
        C = projected[..., projected.shape[-1] - states :]
        C = (C if C_proj_bias is None else C + C_proj_bias.to(C.dtype)).transpose(1, 2)
    return u, delta, B, C, z
