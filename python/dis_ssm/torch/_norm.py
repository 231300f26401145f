"""Norms that models with Mamba layers take from `mamba_ssm.ops.triton`, in plain torch, computed in float32."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def rms_norm(x, weight, eps):
    """Root-mean-square norm over the last axis, in the type of x."""
    wide = x.float()
    normed = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps)
    return (normed * weight.float()).to(x.dtype)


def _layer_norm(x, weight, bias, eps):
    bias = None if bias is None else bias.float()
    return F.layer_norm(x.float(), x.shape[-1:], weight.float(), bias, eps).to(x.dtype)


def layer_norm_fn(
    x,
    weight,
    bias,
    residual=None,
    x1=None,
    weight1=None,
    bias1=None,
    eps=1e-6,
    dropout_p=0.0,
    rowscale=None,
    prenorm=False,
    residual_in_fp32=False,
    is_rms_norm=False,
    return_dropout_mask=False,
):
    """Adds `residual` to x and normalises over the last axis.

    Parameters
    ----------
    x, residual, x1 : (..., width). weight, bias, weight1, bias1 : (width,); a bias may be None.
    x1 : added to x too. weight1, bias1 : those of a second norm of the same sum.
    dropout_p, rowscale : x is multiplied by `rowscale` (...) and goes through dropout before anything is added.
    prenorm : whether the sum is returned too. residual_in_fp32 : whether the sum is float32 when there is no residual
        yet; otherwise it has the type of the residual.
    is_rms_norm : whether the norm is the root mean square without centring.

    Returns
    -------
    The norm of the sum in the type of x, then the second norm where there is one, then the sum where `prenorm`.

    Raises
    ------
    NotImplementedError
        For `return_dropout_mask`.
    """
    if return_dropout_mask:
        raise NotImplementedError("layer_norm_fn: return_dropout_mask is not available here")
    dtype = x.dtype
    if rowscale is not None:
        x = x * rowscale[..., None]
    if dropout_p > 0.0:
        x = F.dropout(x, dropout_p)
        x1 = None if x1 is None else F.dropout(x1, dropout_p)
    total = x.float()
    if x1 is not None:
        total = total + x1.float()
    if residual is not None:
        total = total + residual.float()

    def norm(weight, bias):
        if not is_rms_norm:
            return _layer_norm(total, weight, bias, eps).to(dtype)
        normed = rms_norm(total, weight, eps)
        return (normed if bias is None else normed + bias.float()).to(dtype)

    results = [norm(weight, bias)]
    if weight1 is not None:
        results.append(norm(weight1, bias1))
    if prenorm:
        kept = residual.dtype if residual is not None else torch.float32 if residual_in_fp32 else dtype
        results.append(total.to(kept))
    return results[0] if len(results) == 1 else tuple(results)


def rms_norm_fn(
    x,
    weight,
    bias,
    residual=None,
    x1=None,
    weight1=None,
    bias1=None,
    eps=1e-6,
    dropout_p=0.0,
    rowscale=None,
    prenorm=False,
    residual_in_fp32=False,
    return_dropout_mask=False,
):
    """`layer_norm_fn` with the root-mean-square norm."""
    return layer_norm_fn(
        x,
        weight,
        bias,
        residual,
        x1,
        weight1,
        bias1,
        eps,
        dropout_p,
        rowscale,
        prenorm,
        residual_in_fp32,
        True,
        return_dropout_mask,
    )


class RMSNorm(torch.nn.Module):
    """Root-mean-square norm over the last axis, with a weight (width,) and no bias.

    Parameters
    ----------
    hidden_size : the width. eps : added to the mean square. dropout_p : dropout of the input in training.
    """

    def __init__(self, hidden_size, eps=1e-5, dropout_p=0.0, device=None, dtype=None):
        super().__init__()
        self.eps = eps
        self.drop = torch.nn.Dropout(dropout_p) if dropout_p > 0.0 else None
        self.weight = torch.nn.Parameter(torch.ones(hidden_size, device=device, dtype=dtype))
        self.register_parameter("bias", None)

    def reset_parameters(self):
        """Sets the weight to one."""
        torch.nn.init.ones_(self.weight)

    def forward(self, x, residual=None, prenorm=False, residual_in_fp32=False):
        """As `layer_norm_fn`, x (..., width)."""
        return rms_norm_fn(
            x,
            self.weight,
            self.bias,
            residual=residual,
            eps=self.eps,
            dropout_p=self.drop.p if self.drop is not None and self.training else 0.0,
            prenorm=prenorm,
            residual_in_fp32=residual_in_fp32,
        )
