from typing import Any, Literal, Optional, Union, overload

from torch import Tensor, nn

_Discretization = Literal["mamba", "zoh"]
_Activation = Optional[Literal["silu", "swish"]]

@overload
def selective_scan_fn(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Optional[Tensor] = None,
    z: Optional[Tensor] = None,
    delta_bias: Optional[Tensor] = None,
    delta_softplus: bool = False,
    return_last_state: Literal[False] = False,
    *,
    initial_state: Optional[Tensor] = None,
    reverse: bool = False,
    discretization: _Discretization = "mamba",
) -> Tensor: ...
@overload
def selective_scan_fn(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Optional[Tensor] = None,
    z: Optional[Tensor] = None,
    delta_bias: Optional[Tensor] = None,
    delta_softplus: bool = False,
    *,
    return_last_state: Literal[True],
    initial_state: Optional[Tensor] = None,
    reverse: bool = False,
    discretization: _Discretization = "mamba",
) -> tuple[Tensor, Tensor]: ...
def selective_state_update(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Optional[Tensor] = None,
    z: Optional[Tensor] = None,
    dt_bias: Optional[Tensor] = None,
    dt_softplus: bool = False,
    state_batch_indices: Optional[Tensor] = None,
) -> Tensor: ...
@overload
def causal_conv1d_fn(
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor] = None,
    seq_idx: Optional[Tensor] = None,
    initial_states: Optional[Tensor] = None,
    return_final_states: Literal[False] = False,
    final_states_out: Optional[Tensor] = None,
    activation: _Activation = None,
    *,
    reverse: bool = False,
) -> Tensor: ...
@overload
def causal_conv1d_fn(
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor] = None,
    seq_idx: Optional[Tensor] = None,
    initial_states: Optional[Tensor] = None,
    *,
    return_final_states: Literal[True],
    final_states_out: Optional[Tensor] = None,
    activation: _Activation = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]: ...
def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Optional[Tensor] = None,
    activation: _Activation = None,
    cache_seqlens: Optional[Tensor] = None,
    conv_state_indices: Optional[Tensor] = None,
) -> Tensor: ...
def mamba_inner_fn(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Optional[Tensor],
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    out_proj_weight: Tensor,
    out_proj_bias: Optional[Tensor],
    A: Tensor,
    B: Optional[Tensor] = None,
    C: Optional[Tensor] = None,
    D: Optional[Tensor] = None,
    delta_bias: Optional[Tensor] = None,
    B_proj_bias: Optional[Tensor] = None,
    C_proj_bias: Optional[Tensor] = None,
    delta_softplus: bool = True,
    checkpoint_lvl: int = 1,
    b_rms_weight: Optional[Tensor] = None,
    c_rms_weight: Optional[Tensor] = None,
    dt_rms_weight: Optional[Tensor] = None,
    b_c_dt_rms_eps: float = 1e-6,
) -> Tensor: ...
def mamba_inner_fn_no_out_proj(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Optional[Tensor],
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    A: Tensor,
    B: Optional[Tensor] = None,
    C: Optional[Tensor] = None,
    D: Optional[Tensor] = None,
    delta_bias: Optional[Tensor] = None,
    B_proj_bias: Optional[Tensor] = None,
    C_proj_bias: Optional[Tensor] = None,
    delta_softplus: bool = True,
    checkpoint_lvl: int = 1,
) -> Tensor: ...
def bimamba_inner_fn(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Optional[Tensor],
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    out_proj_weight: Tensor,
    out_proj_bias: Optional[Tensor],
    A: Tensor,
    A_b: Tensor,
    B: Optional[Tensor] = None,
    C: Optional[Tensor] = None,
    D: Optional[Tensor] = None,
    delta_bias: Optional[Tensor] = None,
    B_proj_bias: Optional[Tensor] = None,
    C_proj_bias: Optional[Tensor] = None,
    delta_softplus: bool = True,
    checkpoint_lvl: int = 1,
) -> Tensor: ...
def layer_norm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],
    residual: Optional[Tensor] = None,
    x1: Optional[Tensor] = None,
    weight1: Optional[Tensor] = None,
    bias1: Optional[Tensor] = None,
    eps: float = 1e-6,
    dropout_p: float = 0.0,
    rowscale: Optional[Tensor] = None,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    is_rms_norm: bool = False,
    return_dropout_mask: bool = False,
) -> Union[Tensor, tuple[Tensor, ...]]: ...
def rms_norm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],
    residual: Optional[Tensor] = None,
    x1: Optional[Tensor] = None,
    weight1: Optional[Tensor] = None,
    bias1: Optional[Tensor] = None,
    eps: float = 1e-6,
    dropout_p: float = 0.0,
    rowscale: Optional[Tensor] = None,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    return_dropout_mask: bool = False,
) -> Union[Tensor, tuple[Tensor, ...]]: ...

class RMSNorm(nn.Module):
    weight: nn.Parameter
    eps: float
    def __init__(
        self, hidden_size: int, eps: float = 1e-5, dropout_p: float = 0.0, device: Any = None, dtype: Any = None
    ) -> None: ...
    def reset_parameters(self) -> None: ...
    def forward(
        self, x: Tensor, residual: Optional[Tensor] = None, prenorm: bool = False, residual_in_fp32: bool = False
    ) -> Union[Tensor, tuple[Tensor, ...]]: ...

class Mamba(nn.Module):
    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float = 2,
        dt_rank: Union[int, Literal["auto"]] = "auto",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: Literal["random", "constant"] = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        conv_bias: bool = True,
        bias: bool = False,
        use_fast_path: bool = True,
        layer_idx: Optional[int] = None,
        device: Any = None,
        dtype: Any = None,
        bimamba_type: Literal["none", "v1", "v2"] = "none",
        if_divide_out: bool = False,
        init_layer_scale: Optional[float] = None,
    ) -> None: ...
    def forward(self, hidden_states: Tensor, inference_params: Any = None) -> Tensor: ...
    def step(
        self, hidden_states: Tensor, conv_state: Tensor, ssm_state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]: ...
    def allocate_inference_cache(
        self, batch_size: int, max_seqlen: int, dtype: Any = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor]: ...

class BiMamba(Mamba): ...
