"""Selective scans and causal convolutions of Mamba, and DiS diffusion models, on a CPU.

:func:`selective_scan`, :func:`causal_conv1d` and their companions take NumPy arrays or PyTorch tensors; ``dis_ssm.torch``
has them under the names of mamba_ssm and causal_conv1d, differentiable, and ``dis_ssm.compat`` puts them in the place of
these packages. :class:`Pipeline` draws images, :mod:`dis_ssm.diffusion` samples any function, :func:`evaluate` judges
samples, and :func:`load_state_dict` and :func:`save_state_dict` read and write weights.
"""

import os as _os

from . import _native, diffusion
from ._conv import ConvGradients, causal_conv1d, causal_conv1d_grad, causal_conv1d_update
from ._evaluate import Figure, Report, evaluate
from ._files import load_state_dict, save_state_dict
from ._pipeline import Pipeline
from ._scan import ScanGradients, selective_scan, selective_scan_grad, selective_state_update

__version__ = _native.__version__

__all__ = [
    "ConvGradients",
    "Figure",
    "Pipeline",
    "Report",
    "ScanGradients",
    "causal_conv1d",
    "causal_conv1d_grad",
    "causal_conv1d_update",
    "diffusion",
    "evaluate",
    "get_num_threads",
    "load_state_dict",
    "save_state_dict",
    "selective_scan",
    "selective_scan_grad",
    "selective_state_update",
    "set_num_threads",
    "simd_level",
]


def set_num_threads(num_threads):
    """Sets the number of threads that this package works on; 0 is that of RAYON_NUM_THREADS, or all cores.

    Results do not depend on it, bit for bit. Processes of a DataLoader each have threads of their own: set 1 in these.
    """
    _native.set_num_threads(num_threads)


def get_num_threads():
    """The number of threads that this package works on."""
    return _native.get_num_threads()


def simd_level():
    """The instruction set in use: ``avx512``, ``avx2``, ``neon`` or ``portable``; DIS_SIMD chooses another."""
    return _native.simd_level()


if hasattr(_os, "register_at_fork"):
    # Threads do not live on in a forked process: it starts its own at the first call.
    _os.register_at_fork(after_in_child=_native._after_fork)
