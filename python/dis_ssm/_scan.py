"""The selective scan on NumPy arrays."""

from typing import NamedTuple, Optional

import numpy as np

from . import _native
from ._arrays import axes_of, back, empty, expect, float32, float32_or_none, hold_of, is_tensor, three, tokens

_STATE = "(batch, channels, states)"
_VECTOR = "(channels,)"


class ScanGradients(NamedTuple):
    """Gradients of a selective scan, each in the shape of its array; None where that is None."""

    u: np.ndarray
    delta: np.ndarray
    A: np.ndarray
    B: np.ndarray
    C: np.ndarray
    D: Optional[np.ndarray]
    z: Optional[np.ndarray]
    delta_bias: Optional[np.ndarray]
    initial_state: Optional[np.ndarray]


def _torch(name):
    """The function of the same name for tensors."""
    from . import torch

    found = getattr(torch, name, None)
    if found is None:
        raise TypeError(f"{name} takes NumPy arrays; see dis_ssm.torch for functions of tensors")
    return found


def _matrix(name, value, layout, sizes):
    """B or C as (channels, states), (batch, length, states) or (batch, length, groups, states)."""
    batch, length, channels, states = sizes
    value = float32(name, value)
    if value.ndim == 2:
        expect(name, value, (channels, states), "(channels, states)")
        return value
    if value.ndim not in (3, 4):
        raise ValueError(f"{name} has shape {value.shape}, expected 2, 3 or 4 axes")
    if layout == "bdl":
        grouped = (batch, value.shape[1], states, length)
        axes = "(batch, states, length)" if value.ndim == 3 else "(batch, groups, states, length)"
        expect(name, value, (batch, states, length) if value.ndim == 3 else grouped, axes)
        value = value.swapaxes(1, 2) if value.ndim == 3 else value.transpose(0, 3, 1, 2)
    else:
        grouped = (batch, length, value.shape[2], states)
        axes = "(batch, length, states)" if value.ndim == 3 else "(batch, length, groups, states)"
        expect(name, value, (batch, length, states) if value.ndim == 3 else grouped, axes)
    if value.ndim == 4 and (value.shape[2] == 0 or channels % value.shape[2] != 0):
        raise ValueError(f"{name} has {value.shape[2]} groups, which do not divide {channels} channels")
    return value


def _like_matrix(array, like, layout):
    """A gradient of B or C in the order of its matrix."""
    if like.ndim == 2 or layout == "bld":
        return array
    return array.swapaxes(1, 2) if like.ndim == 3 else array.transpose(0, 2, 3, 1)


class _Scan:
    """The arguments of a scan, checked, as (batch, length, channels)."""

    def __init__(self, u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, reverse, discretization, layout):
        axes = axes_of(layout)
        self.layout = layout
        full = float32("u", u)
        three("u", full, axes)
        self.u = tokens(full, layout)
        batch, length, channels = self.u.shape
        self.A = float32("A", A)
        if self.A.ndim != 2 or self.A.shape[0] != channels or self.A.shape[1] == 0:
            raise ValueError(f"A has shape {self.A.shape}, expected ({channels}, states) (channels, states)")
        self.sizes = (batch, length, channels, self.A.shape[1])
        self.delta, self.z = float32("delta", delta), float32_or_none("z", z)
        expect("delta", self.delta, full.shape, axes)
        expect("z", self.z, full.shape, axes)
        self.delta, self.z = tokens(self.delta, layout), tokens(self.z, layout)
        self.B, self.C = (_matrix(name, x, layout, self.sizes) for name, x in (("B", B), ("C", C)))
        self.D, self.delta_bias = float32_or_none("D", D), float32_or_none("delta_bias", delta_bias)
        expect("D", self.D, (channels,), _VECTOR)
        expect("delta_bias", self.delta_bias, (channels,), _VECTOR)
        self.initial_state = float32_or_none("initial_state", initial_state)
        expect("initial_state", self.initial_state, self.state, _STATE)
        self.flags = (bool(delta_softplus), hold_of(discretization), bool(reverse))

    @property
    def state(self):
        batch, _, channels, states = self.sizes
        return (batch, channels, states)

    @property
    def inputs(self):
        return (self.u, self.delta, self.A, self.B, self.C, self.D, self.z, self.delta_bias, self.initial_state)

    def run(self, last_state=None):
        y = empty(self.u.shape, self.layout)
        _native.scan(self.inputs, self.flags, y, last_state, None)
        return tokens(y, self.layout)


def selective_scan(
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
    initial_state=None,
    reverse=False,
    discretization="mamba",
    *,
    layout="bdl",
):
    """The selective scan of Mamba: ``h = exp(delta A) h + delta B u``, ``y = C h + D u``, times ``silu(z)``.

    Shapes for ``layout="bdl"``, mamba's order; with ``"bld"`` length comes before what stands second:

    - ``u``, ``delta``, ``z``: (batch, channels, length)
    - ``A``: (channels, states), real; ``D``, ``delta_bias``: (channels,)
    - ``B``, ``C``: (channels, states), (batch, states, length) or (batch, groups, states, length)
    - ``initial_state``: (batch, channels, states), the state before the first token walked; zero if it is None

    float32, float16 or bfloat16 (of ml_dtypes); computed in float32. Float32 arrays are not copied, whatever their
    strides are. ``delta`` goes through softplus after ``delta_bias`` is added, if ``delta_softplus``. ``reverse`` walks
    from the last token to the first. ``discretization`` is ``"mamba"`` or ``"zoh"``, the exact zero-order hold of B.

    Returns y in the shape and type of ``u``, or (y, last_state) with last_state (batch, channels, states) in float32
    if ``return_last_state``. PyTorch tensors are given to :mod:`dis_ssm.torch`, which has gradients.

    Raises TypeError for arrays of another type and ValueError for shapes that do not fit; both name the argument.
    """
    if is_tensor(u):
        return _torch("selective_scan")(
            u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state, initial_state, reverse, discretization, layout=layout
        )
    scan = _Scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, reverse, discretization, layout)
    last_state = np.empty(scan.state, np.float32) if return_last_state else None
    y = back(scan.run(last_state), u)
    return (y, last_state) if return_last_state else y


