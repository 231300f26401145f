"""The operators of the namespace `dis_ssm` that torch's dispatcher knows: opaque to `torch.compile`, with fakes,
gradients, and the native functions behind them.

All take (batch, length, channels) with any strides, as the native functions do; tensors of mamba's order are passed
as transposed views. Every result has the logical shape said here; with `channels_first` its memory is in the order
(batch, channels, length), as mamba's own functions give for such inputs.
"""

from __future__ import annotations

from math import gcd

import torch

from .. import _native

_LIBRARY = torch.library.Library("dis_ssm", "DEF")

# Tokens between two stored states, and channels that share a vector: `dis_scan::checkpoint_len`.
_CHUNK = 16
_LANES = 16


def _define(name, schema, run, fake):
    _LIBRARY.define(name + schema)
    _LIBRARY.impl(name, run, "CPU")
    torch.library.register_fake(f"dis_ssm::{name}", fake, lib=_LIBRARY)


def _array(tensor):
    """A float32 NumPy array of a tensor; shares memory where the tensor is float32."""
    if tensor is None:
        return None
    return tensor.detach().to(torch.float32).numpy()


def _arrays(*tensors):
    return [_array(tensor) for tensor in tensors]


def _empty(shape, like, channels_first=False):
    """A float32 tensor (batch, length, channels) in the memory order asked for."""
    if channels_first:
        batch, length, channels = shape
        return like.new_empty((batch, channels, length), dtype=torch.float32).transpose(1, 2)
    return like.new_empty(shape, dtype=torch.float32)


def channels_first(tensor):
    """Whether (batch, length, channels) lies in memory as mamba's (batch, channels, length)."""
    return tensor.stride(2) != 1 and tensor.stride(1) == 1


def _like(tensor):
    """A float32 tensor of the same shape, in the same order of memory where it has three axes."""
    if tensor is None:
        return None
    if tensor.dim() == 3:
        return _empty(tensor.shape, tensor, channels_first(tensor))
    return tensor.new_empty(tensor.shape, dtype=torch.float32)


def _nothing(like):
    return like.new_empty(0, dtype=torch.float32)


def _no_second_derivative(name):
    """Makes the derivative of a backward operator an error."""

    def refuse(ctx, *grads):
        raise NotImplementedError(f"{name}: second derivatives are not available")

    torch.library.register_autograd(f"dis_ssm::{name}", refuse, lib=_LIBRARY)


# The selective scan.


def _groups(matrix, channels):
    if matrix.dim() == 2:
        return channels
    return matrix.shape[2] if matrix.dim() == 4 else 1


