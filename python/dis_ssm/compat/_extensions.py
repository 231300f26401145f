"""`selective_scan_cuda` and `causal_conv1d_cuda`: the extensions' own functions, for code that calls them itself.

Such code is the inside of an `autograd.Function`, so nothing here is differentiable.
"""

from __future__ import annotations

import torch

from ..torch import causal_conv1d_fn
from ..torch import causal_conv1d_update as _update
from ..torch import selective_scan_fn


def fwd(u, delta, A, B, C, D, z, delta_bias, delta_softplus):
    """Forward scan, all of mamba's shapes: [out, x] and with a gate [out, x, gated out].

    `x` (batch, channels, 1, 2 states) holds the last state in its odd places, where callers look for it.
    """
    out, last = selective_scan_fn(
        u, delta, A, B, C, D, None, delta_bias, delta_softplus, return_last_state=True
    )
    x = last.new_zeros(*last.shape[:2], 1, 2 * last.shape[2])
    x[:, :, 0, 1::2] = last
    if z is None:
        return [out, x]
    return [out, x, (out.float() * torch.nn.functional.silu(z.float())).to(out.dtype)]


def bwd(u, delta, A, B, C, D, z, delta_bias, dout, x, out, dz, delta_softplus, recompute_out_z):
    """Backward scan: [du, ddelta, dA, dB, dC, dD, ddelta_bias], then dz and the gated output where asked.

    Gradients of what is absent are None. A given `dz` is written to.
    """
    given = (u, delta, A, B, C, D, z, delta_bias)
    with torch.enable_grad():
        leaves = [None if value is None else value.detach().requires_grad_() for value in given]
        y = selective_scan_fn(*leaves, delta_softplus)
        wanted = [leaf for leaf in leaves if leaf is not None]
        found = iter(torch.autograd.grad(y, wanted, dout))
    grads = [None if leaf is None else next(found) for leaf in leaves]
    grad_z = grads.pop(6)
    if z is None:
        return grads
    if dz is not None:
        grad_z = dz.copy_(grad_z)
    return [*grads, grad_z] + ([y.detach()] if recompute_out_z else [])


def causal_conv1d_fwd(x, weight, bias, *rest):
    """Forward convolution. After the bias come SiLU (first releases), or sequences, initial states, final states and
    SiLU (from 1.2), or from 1.5 the result before the final states."""
    seq_idx, initial_states, out, final_states, silu = _states(rest)
    result = causal_conv1d_fn(
        x,
        weight,
        bias,
        seq_idx,
        initial_states,
        final_states is not None,
        final_states,
        "silu" if silu else None,
    )
    y = result[0] if final_states is not None else result
    return y if out is None else out.copy_(y)


def _states(rest):
    """Sequences, initial states, result, final states and SiLU of the arguments after the bias."""
    if len(rest) == 1:
        return None, None, None, None, rest[0]
    if len(rest) == 4:
        seq_idx, initial_states, final_states, silu = rest
        return seq_idx, initial_states, None, final_states, silu
    if len(rest) == 5:
        return rest
    raise TypeError(f"causal_conv1d_fwd: {len(rest) + 3} arguments; the releases known here have 4, 7 or 8")


def causal_conv1d_bwd(x, weight, bias, dout, dx, silu):
    """Backward convolution of the first releases: (dx, dweight, dbias). A given `dx` is written to."""
    with torch.enable_grad():
        leaves = [None if value is None else value.detach().requires_grad_() for value in (x, weight, bias)]
        y = causal_conv1d_fn(*leaves, activation="silu" if silu else None)
        wanted = [leaf for leaf in leaves if leaf is not None]
        found = iter(torch.autograd.grad(y, wanted, dout))
    grads = [None if leaf is None else next(found) for leaf in leaves]
    if dx is not None:
        grads[0] = dx.copy_(grads[0])
    return tuple(grads)


def causal_conv1d_update(x, conv_state, weight, bias, silu, *rest):
    """One token, or several, from a state that is changed in place."""
    return _update(x, conv_state, weight, bias, "silu" if silu else None, *rest)
