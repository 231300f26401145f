from typing import Any, Callable, Dict, List, Literal, Mapping, NamedTuple, Optional, Sequence, Tuple, Union, overload
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from . import diffusion as diffusion

# float32, float16 or bfloat16; PyTorch tensors of these where a function says so.
Array = Any
Layout = Literal["bdl", "bld"]
Discretization = Literal["mamba", "zoh", "zero-order-hold"]
Activation = Optional[Literal["silu", "swish"]]

__version__: str

class ScanGradients(NamedTuple):
    u: NDArray[Any]
    delta: NDArray[Any]
    A: NDArray[Any]
    B: NDArray[Any]
    C: NDArray[Any]
    D: Optional[NDArray[Any]]
    z: Optional[NDArray[Any]]
    delta_bias: Optional[NDArray[Any]]
    initial_state: Optional[NDArray[Any]]

class ConvGradients(NamedTuple):
    x: NDArray[Any]
    weight: NDArray[Any]
    bias: Optional[NDArray[Any]]
    initial_states: Optional[NDArray[Any]]

@overload
def selective_scan(
    u: Array,
    delta: Array,
    A: Array,
    B: Array,
    C: Array,
    D: Optional[Array] = ...,
    z: Optional[Array] = ...,
    delta_bias: Optional[Array] = ...,
    delta_softplus: bool = ...,
    return_last_state: Literal[False] = ...,
    initial_state: Optional[Array] = ...,
    reverse: bool = ...,
    discretization: Discretization = ...,
    *,
    layout: Layout = ...,
) -> Any: ...
@overload
def selective_scan(
    u: Array,
    delta: Array,
    A: Array,
    B: Array,
    C: Array,
    D: Optional[Array] = ...,
    z: Optional[Array] = ...,
    delta_bias: Optional[Array] = ...,
    delta_softplus: bool = ...,
    return_last_state: bool = ...,
    initial_state: Optional[Array] = ...,
    reverse: bool = ...,
    discretization: Discretization = ...,
    *,
    layout: Layout = ...,
) -> Union[Any, Tuple[Any, Any]]: ...
def selective_scan_grad(
    u: NDArray[Any],
    delta: NDArray[Any],
    A: NDArray[Any],
    B: NDArray[Any],
    C: NDArray[Any],
    dout: NDArray[Any],
    D: Optional[NDArray[Any]] = ...,
    z: Optional[NDArray[Any]] = ...,
    delta_bias: Optional[NDArray[Any]] = ...,
    delta_softplus: bool = ...,
    initial_state: Optional[NDArray[Any]] = ...,
    reverse: bool = ...,
    discretization: Discretization = ...,
    dlast_state: Optional[NDArray[Any]] = ...,
    *,
    layout: Layout = ...,
) -> ScanGradients: ...
def selective_state_update(
    state: Array,
    x: Array,
    dt: Array,
    A: Array,
    B: Array,
    C: Array,
    D: Optional[Array] = ...,
    z: Optional[Array] = ...,
    dt_bias: Optional[Array] = ...,
    dt_softplus: bool = ...,
) -> Any: ...
def causal_conv1d(
    x: Array,
    weight: Array,
    bias: Optional[Array] = ...,
    activation: Activation = ...,
    *,
    initial_states: Optional[Array] = ...,
    return_final_states: bool = ...,
    reverse: bool = ...,
    layout: Layout = ...,
) -> Any: ...
def causal_conv1d_grad(
    x: NDArray[Any],
    weight: NDArray[Any],
    dout: NDArray[Any],
    bias: Optional[NDArray[Any]] = ...,
    activation: Activation = ...,
    *,
    initial_states: Optional[NDArray[Any]] = ...,
    reverse: bool = ...,
    layout: Layout = ...,
) -> ConvGradients: ...
def causal_conv1d_update(
    x: Array, conv_state: Array, weight: Array, bias: Optional[Array] = ..., activation: Activation = ...
) -> Any: ...
def set_num_threads(num_threads: int) -> None: ...
def get_num_threads() -> int: ...
def simd_level() -> str: ...

class Pipeline:
    @classmethod
    def from_pretrained(cls, path: Union[str, PathLike[str]] = ..., *, raw: bool = ...) -> Pipeline: ...
    @property
    def image_shape(self) -> Tuple[int, int, int]: ...
    @property
    def num_parameters(self) -> int: ...
    @property
    def class_names(self) -> Optional[List[str]]: ...
    @property
    def metadata(self) -> Dict[str, Any]: ...
    def __call__(
        self,
        num: Optional[int] = ...,
        classes: Union[None, int, str, Sequence[Union[int, str]]] = ...,
        sampler: Optional[str] = ...,
        steps: Optional[int] = ...,
        cfg_scale: Optional[float] = ...,
        seed: int = ...,
        callback: Optional[Callable[[int, int], object]] = ...,
        *,
        spacing: Optional[str] = ...,
        eta: float = ...,
        clip: bool = ...,
        batch_size: int = ...,
    ) -> NDArray[np.uint8]: ...

class Figure(NamedTuple):
    value: float
    interval: Optional[Tuple[float, float]]
    std: Optional[float]
    better: str
    note: Optional[str]

class Report(NamedTuple):
    figures: Dict[str, Figure]
    left_out: Dict[str, str]
    warnings: List[str]
    table: str

def evaluate(
    samples: Union[NDArray[np.uint8], str],
    reference: Union[NDArray[np.uint8], str],
    metrics: Union[str, Sequence[str]] = ...,
    features: Optional[Callable[[NDArray[np.uint8]], Any]] = ...,
    resamples: int = ...,
    seed: int = ...,
) -> Report: ...
def load_state_dict(path: Union[str, PathLike[str]], entry: Optional[str] = ...) -> Dict[str, NDArray[Any]]: ...
def save_state_dict(
    state: Mapping[str, Any],
    path: Union[str, PathLike[str]],
    entry: str = ...,
    metadata: Optional[Mapping[str, str]] = ...,
) -> None: ...
