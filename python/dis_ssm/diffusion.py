"""Gaussian diffusion with any function as the network."""

import numpy as np

from . import _native


def sample(
    fn,
    shape=None,
    *,
    sampler="dpmpp-2m",
    steps=20,
    schedule="linear",
    timesteps=1000,
    prediction="epsilon",
    variance="fixed_small",
    spacing="default",
    eta=0.0,
    clip=None,
    seed=0,
    start=None,
    callback=None,
):
    """Samples ``fn`` from noise: float32, (num, channels, height, width).

    - ``fn(x, t)``: the network. ``x`` is float32 (num, channels, height, width); ``t`` float64 (num,), the timestep of
      each sample, in 0 .. timesteps - 1, with some samplers between two of them. Returns an array or a tensor of the shape
      of ``x``, or with twice the channels if ``variance`` is ``"learned_range"`` or ``"learned"``
    - ``shape``: (num, channels, height, width); that of ``start`` if it is None
    - ``sampler``: ``ddim``, ``ancestral``, ``dpmpp-2m``, ``heun``, ``unipc-2``, ..; ``steps``: its steps
    - ``schedule``: ``linear``, ``cosine``, ..; ``timesteps``: its steps; ``prediction``: ``epsilon``, ``x0`` or ``v``
    - ``spacing``: of the steps over time; ``eta``: noise of DDIM; ``clip``: a bound of the estimate in every step
    - ``seed``: sample i depends on (seed, i) alone; ``start``: noise of one's own to start from
    - ``callback(done, total, x)`` is called after every step; what it raises ends the sampling

    What ``fn`` raises comes out of this function as it is.
    """
    if start is not None:
        start = np.asarray(start, dtype=np.float32)
        if start.ndim != 4:
            raise ValueError(f"start has shape {start.shape}, expected (num, channels, height, width)")
        if shape is not None and tuple(shape) != start.shape:
            raise ValueError(f"start has shape {start.shape}, but shape is {tuple(shape)}")
        shape = start.shape
    if shape is None:
        raise ValueError("shape is None, expected (num, channels, height, width)")
    shape = tuple(int(size) for size in shape)
    if len(shape) != 4 or min(shape) < 1:
        raise ValueError(f"shape is {shape}, expected (num, channels, height, width), each at least 1")
    if clip is not None and not clip > 0:
        raise ValueError(f"clip is {clip}, expected a number above 0")

    def network(x, t):
        output = fn(x, t)
        if hasattr(output, "detach"):
            output = output.detach().cpu().float().numpy()
        return np.asarray(output, dtype=np.float32)

    return _native.sample(
        network,
        shape,
        start,
        sampler,
        steps,
        spacing,
        eta,
        None if clip is None else float(clip),
        schedule,
        timesteps,
        prediction,
        variance,
        seed,
        callback,
    )
