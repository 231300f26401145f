"""What each module holds, by the name that public code imports it under.

Functions give the contents when a module is first imported, so nothing here imports torch before.
"""

from __future__ import annotations

import importlib

# The last releases before Mamba-2, whose parts are not here, and with states given to the convolution.
VERSIONS = {"mamba_ssm": "1.2.2", "causal_conv1d": "1.5.0"}


def _of(module, *names):
    """Contents that are some names of one module of this package."""

    def contents():
        source = importlib.import_module(module, "dis_ssm")
        return {name: getattr(source, name) for name in names}

    return contents


def _joined(*parts):
    def contents():
        held = {}
        for part in parts:
            held.update(part())
        return held

    return contents


def _version(package):
    return lambda: {"__version__": VERSIONS[package]}


def _submodules(*names):
    """Contents of a package whose submodules are attributes once it is imported, as real ones have it."""

    def contents():
        for name in names:
            importlib.import_module(name)
        return {}

    return contents


def _nothing():
    return {}


_SCANS = _joined(
    _of(".torch", "selective_scan_fn", "mamba_inner_fn", "mamba_inner_fn_no_out_proj", "bimamba_inner_fn"),
    _of(".torch.reference", "selective_scan_ref", "mamba_inner_ref", "bimamba_inner_ref"),
)
_CONVS = _joined(
    _of(".torch", "causal_conv1d_fn", "causal_conv1d_update"),
    _of(".torch.reference", "causal_conv1d_ref", "causal_conv1d_update_ref"),
)
_NORMS = _of(".torch", "RMSNorm", "layer_norm_fn", "rms_norm_fn")
_UPDATE = _joined(
    _of(".torch", "selective_state_update"), _of(".torch.reference", "selective_state_update_ref")
)
_MIXER = _of(".torch", "Mamba")
_BLOCK = _of(".compat._language", "Block")
_MODEL = _of(".compat._language", "MambaLMHeadModel", "MixerModel", "create_block")

CONTENTS = {
    "mamba_ssm": _joined(
        _version("mamba_ssm"),
        _submodules("mamba_ssm.ops.selective_scan_interface", "mamba_ssm.ops.triton.selective_state_update"),
        _of(".torch", "selective_scan_fn", "mamba_inner_fn"),
        _MIXER,
        _of(".compat._language", "MambaLMHeadModel"),
    ),
    "mamba_ssm.models": _nothing,
    "mamba_ssm.models.config_mamba": _of(".compat._language", "MambaConfig"),
    "mamba_ssm.models.mixer_seq_simple": _joined(_MODEL, _MIXER, _BLOCK),
    "mamba_ssm.modules": _nothing,
    "mamba_ssm.modules.mamba_simple": _joined(_MIXER, _BLOCK),
    "mamba_ssm.ops": _nothing,
    "mamba_ssm.ops.selective_scan_interface": _SCANS,
    "mamba_ssm.ops.triton": _nothing,
    "mamba_ssm.ops.triton.layer_norm": _NORMS,
    # The name in releases up to 1.2, where the order of the arguments after `residual` was another one.
    "mamba_ssm.ops.triton.layernorm": _of(".compat._norms", "RMSNorm", "layer_norm_fn", "rms_norm_fn"),
    "mamba_ssm.ops.triton.selective_state_update": _UPDATE,
    "mamba_ssm.utils": _nothing,
    "mamba_ssm.utils.generation": _of(".compat._generation", "GenerationMixin", "InferenceParams"),
    "mamba_ssm.utils.hf": _of(".compat._language", "load_config_hf", "load_state_dict_hf"),
    "causal_conv1d": _joined(
        _version("causal_conv1d"),
        _submodules("causal_conv1d.causal_conv1d_interface"),
        _of(".torch", "causal_conv1d_fn", "causal_conv1d_update"),
    ),
    "causal_conv1d.causal_conv1d_interface": _CONVS,
    "causal_conv1d.causal_conv1d_varlen": _joined(
        _of(".torch._conv", "causal_conv1d_varlen_states"),
        _of(".torch.reference", "causal_conv1d_varlen_states_ref"),
    ),
    "causal_conv1d_cuda": _of(
        ".compat._extensions", "causal_conv1d_fwd", "causal_conv1d_bwd", "causal_conv1d_update"
    ),
    "selective_scan_cuda": _of(".compat._extensions", "fwd", "bwd"),
}

# Of a fork these are replaced, and the rest is its own: what needs a GPU, and generation, which in forks asks for
# names that transformers has removed.
REPLACED_IN_FORKS = (
    "mamba_ssm.ops.selective_scan_interface",
    "mamba_ssm.ops.triton.layer_norm",
    "mamba_ssm.ops.triton.layernorm",
    "mamba_ssm.ops.triton.selective_state_update",
    "mamba_ssm.utils.generation",
)
