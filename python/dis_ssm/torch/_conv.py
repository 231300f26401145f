"""The causal depthwise convolution and its step by step form, as `causal_conv1d` calls them."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from . import _checks as check
from ._operators import channels_first


def causal_conv1d_fn(
    x,
    weight,
    bias=None,
    seq_idx=None,
    initial_states=None,
    return_final_states=False,
    final_states_out=None,
    activation=None,
    *,
    reverse=False,
):
    """Causal depthwise convolution over the last axis, then SiLU where asked. The last tap is on the current token.

    Parameters
    ----------
    x : (batch, channels, length), float32, bfloat16 or float16, of any strides.
    weight : (channels, width), width 2 to 4. bias : (channels,).
    seq_idx : (batch, length) integers: tokens of other sequences are not seen; those of negative index give zeros.
    initial_states : (batch, channels, width - 1), the inputs before the first (with `reverse`, after the last), in the
        order of their positions; zeros where it is absent.
    return_final_states : whether the last `width - 1` inputs are returned too (batch, channels, width - 1), written to
        `final_states_out` if that is given.
    activation : None, "silu" or "swish".
    reverse : whether "causal" means that later tokens are seen.

    Returns
    -------
    y (batch, channels, length) in the type of x, and with `return_final_states` the final states. Differentiable.

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        They name the argument, its type, device or shape, and what was expected.
    """
    op = "causal_conv1d_fn"
    if isinstance(seq_idx, str):
        # The first releases of causal_conv1d have the activation in the fourth place.
        seq_idx, activation = None, seq_idx
    silu = check.activation(op, activation)
    width = _arguments(op, x, weight, bias)
    batch, channels, length = x.shape
    state_shape = (batch, channels, width - 1)
    check.optional(op, "initial_states", initial_states, state_shape, "(batch, channels, width - 1)")
    check.optional(op, "final_states_out", final_states_out, state_shape, "(batch, channels, width - 1)")
    if seq_idx is not None:
        check.tensor(op, "seq_idx", seq_idx, (torch.int32, torch.int64))
        check.shape(op, "seq_idx", seq_idx, (batch, length), "(batch, length)")
        if return_final_states or reverse:
            raise NotImplementedError(f"{op}: seq_idx goes neither with return_final_states nor with reverse")
        return _conv_of_sequences(x, weight, bias, seq_idx, initial_states, silu)
    tokens = x.transpose(1, 2)
    before = None if initial_states is None else initial_states.transpose(1, 2)
    y = torch.ops.dis_ssm.causal_conv1d(
        tokens, weight, bias, before, silu, bool(reverse), channels_first(tokens)
    ).transpose(1, 2)
    if not return_final_states:
        return y
    if reverse:
        raise NotImplementedError(f"{op}: return_final_states does not go with reverse")
    joined = x if initial_states is None else torch.cat([initial_states.to(x.dtype), x], dim=-1)
    final = F.pad(joined, (width - 1 - joined.shape[-1], 0))
    if final_states_out is not None:
        final_states_out.copy_(final)
        final = final_states_out
    return y, final


def conv_silu(op, x, weight, bias, reverse=False):
    """The convolution and SiLU of x (batch, channels, length), whose result lies as (batch, length, channels)."""
    _arguments(op, x, weight, bias)
    y = torch.ops.dis_ssm.causal_conv1d(x.transpose(1, 2), weight, bias, None, True, reverse, False)
    return y.transpose(1, 2)


def _arguments(op, x, weight, bias):
    """Checks what every convolution has, and gives the width."""
    check.tensor(op, "x", x)
    check.dims(op, "x", x, (3,), "(batch, channels, length)")
    channels = x.shape[1]
    width = _weight(op, weight, channels)
    check.optional(op, "bias", bias, (channels,), "(channels,)")
    return width


def _weight(op, weight, channels):
    check.tensor(op, "weight", weight)
    check.dims(op, "weight", weight, (2,), "(channels, width)")
    width = weight.shape[1]
    check.shape(op, "weight", weight, (channels, width), "(channels, width)")
    if not 2 <= width <= 4:
        raise ValueError(f"{op}: weight has shape {tuple(weight.shape)}; the width must be 2, 3 or 4")
    return width


def _conv_of_sequences(x, weight, bias, seq_idx, initial_states, silu):
    """Several sequences in one row: a tap counts where its token belongs to the sequence of the current one."""
    width = weight.shape[1]
    if initial_states is None:
        joined = F.pad(x, (width - 1, 0))
        before = seq_idx.new_full((x.shape[0], width - 1), -1)
    else:
        joined = torch.cat([initial_states.to(x.dtype), x], dim=-1)
        before = seq_idx[:, :1].expand(-1, width - 1)
    owner = torch.cat([before, seq_idx], dim=-1)
    length = x.shape[-1]
    y = x.new_zeros(x.shape, dtype=torch.float32)
    for tap in range(width):
        same = (owner[:, tap : tap + length] == seq_idx).unsqueeze(1)
        y = y + joined[:, :, tap : tap + length].float() * weight[:, tap].float()[:, None] * same
    if bias is not None:
        y = y + bias.float()[:, None]
    y = y.masked_fill((seq_idx < 0).unsqueeze(1), 0.0)
    return (F.silu(y) if silu else y).to(x.dtype)


def causal_conv1d_update(
    x, conv_state, weight, bias=None, activation=None, cache_seqlens=None, conv_state_indices=None
):
    """The convolution of tokens that follow those in `conv_state`, which is changed in place. Not differentiable.

    Parameters
    ----------
    x : (batch, channels) or (batch, channels, length), float32, bfloat16 or float16.
    conv_state : (batch, channels, state length), the last inputs, newest last; at least width - 1 of them.
    weight : (channels, width), width 2 to 4. bias : (channels,).
    activation : None, "silu" or "swish".
    cache_seqlens : (batch,) integers: `conv_state` is a ring, written from `cache_seqlens % state length`.
    conv_state_indices : (batch,) integers: the rows of `conv_state` that the samples of x use; -1 for a sample that is
        padding, whose result is zero.

    Returns
    -------
    y, of the shape and type of x.

    Raises
    ------
    TypeError, ValueError, IndexError, NotImplementedError
        They name the argument, its type, device or shape, and what was expected.
    """
    op = "causal_conv1d_update"
    silu = check.activation(op, activation)
    check.tensor(op, "x", x)
    check.tensor(op, "conv_state", conv_state)
    check.dims(op, "x", x, (2, 3), "(batch, channels) or (batch, channels, length)")
    single = x.dim() == 2
    if single:
        x = x.unsqueeze(-1)
    batch, channels, length = x.shape
    width = _weight(op, weight, channels)
    check.optional(op, "bias", bias, (channels,), "(channels,)")
    check.dims(op, "conv_state", conv_state, (3,), "(batch, channels, state length)")
    if cache_seqlens is not None:
        check.tensor(op, "cache_seqlens", cache_seqlens, (torch.int32, torch.int64))
        check.shape(op, "cache_seqlens", cache_seqlens, (batch,), "(batch,)")
    rows = conv_state
    if conv_state_indices is not None:
        check.row_indices(op, "conv_state_indices", conv_state_indices, batch, conv_state.shape[0], least=-1)
        places = conv_state_indices.long()
        used = places >= 0
        rows = conv_state.index_select(0, places.clamp(min=0))
    held = rows.shape[2]
    check.shape(op, "conv_state", rows, (batch, channels, held), "(batch, channels, state length)")
    if held < width - 1:
        raise ValueError(
            f"{op}: conv_state has shape {tuple(rows.shape)}; it must hold at least {width - 1} inputs"
        )
    if cache_seqlens is None:
        tokens = x.transpose(1, 2)
        y = torch.ops.dis_ssm.causal_conv1d_update(rows.transpose(1, 2), tokens, weight, bias, silu)
    else:
        y = _update_ring(x, rows, weight, bias, silu, cache_seqlens.long())
    y = y.transpose(1, 2)
    if conv_state_indices is not None:
        conv_state.index_copy_(0, places[used], rows[used])
        y = y.masked_fill(~used[:, None, None], 0)
    return y.squeeze(-1) if single else y


def _update_ring(x, ring, weight, bias, silu, written):
    """The update where the state is a ring buffer; `written` counts the tokens that went before."""
    batch, channels, length = x.shape
    held, before = ring.shape[2], weight.shape[1] - 1

    def places(first, count):
        index = torch.arange(first, first + count, device=x.device)[None] + written[:, None]
        return torch.remainder(index, held)[:, None].expand(batch, channels, count)

    past = ring.gather(2, places(-before, before))
    y = torch.ops.dis_ssm.causal_conv1d(
        x.transpose(1, 2), weight, bias, past.transpose(1, 2), silu, False, False
    )
    kept = min(length, held)
    ring.scatter_(2, places(length - kept, kept), x[:, :, length - kept :].to(ring.dtype))
    return y


def causal_conv1d_varlen_states(x, cu_seqlens, state_len):
    """The last inputs of sequences that lie one after the other, newest last; zeros where a sequence is shorter.

    Parameters
    ----------
    x : (tokens of all sequences, channels).
    cu_seqlens : (batch + 1,) integers, where each sequence begins, and the end.
    state_len : how many inputs.

    Returns
    -------
    (batch, channels, state_len), in the type of x.
    """
    op = "causal_conv1d_varlen_states"
    check.tensor(op, "x", x)
    check.dims(op, "x", x, (2,), "(tokens, channels)")
    check.tensor(op, "cu_seqlens", cu_seqlens, (torch.int32, torch.int64))
    check.dims(op, "cu_seqlens", cu_seqlens, (1,), "(batch + 1,)")
    first, end = cu_seqlens[:-1, None].long(), cu_seqlens[1:, None].long()
    index = end - state_len + torch.arange(state_len, device=x.device)
    absent = index < first
    states = x[index.masked_fill(absent, 0)] if x.shape[0] else x.new_zeros(*index.shape, x.shape[1])
    return states.masked_fill(absent[..., None], 0).transpose(1, 2)
