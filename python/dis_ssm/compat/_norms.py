"""`mamba_ssm.ops.triton.layernorm` of releases up to 1.2: the same norms, with their order of arguments."""

from __future__ import annotations

from ..torch import RMSNorm
from ..torch import layer_norm_fn as _layer_norm_fn

__all__ = ["RMSNorm", "layer_norm_fn", "rms_norm_fn"]


def layer_norm_fn(
    x, weight, bias, residual=None, eps=1e-6, prenorm=False, residual_in_fp32=False, is_rms_norm=False
):
    """As `dis_ssm.torch.layer_norm_fn`."""
    return _layer_norm_fn(
        x,
        weight,
        bias,
        residual,
        eps=eps,
        prenorm=prenorm,
        residual_in_fp32=residual_in_fp32,
        is_rms_norm=is_rms_norm,
    )


def rms_norm_fn(x, weight, bias, residual=None, prenorm=False, residual_in_fp32=False, eps=1e-6):
    """As `dis_ssm.torch.rms_norm_fn`."""
    return layer_norm_fn(x, weight, bias, residual, eps, prenorm, residual_in_fp32, True)
