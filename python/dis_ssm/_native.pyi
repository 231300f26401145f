# The compiled part: arrays are float32, (batch, length, channels) with any strides; results go into arrays that are given.
from typing import Any, Dict, List, Optional, Sequence, Tuple

__version__: str

def simd_level() -> str: ...
def set_num_threads(threads: int) -> None: ...
def get_num_threads() -> int: ...
def _after_fork() -> None: ...
def checkpoint_len(batch: int, length: int, channels: int, states: int, B: Sequence[int], C: Sequence[int]) -> int: ...
def scan(
    u: Any,
    delta: Any,
    A: Any,
    B: Any,
    C: Any,
    D: Any,
    z: Any,
    delta_bias: Any,
    initial_state: Any,
    y: Any,
    last_state: Any,
    checkpoints: Any,
    delta_softplus: bool,
    zero_order_hold: bool,
    reverse: bool,
) -> None: ...
def scan_backward(
    u: Any,
    delta: Any,
    A: Any,
    B: Any,
    C: Any,
    D: Any,
    z: Any,
    delta_bias: Any,
    initial_state: Any,
    checkpoints: Any,
    dout: Any,
    dlast_state: Any,
    du: Any,
    ddelta: Any,
    dA: Any,
    dB: Any,
    dC: Any,
    dD: Any,
    dz: Any,
    ddelta_bias: Any,
    dinitial_state: Any,
    delta_softplus: bool,
    zero_order_hold: bool,
    reverse: bool,
) -> None: ...
def conv(x: Any, weight: Any, bias: Any, initial_states: Any, y: Any, silu: bool, reverse: bool) -> None: ...
def conv_backward(
    x: Any,
    weight: Any,
    bias: Any,
    initial_states: Any,
    dout: Any,
    dx: Any,
    dweight: Any,
    dbias: Any,
    dinitial_states: Any,
    silu: bool,
    reverse: bool,
) -> None: ...
def conv_update(state: Any, x: Any, weight: Any, bias: Any, y: Any, silu: bool) -> None: ...
def sample(*arguments: Any) -> Any: ...
def evaluate(*arguments: Any) -> Tuple[List[Tuple[Any, ...]], List[Tuple[str, str]], List[str], str]: ...
def load_tensors(path: str, entry: Optional[str]) -> List[Tuple[str, str, List[int], bytearray]]: ...
def save_tensors(path: str, tensors: Sequence[Any], entry: Optional[str], metadata: Optional[Dict[str, str]]) -> None: ...

class Pipeline:
    image_shape: Tuple[int, int, int]
    num_parameters: int
    class_names: Optional[List[str]]
    metadata_json: str
    def __init__(self, path: Optional[str]) -> None: ...
    def draw(self, *arguments: Any) -> Any: ...
