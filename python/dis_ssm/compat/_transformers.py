"""Hugging Face transformers before release 5, whose Mamba layers use fast functions on a CUDA device alone.

Their modules are loaded as they are, then given the functions and a `forward` that asks for no device. Later releases
take the functions from `mamba_ssm` and `causal_conv1d` wherever these can be imported, and nothing is changed.
"""

from __future__ import annotations

import sys

# The module of each model, and its mixer.
GATED = {
    "transformers.models.mamba.modeling_mamba": "MambaMixer",
    "transformers.models.falcon_mamba.modeling_falcon_mamba": "FalconMambaMixer",
    "transformers.models.jamba.modeling_jamba": "JambaMambaMixer",
    "transformers.models.zamba.modeling_zamba": "ZambaMambaMixer",
}


def spec(finder, name, path):
    """The module's own spec, with a loader that changes the mixer afterwards."""
    for other in sys.meta_path:
        found = None if other is finder else other.find_spec(name, path)
        if found is not None:
            if found.loader is not None:
                found.loader = _Loader(found.loader, GATED[name])
            return found
    return None


class _Loader:
    """Another loader, after which the mixer is changed."""

    def __init__(self, loader, mixer):
        self._loader = loader
        self._mixer = mixer

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        self._loader.exec_module(module)
        mixer = getattr(module, self._mixer, None)
        if mixer is not None and hasattr(mixer, "cuda_kernels_forward"):
            _open(module, mixer)


def _open(module, mixer):
    """Gives the module the functions, and the mixer a `forward` that uses them on any device."""
    from .. import torch as ours

    for name in ("selective_scan_fn", "selective_state_update", "mamba_inner_fn"):
        setattr(module, name, getattr(ours, name))
    convolutions = (ours.causal_conv1d_update, ours.causal_conv1d_fn)
    module.causal_conv1d_update, module.causal_conv1d_fn = convolutions
    module._lazy_load_causal_conv1d = lambda: convolutions
    module.is_fast_path_available = True

    def forward(self, hidden_states, *args, **kwargs):
        # Some configurations ask for the slow path.
        fast = getattr(self, "use_fast_kernels", True)
        return (self.cuda_kernels_forward if fast else self.slow_forward)(hidden_states, *args, **kwargs)

    forward.__doc__ = mixer.forward.__doc__
    mixer.forward = forward
