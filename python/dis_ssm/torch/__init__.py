"""Mamba's operations for torch tensors on a CPU, with the signatures of `mamba_ssm.ops` and `causal_conv1d`.

Tensors are float32, bfloat16 or float16; results have the type of the input, and everything is computed in float32.
Functions are differentiable (but for the step by step forms) and are opaque operators to `torch.compile`. For whole
programs that import `mamba_ssm` and `causal_conv1d` by name see `dis_ssm.compat`.
"""

from __future__ import annotations

from ._conv import causal_conv1d_fn, causal_conv1d_update
from ._inner import bimamba_inner_fn, mamba_inner_fn, mamba_inner_fn_no_out_proj
from ._norm import RMSNorm, layer_norm_fn, rms_norm_fn
from ._scan import selective_scan_fn, selective_state_update
from .mamba import BiMamba, Mamba

__all__ = [
    "BiMamba",
    "Mamba",
    "RMSNorm",
    "bimamba_inner_fn",
    "causal_conv1d_fn",
    "causal_conv1d_update",
    "layer_norm_fn",
    "mamba_inner_fn",
    "mamba_inner_fn_no_out_proj",
    "rms_norm_fn",
    "selective_scan_fn",
    "selective_state_update",
]
