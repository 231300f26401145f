"""The scan and the convolution in float64, written from the formulas; arrays are (batch, length, channels)."""

import numpy as np


def spread(matrix, shape):
    """B or C in any form as (batch, length, channels, states)."""
    batch, length, channels, states = shape
    if matrix.ndim == 2:
        return np.broadcast_to(matrix, shape)
    if matrix.ndim == 3:
        return np.broadcast_to(matrix[:, :, None], shape)
    return np.repeat(matrix, channels // matrix.shape[2], axis=2)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def double(x):
    return None if x is None else np.asarray(x, dtype=np.float64)


def scan(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False, initial_state=None, reverse=False, hold=False):
    """y and the last state."""
    u, delta, A, B, C, D, z, delta_bias = map(double, (u, delta, A, B, C, D, z, delta_bias))
    batch, length, channels = u.shape
    shape = (batch, length, channels, A.shape[1])
    B, C = spread(B, shape), spread(C, shape)
    if delta_bias is not None:
        delta = delta + delta_bias
    if delta_softplus:
        delta = np.where(delta > 20, delta, np.log1p(np.exp(np.minimum(delta, 20))))
    h = np.zeros((batch, channels, A.shape[1])) if initial_state is None else double(initial_state)
    y = np.zeros(u.shape)
    for t in reversed(range(length)) if reverse else range(length):
        step = delta[:, t, :, None]
        gain = np.expm1(step * A) / A if hold else step
        h = np.exp(step * A) * h + gain * B[:, t] * u[:, t, :, None]
        y[:, t] = (h * C[:, t]).sum(-1)
    if D is not None:
        y = y + D * u
    if z is not None:
        y = y * z * sigmoid(z)
    return y, h


def conv(x, weight, bias=None, silu=False, before=None, reverse=False):
    """The causal convolution."""
    x, weight, bias, before = map(double, (x, weight, bias, before))
    batch, length, channels = x.shape
    width = weight.shape[1]
    if before is None:
        before = np.zeros((batch, width - 1, channels))
    seen = np.concatenate([x, before], axis=1)[:, ::-1] if reverse else np.concatenate([before, x], axis=1)
    y = sum(seen[:, k : k + length] * weight[:, k] for k in range(width))
    if bias is not None:
        y = y + bias
    if silu:
        y = y * sigmoid(y)
    return y[:, ::-1] if reverse else y