def _kept_states(u, A, B, C):
    """Elements of the states that the backward starts from."""
    batch, length, channels = u.shape
    # Numbers of groups are constants to the compiler.
    of_b, of_c = int(_groups(B, channels)), int(_groups(C, channels))
    if of_b == 0 or of_c == 0:
        return 0
    groups = of_b * of_c // gcd(of_b, of_c)
    padded = (channels // groups + _LANES - 1) // _LANES * _LANES
    return batch * ((length + _CHUNK - 1) // _CHUNK) * groups * padded * A.shape[1]


def _scan_results(u, A, B, C, first, keep):
    y = _empty(u.shape, u, first)
    last = u.new_empty((u.shape[0], u.shape[2], A.shape[1]), dtype=torch.float32)
    kept = u.new_empty(_kept_states(u, A, B, C) if keep else 0, dtype=torch.float32)
    return y, last, kept


def _scan(
    u, delta, A, B, C, D, z, delta_bias, initial_state, softplus, reverse, zero_order_hold, keep, first
):
    y, last, kept = _scan_results(u, A, B, C, first, keep)
    inputs = _arrays(u, delta, A, B, C, D, z, delta_bias, initial_state)
    outputs = (y.numpy(), last.numpy(), kept.numpy() if keep else None)
    _native.scan(inputs, (softplus, zero_order_hold, reverse), *outputs)
    return y.to(u.dtype), last, kept


def _scan_fake(
    u, delta, A, B, C, D, z, delta_bias, initial_state, softplus, reverse, zero_order_hold, keep, first
):
    y, last, kept = _scan_results(u, A, B, C, first, keep)
    return y.to(u.dtype), last, kept


_define(
    "selective_scan",
    "(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, "
    "Tensor? initial_state, bool softplus, bool reverse, bool zero_order_hold, bool keep, bool channels_first) "
    "-> (Tensor, Tensor, Tensor)",
    _scan,
    _scan_fake,
)


def _scan_backward(
    dout, dlast, kept, u, delta, A, B, C, D, z, delta_bias, initial_state, softplus, reverse, zero_order_hold
):
    arguments = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    grads = [_like(argument) for argument in arguments]
    native_grads = [None if grad is None else grad.numpy() for grad in grads]
    flags = (softplus, zero_order_hold, reverse)
    _native.scan_backward(_arrays(*arguments), flags, *_arrays(kept, dout, dlast), native_grads)
    return tuple(
        _nothing(u) if grad is None else grad.to(argument.dtype) for grad, argument in zip(grads, arguments)
    )


def _scan_backward_fake(
    dout, dlast, kept, u, delta, A, B, C, D, z, delta_bias, initial_state, softplus, reverse, zero_order_hold
):
    arguments = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    return tuple(
        _nothing(u) if argument is None else _like(argument).to(argument.dtype) for argument in arguments
    )


_define(
    "selective_scan_backward",
    "(Tensor dout, Tensor? dlast, Tensor? kept, Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, "
    "Tensor? z, Tensor? delta_bias, Tensor? initial_state, bool softplus, bool reverse, bool zero_order_hold) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _scan_backward,
    _scan_backward_fake,
)


_no_second_derivative("selective_scan_backward")


def _scan_setup(ctx, inputs, output):
    *tensors, softplus, reverse, zero_order_hold, keep, _first = inputs
    y, _last, kept = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(kept)
    ctx.flags = (softplus, reverse, zero_order_hold)
    ctx.keep = keep
    ctx.out_like = (y.shape, y.dtype)
    ctx.save_for_backward(*tensors, kept)


def _scan_gradients(ctx, dout, dlast, _dkept):
    *tensors, kept = ctx.saved_tensors
    if dout is None and dlast is None:
        return (None,) * (len(tensors) + 5)
    if dout is None:
        out_shape, dtype = ctx.out_like
        dout = dlast.new_zeros(out_shape, dtype=dtype)
    grads = torch.ops.dis_ssm.selective_scan_backward(
        dout, dlast, kept if ctx.keep else None, *tensors, *ctx.flags
    )
    grads = [None if tensor is None else grad for grad, tensor in zip(grads, tensors)]
    return (*grads, None, None, None, None, None)


torch.library.register_autograd(
    "dis_ssm::selective_scan", _scan_gradients, setup_context=_scan_setup, lib=_LIBRARY
)


# One token of a scan, from a state that is kept.


def _state_update(state, x, dt, A, B, C, D, z, dt_bias, softplus):
    y = x.new_empty(x.shape, dtype=torch.float32)
    own = state.dtype == torch.float32
    work = (state if own else state.float()).detach()
    # A scan of one token, whose first and last state are one array.
    held = work.numpy()
    x, dt, B, C, z, out = (None if value is None else value.unsqueeze(1) for value in (x, dt, B, C, z, y))
    inputs = [*_arrays(x, dt, A, B, C, D, z, dt_bias), held]
    _native.scan(inputs, (softplus, False, False), out.numpy(), held, None)
    if not own:
        state.detach().copy_(work)
    return y.to(x.dtype)


def _state_update_fake(state, x, dt, A, B, C, D, z, dt_bias, softplus):
    return x.new_empty(x.shape)


_define(
    "selective_state_update",
    "(Tensor(a!) state, Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? dt_bias, "
    "bool softplus) -> Tensor",
    _state_update,
    _state_update_fake,
)


# The causal convolution.


def _conv(x, weight, bias, initial_states, silu, reverse, first):
    y = _empty(x.shape, x, first)
    _native.conv(_arrays(x, weight, bias, initial_states), (silu, reverse), y.numpy())
    return y.to(x.dtype)


def _conv_fake(x, weight, bias, initial_states, silu, reverse, first):
    return _empty(x.shape, x, first).to(x.dtype)


_define(
    "causal_conv1d",
    "(Tensor x, Tensor weight, Tensor? bias, Tensor? initial_states, bool silu, bool reverse, bool channels_first) "
    "-> Tensor",
    _conv,
    _conv_fake,
)


def _conv_backward(dout, x, weight, bias, initial_states, silu, reverse):
    arguments = (x, weight, bias, initial_states)
    grads = [_like(argument) for argument in arguments]
    native_grads = [None if grad is None else grad.numpy() for grad in grads]
    _native.conv_backward(_arrays(*arguments), (silu, reverse), _array(dout), native_grads)
    return tuple(
        _nothing(x) if grad is None else grad.to(argument.dtype) for grad, argument in zip(grads, arguments)
    )


def _conv_backward_fake(dout, x, weight, bias, initial_states, silu, reverse):
    arguments = (x, weight, bias, initial_states)
    return tuple(
        _nothing(x) if argument is None else _like(argument).to(argument.dtype) for argument in arguments
    )


_define(
    "causal_conv1d_backward",
    "(Tensor dout, Tensor x, Tensor weight, Tensor? bias, Tensor? initial_states, bool silu, bool reverse) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    _conv_backward,
    _conv_backward_fake,
)


_no_second_derivative("causal_conv1d_backward")


def _conv_setup(ctx, inputs, output):
    x, weight, bias, initial_states, silu, reverse, _first = inputs
    ctx.flags = (silu, reverse)
    ctx.save_for_backward(x, weight, bias, initial_states)


def _conv_gradients(ctx, dout):
    tensors = ctx.saved_tensors
    grads = torch.ops.dis_ssm.causal_conv1d_backward(dout, *tensors, *ctx.flags)
    grads = [None if tensor is None else grad for grad, tensor in zip(grads, tensors)]
    return (*grads, None, None, None)


torch.library.register_autograd(
    "dis_ssm::causal_conv1d", _conv_gradients, setup_context=_conv_setup, lib=_LIBRARY
)


def _conv_update(state, x, weight, bias, silu):
    y = _empty(x.shape, x, channels_first(x))
    own = state if state.dtype == torch.float32 else None
    work = state.to(torch.float32) if own is None else own
    _native.conv_update(work.detach().numpy(), *_arrays(x, weight, bias), y.numpy(), silu)
    if own is None:
        state.detach().copy_(work)
    return y.to(x.dtype)


def _conv_update_fake(state, x, weight, bias, silu):
    return _empty(x.shape, x, channels_first(x)).to(x.dtype)


_define(
    "causal_conv1d_update",
    "(Tensor(a!) state, Tensor x, Tensor weight, Tensor? bias, bool silu) -> Tensor",
    _conv_update,
    _conv_update_fake,
)
