"""Samples judged against a reference."""

from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from . import _native


class Figure(NamedTuple):
    """A figure: its value, the 95 % interval of the bootstrap, the standard deviation over splits."""

    value: float
    interval: Optional[Tuple[float, float]]
    std: Optional[float]
    better: str
    note: Optional[str]


class Report(NamedTuple):
    """What was measured; ``report["fid"].value`` is a figure, ``print(report)`` a table."""

    figures: Dict[str, Figure]
    left_out: Dict[str, str]
    warnings: List[str]
    table: str

    def __getitem__(self, name):
        if isinstance(name, str):
            return self.figures[name]
        return tuple.__getitem__(self, name)

    def __str__(self):
        return self.table


def evaluate(samples, reference, metrics=("fid", "kid", "pr", "dc", "copies"), features=None, resamples=200, seed=0):
    """Judges samples against a reference, with intervals.

    - ``samples``, ``reference``: uint8 (num, height, width, channels), or the name of data as the ``dis`` command knows it
      (``"digits-train"``, a folder of pictures with ``"DIR,size=32"``, ``"images.npz"``, ..)
    - ``metrics``: of ``fid`` (Frechet distance), ``kid``, ``pr`` (precision and recall), ``dc`` (density and coverage) and
      ``copies`` (share of near copies of reference images)
    - ``features``: None for pixels, or a function of a uint8 array (n, height, width, channels) that returns (n, features),
      a network of torchvision's for instance; then both sides have to be arrays
    - ``resamples``: sets drawn for the intervals, by ``seed``

    Returns a :class:`Report`. A metric that cannot be had is in ``left_out`` with the reason.
    """
    given = (None, None)
    if features is not None:
        given = tuple(_features(features, name, side) for name, side in (("samples", samples), ("reference", reference)))
    if isinstance(metrics, str):
        metrics = metrics.split(",")
    sides = (side if isinstance(side, str) else _images(name, side) for name, side in (("samples", samples), ("reference", reference)))
    figures, left_out, warnings, table = _native.evaluate(*sides, list(metrics), *given, resamples, seed)
    figures = {name: Figure(*rest) for name, *rest in figures}
    return Report(figures, dict(left_out), warnings, table)


def _images(name, side):
    if not isinstance(side, np.ndarray):
        raise TypeError(f"{name} is of type {type(side).__name__}, expected a NumPy array of uint8 or the name of data")
    if side.dtype != np.uint8:
        raise TypeError(f"{name} is of type {side.dtype}, expected uint8")
    if side.ndim != 4:
        raise ValueError(f"{name} has shape {side.shape}, expected (num, height, width, channels)")
    return side


def _features(function, name, side):
    if isinstance(side, str):
        raise TypeError(f"{name} is the name of data: features of a function need arrays")
    side = _images(name, side)
    parts = [_values(function(side[i : i + 64])) for i in range(0, len(side), 64)]
    if not parts:
        raise ValueError(f"{name} has no images")
    found = np.concatenate(parts)
    if found.ndim != 2 or len(found) != len(side):
        raise ValueError(f"features of {name} have shape {found.shape}, expected ({len(side)}, features)")
    return found


def _values(output):
    if hasattr(output, "detach"):
        output = output.detach().cpu().float().numpy()
    return np.asarray(output, dtype=np.float32)
