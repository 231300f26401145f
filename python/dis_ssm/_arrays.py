"""Arguments that are NumPy arrays: their types, their shapes, and the way back to the caller's type."""

import numpy as np

_LOW = ("float16", "bfloat16")


def is_tensor(value):
    """Whether a value is a PyTorch tensor; PyTorch is not imported for it."""
    return type(value).__module__.partition(".")[0] == "torch" or (
        hasattr(value, "data_ptr") and hasattr(value, "requires_grad")
    )


def float32(name, value):
    """The array in float32: itself, or a copy of one of fewer bits."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name} is of type {type(value).__name__}, expected a NumPy array")
    dtype = value.dtype
    if dtype == np.float32 and dtype.isnative:
        return value
    if dtype.name in _LOW:
        return value.astype(np.float32)
    if dtype.kind == "c":
        raise TypeError(f"{name} is complex ({dtype}): only real arrays are supported (a complex A is S4's, not Mamba's)")
    raise TypeError(f"{name} is of type {dtype}, expected float32, float16 or bfloat16")


def float32_or_none(name, value):
    """As :func:`float32`, but None stays."""
    return None if value is None else float32(name, value)


def back(array, like):
    """The array in the type of ``like``."""
    return array if array.dtype == like.dtype else array.astype(like.dtype)


def expect(name, array, shape, axes):
    """Refuses an array of another shape; ``axes`` names the axes of the expected one."""
    if array is not None and array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, expected {shape} {axes}")


def axes_of(layout, second="channels"):
    """The names of three axes in a layout."""
    if layout == "bdl":
        return f"(batch, {second}, length)"
    if layout == "bld":
        return f"(batch, length, {second})"
    raise ValueError(f"layout is {layout!r}, expected 'bdl' for (batch, channels, length) or 'bld'")


def three(name, array, axes):
    """Refuses an array that does not have three axes."""
    if array.ndim != 3:
        raise ValueError(f"{name} has shape {array.shape}, expected {axes}")


def tokens(array, layout):
    """A view of (batch, length, channels)."""
    return array if layout == "bld" or array is None else array.swapaxes(1, 2)


def empty(shape, layout):
    """An array of (batch, length, channels) whose memory is in the order of a layout."""
    batch, length, channels = shape
    if layout == "bld":
        return np.empty(shape, np.float32)
    return np.empty((batch, channels, length), np.float32).swapaxes(1, 2)


def silu_of(activation):
    """Whether an activation is SiLU; None is none."""
    if activation in (None, "none", "identity"):
        return False
    if activation in ("silu", "swish"):
        return True
    raise ValueError(f"activation is {activation!r}, expected None, 'silu' or 'swish'")


def hold_of(discretization):
    """Whether a discretization is the zero-order hold."""
    if discretization == "mamba":
        return False
    if discretization in ("zoh", "zero-order-hold"):
        return True
    raise ValueError(f"discretization is {discretization!r}, expected 'mamba' or 'zoh'")