def selective_scan_grad(
    u,
    delta,
    A,
    B,
    C,
    dout,
    D=None,
    z=None,
    delta_bias=None,
    delta_softplus=False,
    initial_state=None,
    reverse=False,
    discretization="mamba",
    dlast_state=None,
    *,
    layout="bdl",
):
    """Gradients of ``sum(dout * y) + sum(dlast_state * last_state)`` of :func:`selective_scan`, as :class:`ScanGradients`.

    ``dout`` has the shape of ``u``, ``dlast_state`` is (batch, channels, states); all else as in :func:`selective_scan`.
    """
    if is_tensor(u):
        raise TypeError("selective_scan_grad takes NumPy arrays; dis_ssm.selective_scan of tensors is differentiable")
    scan = _Scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, reverse, discretization, layout)
    given = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    dout = float32("dout", dout)
    expect("dout", dout, np.shape(u), axes_of(layout))
    dlast_state = float32_or_none("dlast_state", dlast_state)
    expect("dlast_state", dlast_state, scan.state, _STATE)

    def like(array):
        if array is None:
            return None
        is_full = array is scan.u or array is scan.delta or array is scan.z
        return empty(array.shape, layout) if is_full else np.empty(array.shape, np.float32)

    grads = [like(x) for x in scan.inputs]
    _native.scan_backward(scan.inputs, scan.flags, None, tokens(dout, layout), dlast_state, grads)
    u_, delta_, A_, B_, C_, D_, z_, bias_, initial_ = grads
    found = ScanGradients(
        tokens(u_, layout),
        tokens(delta_, layout),
        A_,
        _like_matrix(B_, scan.B, layout),
        _like_matrix(C_, scan.C, layout),
        D_,
        tokens(z_, layout),
        bias_,
        initial_,
    )
    return ScanGradients(*(None if x is None else back(x, like) for x, like in zip(found, given)))


def selective_state_update(state, x, dt, A, B, C, D=None, z=None, dt_bias=None, dt_softplus=False):
    """Advances ``state`` by one token, in place, and returns y in the shape and type of ``x``.

    - ``state``: (batch, channels, states), or (batch, heads, channels of a head, states); float32, or of fewer bits
    - ``x``, ``dt``, ``z``: (batch, channels), or (batch, heads, channels of a head)
    - ``A``: (channels, states); ``D``, ``dt_bias``: (channels,); with heads, (heads, channels of a head) in front
    - ``B``, ``C``: (batch, states), or (batch, groups, states)

    The same bits as :func:`selective_scan` of the whole sequence, token by token.
    """
    if is_tensor(x):
        return _torch("selective_state_update")(state, x, dt, A, B, C, D, z, dt_bias, dt_softplus)
    if not isinstance(state, np.ndarray):
        raise TypeError(f"state is of type {type(state).__name__}, expected a NumPy array")
    if state.ndim not in (3, 4):
        raise ValueError(f"state has shape {state.shape}, expected {_STATE} or (batch, heads, channels, states)")
    if not state.flags.writeable:
        raise ValueError("state is read-only, but is to be changed in place")
    batch, states = state.shape[0], state.shape[-1]
    wide = state.shape[1:-1]
    channels = int(np.prod(wide))

    def flat(name, value, front, shape, axes):
        value = float32_or_none(name, value)
        expect(name, value, front + wide + shape, axes)
        return None if value is None else value.reshape(front + (channels,) + shape)

    front = (batch,)
    row = "(batch, channels)" if len(wide) == 1 else "(batch, heads, channels)"
    if x is None or dt is None:
        raise TypeError(f"{'x' if x is None else 'dt'} is None, expected a NumPy array {row}")
    x_, dt_, z_ = (flat(name, v, front, (), row) for name, v in (("x", x), ("dt", dt), ("z", z)))
    A_ = flat("A", float32("A", A), (), (states,), "(channels, states)")
    D_, bias_ = (flat(name, v, (), (), _VECTOR) for name, v in (("D", D), ("dt_bias", dt_bias)))

    def matrix(name, value):
        value = float32(name, value)
        if value.ndim == 3:
            expect(name, value, (batch, value.shape[1], states), "(batch, groups, states)")
        else:
            expect(name, value, (batch, states), "(batch, states)")
        return value[:, None]

    B_, C_ = matrix("B", B), matrix("C", C)
    # In place where the memory allows it; else by way of a copy.
    own = float32("state", state)
    held = own.reshape(batch, channels, states)
    token = lambda array: None if array is None else array[:, None]
    y = np.empty((batch, 1, channels), np.float32)
    inputs = (token(x_), token(dt_), A_, B_, C_, D_, token(z_), bias_, held)
    _native.scan(inputs, (bool(dt_softplus), False, False), y, held, None)
    if not np.may_share_memory(held, state):
        state[...] = held.reshape(state.shape)
    return back(y.reshape(x.shape), x)
