"""What arguments must be. Every refusal names the function, the argument, and what is expected of it."""

from __future__ import annotations

import torch

FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def tensor(op, name, value, dtypes=FLOATS):
    """Refuses what is not a dense tensor on the CPU of one of `dtypes`."""
    # In the generation of text these checks are a part of the time that one can see.
    if (
        isinstance(value, torch.Tensor)
        and value.is_cpu
        and value.dtype in dtypes
        and value.layout is torch.strided
    ):
        return
    _refuse(op, name, value, dtypes)


def _refuse(op, name, value, dtypes):
    """Says what is wrong with the argument; tensors without memory pass."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{op}: {name} must be a torch.Tensor, not {type(value).__name__}")
    if value.is_complex():
        raise TypeError(
            f"{op}: {name} is complex ({value.dtype}); only real state matrices are computed here "
            "(Mamba's published models have real ones)"
        )
    if value.dtype not in dtypes:
        allowed = ", ".join(str(dtype) for dtype in dtypes)
        raise TypeError(f"{op}: {name} is {value.dtype}; expected one of {allowed}")
    if value.device.type not in ("cpu", "meta"):
        raise ValueError(
            f"{op}: {name} is on {value.device}; dis_ssm computes on the CPU: move it there with .cpu(), "
            "or use mamba_ssm and causal_conv1d on a GPU"
        )
    if value.layout != torch.strided:
        raise TypeError(f"{op}: {name} has layout {value.layout}; expected a dense tensor")


def shape(op, name, value, expected, words):
    """Refuses a tensor whose shape is not `expected`, which `words` names."""
    if value.shape != tuple(expected):
        raise ValueError(f"{op}: {name} has shape {tuple(value.shape)}; expected {words} = {tuple(expected)}")


def dims(op, name, value, allowed, words):
    """Refuses a tensor whose number of dimensions is not among `allowed`."""
    if value.dim() not in allowed:
        raise ValueError(f"{op}: {name} has shape {tuple(value.shape)}; expected {words}")


def optional(op, name, value, expected, words):
    """Checks an optional tensor's kind and shape."""
    if value is not None:
        tensor(op, name, value)
        shape(op, name, value, expected, words)


def matrix(op, name, value, batch, channels, states, length):
    """Checks B or C: (channels, states), (batch, states, length) or (batch, groups, states, length)."""
    tensor(op, name, value)
    words = "(channels, states), (batch, states, length) or (batch, groups, states, length)"
    dims(op, name, value, (2, 3, 4), words)
    if value.dim() == 2:
        shape(op, name, value, (channels, states), "(channels, states)")
    elif value.dim() == 3:
        shape(op, name, value, (batch, states, length), "(batch, states, length)")
    else:
        groups = value.shape[1]
        shape(op, name, value, (batch, groups, states, length), "(batch, groups, states, length)")
        groups_divide(op, name, groups, channels)


def groups_divide(op, name, groups, channels):
    """Refuses groups that do not divide the channels (or heads)."""
    if groups == 0 or channels % groups != 0:
        raise ValueError(f"{op}: {name} has {groups} groups, which do not divide {channels}")


def activation(op, value):
    """Whether SiLU follows a convolution."""
    if value not in (None, "silu", "swish"):
        raise NotImplementedError(f'{op}: activation must be None, "silu" or "swish", not {value!r}')
    return value is not None


def row_indices(op, name, value, batch, rows, least=0):
    """Checks the rows of a pool of states that a batch uses: integers from `least` up, below `rows`."""
    tensor(op, name, value, (torch.int32, torch.int64))
    shape(op, name, value, (batch,), "(batch,)")
    # Their values are not known while a program is compiled.
    if value.numel() and value.is_cpu and not torch.compiler.is_compiling():
        low, high = value.min().item(), value.max().item()
        if low < least or high >= rows:
            raise IndexError(f"{op}: {name} has values from {low} to {high}; expected {least} to {rows - 1}")
