"""The selective scan and its step by step form, as `mamba_ssm` calls them."""

from __future__ import annotations

import torch

from . import _checks as check
from ._operators import channels_first

_DISCRETIZATIONS = {"mamba": False, "zoh": True}


def selective_scan_fn(
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
    """Selective scan: `h_t = exp(delta A) h_(t-1) + delta B u_t`, `y_t = C h_t + D u_t`, times SiLU(z).

    Parameters
    ----------
    u, delta, z : (batch, channels, length), float32, bfloat16 or float16. Strides may be any; what is
        `x.transpose(1, 2)` of a (batch, length, channels) tensor is read as fast as mamba's own order.
    A : (channels, states), real.
    B, C : (channels, states), (batch, states, length) or (batch, groups, states, length).
    D, delta_bias : (channels,).
    delta_softplus : whether `delta + delta_bias` goes through softplus.
    return_last_state : whether the state after the last token is returned too.
    initial_state : (batch, channels, states), the state before the first token; zeros where it is absent.
    reverse : whether the sequence is walked from its end.
    discretization : "mamba" (`B_bar = delta B`) or "zoh" (the zero-order hold).

    Returns
    -------
    y (batch, channels, length) in the type of u, and with `return_last_state` the last state (batch, channels,
    states) in float32. Both are differentiable, by every tensor.

    Raises
    ------
    TypeError, ValueError
        They name the argument, its type, device or shape, and what was expected.
    """
    op = "selective_scan_fn"
    for name, value in (("u", u), ("delta", delta), ("A", A)):
        check.tensor(op, name, value)
    check.dims(op, "u", u, (3,), "(batch, channels, length)")
    check.dims(op, "A", A, (2,), "(channels, states)")
    batch, channels, length = u.shape
    states = A.shape[1]
    if states == 0:
        raise ValueError(f"{op}: A has shape {tuple(A.shape)}; there must be at least one state")
    full, vector = (batch, channels, length), (channels,)
    check.shape(op, "delta", delta, full, "(batch, channels, length) of u")
    check.shape(op, "A", A, (channels, states), "(channels, states)")
    check.matrix(op, "B", B, batch, channels, states, length)
    check.matrix(op, "C", C, batch, channels, states, length)
    check.optional(op, "D", D, vector, "(channels,)")
    check.optional(op, "z", z, full, "(batch, channels, length) of u")
    check.optional(op, "delta_bias", delta_bias, vector, "(channels,)")
    check.optional(op, "initial_state", initial_state, (batch, channels, states), "(batch, channels, states)")
    if discretization not in _DISCRETIZATIONS:
        raise ValueError(f'{op}: discretization must be "mamba" or "zoh", not {discretization!r}')
    u = u.transpose(1, 2)
    y, last = scan_tokens(
        u,
        delta.transpose(1, 2),
        A,
        _tokens(B),
        _tokens(C),
        D,
        None if z is None else z.transpose(1, 2),
        delta_bias,
        bool(delta_softplus),
        initial_state=initial_state,
        reverse=bool(reverse),
        zero_order_hold=_DISCRETIZATIONS[discretization],
        first=channels_first(u),
    )
    y = y.transpose(1, 2)
    return (y, last) if return_last_state else y


def scan_tokens(
    u,
    delta,
    A,
    B,
    C,
    D,
    z,
    delta_bias,
    softplus,
    *,
    initial_state=None,
    reverse=False,
    zero_order_hold=False,
    first=False,
):
    """The scan of checked tensors in (batch, length, channels) order: y in the same, and the last state."""
    tensors = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    keep = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
    y, last, _kept = torch.ops.dis_ssm.selective_scan(
        *tensors, softplus, reverse, zero_order_hold, keep, first
    )
    return y, last


def _tokens(matrix):
    """B or C with the tokens in front of groups and states, as the operators take them."""
    if matrix.dim() == 3:
        return matrix.transpose(1, 2)
    return matrix.permute(0, 3, 1, 2) if matrix.dim() == 4 else matrix


def selective_state_update(
    state, x, dt, A, B, C, D=None, z=None, dt_bias=None, dt_softplus=False, state_batch_indices=None
):
    """One token of a selective scan; `state` is changed in place. Not differentiable.

    Parameters
    ----------
    state : (batch, channels, states), or with heads (batch, heads, channels, states).
    x, dt, z : (batch, channels) or (batch, heads, channels).
    A : (channels, states) or (heads, channels, states).
    B, C : (batch, states) or (batch, groups, states); groups divide the heads, or the channels without heads.
    D, dt_bias : (channels,) or (heads, channels).
    dt_softplus : whether `dt + dt_bias` goes through softplus.
    state_batch_indices : (batch,) integers: the rows of `state` that the samples of x use.

    Returns
    -------
    y, of the shape and type of x.

    Raises
    ------
    TypeError, ValueError, IndexError
        They name the argument, its type, device or shape, and what was expected.
    """
    op = "selective_state_update"
    for name, value in (("state", state), ("x", x), ("dt", dt), ("A", A), ("B", B), ("C", C)):
        check.tensor(op, name, value)
    check.dims(op, "state", state, (3, 4), "(batch, channels, states) or (batch, heads, channels, states)")
    rows = state
    if state_batch_indices is not None:
        check.row_indices(op, "state_batch_indices", state_batch_indices, x.shape[0], state.shape[0])
        rows = state.index_select(0, state_batch_indices)
    batch, *inner, states = rows.shape
    channels = inner[0] if len(inner) == 1 else inner[0] * inner[1]
    words = "(batch, channels)" if len(inner) == 1 else "(batch, heads, channels)"
    check.shape(op, "x", x, (batch, *inner), words)
    check.shape(op, "dt", dt, (batch, *inner), words)
    check.shape(op, "A", A, (*inner, states), words.replace("batch, ", "").replace(")", ", states)"))
    for name, value in (("B", B), ("C", C)):
        check.dims(op, name, value, (2, 3), "(batch, states) or (batch, groups, states)")
        groups = value.shape[1:-1]
        check.shape(op, name, value, (batch, *groups, states), "(batch, states) or (batch, groups, states)")
        for count in groups:
            check.groups_divide(op, name, count, inner[0])
    per_channel = words.replace("batch, ", "")
    check.optional(op, "D", D, inner, per_channel)
    check.optional(op, "z", z, (batch, *inner), words)
    check.optional(op, "dt_bias", dt_bias, inner, per_channel)

    def flat(value, *lead):
        return None if value is None else value.reshape(*lead, channels)

    work = rows.reshape(batch, channels, states)
    y = torch.ops.dis_ssm.selective_state_update(
        work,
        flat(x, batch),
        flat(dt, batch),
        A.reshape(channels, states),
        B,
        C,
        flat(D),
        flat(z, batch),
        flat(dt_bias),
        bool(dt_softplus),
    )
    if state_batch_indices is not None:
        state.index_copy_(0, state_batch_indices.long(), work.reshape(rows.shape))
    elif len(inner) == 2 and state.stride(1) != state.shape[2] * state.stride(2):
        # Heads and channels do not lie as one axis, so what was updated is a copy.
        state.copy_(work.reshape(state.shape))
    return y.reshape(x.shape)
