"""The causal convolution on NumPy arrays."""

from typing import NamedTuple, Optional

import numpy as np

from . import _native
from ._arrays import axes_of, back, empty, expect, float32, float32_or_none, is_tensor, silu_of, three, tokens
from ._scan import _torch


class ConvGradients(NamedTuple):
    """Gradients of a causal convolution, each in the shape of its array; None where that is None."""

    x: np.ndarray
    weight: np.ndarray
    bias: Optional[np.ndarray]
    initial_states: Optional[np.ndarray]


def _taps(weight, bias, channels):
    """The weight and the bias, checked."""
    weight, bias = float32("weight", weight), float32_or_none("bias", bias)
    if weight.ndim != 2 or weight.shape[0] != channels or not 2 <= weight.shape[1] <= 4:
        raise ValueError(f"weight has shape {weight.shape}, expected ({channels}, width) with width 2 to 4")
    expect("bias", bias, (channels,), "(channels,)")
    return weight, bias


class _Conv:
    """The arguments of a convolution, checked, as (batch, length, channels)."""

    def __init__(self, x, weight, bias, activation, initial_states, reverse, layout):
        axes = axes_of(layout)
        self.layout = layout
        full = float32("x", x)
        three("x", full, axes)
        self.x = tokens(full, layout)
        batch, _, channels = self.x.shape
        self.weight, self.bias = _taps(weight, bias, channels)
        self.front = self.weight.shape[1] - 1
        before = float32_or_none("initial_states", initial_states)
        if before is not None:
            shape = (batch, channels, self.front) if layout == "bdl" else (batch, self.front, channels)
            expect("initial_states", before, shape, axes_of(layout).replace("length", "width - 1"))
        self.before = tokens(before, layout)
        self.flags = (silu_of(activation), bool(reverse))

    @property
    def inputs(self):
        return (self.x, self.weight, self.bias, self.before)


def causal_conv1d(
    x,
    weight,
    bias=None,
    activation=None,
    *,
    initial_states=None,
    return_final_states=False,
    reverse=False,
    layout="bdl",
):
    """The causal depthwise convolution in front of a scan, then SiLU if ``activation`` is ``"silu"`` or ``"swish"``.

    Shapes for ``layout="bdl"``; with ``"bld"`` the last two are exchanged:

    - ``x``: (batch, channels, length); ``weight``: (channels, width) of width 2 to 4, the last tap on the current token
    - ``bias``: (channels,)
    - ``initial_states``: (batch, channels, width - 1), the inputs before the first token; zeros if it is None. With
      ``reverse``, where later tokens are seen, those after the last one.

    Returns y in the shape and type of ``x``, or (y, final_states) with the last ``width - 1`` inputs if
    ``return_final_states``. PyTorch tensors are given to :mod:`dis_ssm.torch`, which has gradients.

    Raises TypeError for arrays of another type and ValueError for shapes that do not fit; both name the argument.
    """
    if is_tensor(x):
        return _torch("causal_conv1d")(
            x,
            weight,
            bias,
            activation,
            initial_states=initial_states,
            return_final_states=return_final_states,
            reverse=reverse,
            layout=layout,
        )
    conv = _Conv(x, weight, bias, activation, initial_states, reverse, layout)
    y = empty(conv.x.shape, layout)
    _native.conv(conv.inputs, conv.flags, y)
    y = back(tokens(y, layout), x)
    if not return_final_states:
        return y
    batch, length, channels = conv.x.shape
    before = conv.before if conv.before is not None else np.zeros((batch, conv.front, channels), np.float32)
    seen = (conv.x, before) if reverse else (before, conv.x)
    seen = np.concatenate(seen, axis=1)
    final = seen[:, : conv.front] if reverse else seen[:, length:]
    return y, back(np.ascontiguousarray(tokens(final, layout)), x)


def causal_conv1d_grad(x, weight, dout, bias=None, activation=None, *, initial_states=None, reverse=False, layout="bdl"):
    """Gradients of ``sum(dout * causal_conv1d(..))``, as :class:`ConvGradients`; ``dout`` has the shape of ``x``."""
    if is_tensor(x):
        raise TypeError("causal_conv1d_grad takes NumPy arrays; dis_ssm.causal_conv1d of tensors is differentiable")
    conv = _Conv(x, weight, bias, activation, initial_states, reverse, layout)
    dout = float32("dout", dout)
    expect("dout", dout, np.shape(x), axes_of(layout))
    dx = empty(conv.x.shape, layout)
    dweight = np.empty(conv.weight.shape, np.float32)
    dbias = None if bias is None else np.empty(conv.bias.shape, np.float32)
    dbefore = None if conv.before is None else empty(conv.before.shape, layout)
    _native.conv_backward(conv.inputs, conv.flags, tokens(dout, layout), (dx, dweight, dbias, dbefore))
    found = (tokens(dx, layout), dweight, dbias, tokens(dbefore, layout))
    given = (x, weight, bias, initial_states)
    return ConvGradients(*(None if a is None else back(a, like) for a, like in zip(found, given)))


def causal_conv1d_update(x, conv_state, weight, bias=None, activation=None):
    """The convolution of the next tokens of a sequence, token by token the same bits as :func:`causal_conv1d`.

    - ``x``: (batch, channels), or (batch, channels, length)
    - ``conv_state``: (batch, channels, state_len) of at least ``width - 1``: the inputs that went before, newest last;
      moved on in place
    - ``weight``: (channels, width); ``bias``: (channels,)

    Returns y in the shape and type of ``x``.
    """
    if is_tensor(x):
        return _torch("causal_conv1d_update")(x, conv_state, weight, bias, activation)
    x_ = float32("x", x)
    if x_.ndim not in (2, 3):
        raise ValueError(f"x has shape {x_.shape}, expected (batch, channels) or (batch, channels, length)")
    full = x_[:, :, None] if x_.ndim == 2 else x_
    batch, channels, _ = full.shape
    weight, bias = _taps(weight, bias, channels)
    state = float32("conv_state", conv_state)
    if state.ndim != 3 or state.shape[:2] != (batch, channels) or state.shape[2] < weight.shape[1] - 1:
        raise ValueError(
            f"conv_state has shape {state.shape}, expected ({batch}, {channels}, state_len) with state_len at least {weight.shape[1] - 1}"
        )
    if not conv_state.flags.writeable:
        raise ValueError("conv_state is read-only, but is to be changed in place")
    y = np.empty(full.shape, np.float32)
    _native.conv_update(tokens(state, "bdl"), tokens(full, "bdl"), weight, bias, tokens(y, "bdl"), silu_of(activation))
    if state is not conv_state:
        conv_state[...] = state
    return back(y.reshape(x.shape), x)
