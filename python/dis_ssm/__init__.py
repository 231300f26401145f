"""Selective scans and causal convolutions of Mamba, and DiS diffusion models, on a CPU."""

from . import _native

__version__ = _native.__version__
