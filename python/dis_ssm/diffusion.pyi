from typing import Any, Callable, Optional, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

def sample(
    fn: Callable[[NDArray[np.float32], NDArray[np.float64]], Any],
    shape: Optional[Sequence[int]] = ...,
    *,
    sampler: str = ...,
    steps: int = ...,
    schedule: str = ...,
    timesteps: int = ...,
    prediction: str = ...,
    variance: str = ...,
    spacing: str = ...,
    eta: float = ...,
    clip: Optional[float] = ...,
    seed: int = ...,
    start: Optional[ArrayLike] = ...,
    callback: Optional[Callable[[int, int, NDArray[np.float32]], object]] = ...,
) -> NDArray[np.float32]: ...
