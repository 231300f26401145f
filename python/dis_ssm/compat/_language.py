"""The language model of `mamba_ssm.models.mixer_seq_simple`, with its parameter names."""

from __future__ import annotations

import json
import math
import os
from collections import namedtuple
from dataclasses import asdict, dataclass, field
from functools import partial

import torch
from torch import nn

from ..torch import Mamba, RMSNorm, layer_norm_fn, rms_norm_fn
from ._generation import GenerationMixin


@dataclass
class MambaConfig:
    """The configuration that published checkpoints come with."""

    d_model: int = 2560
    n_layer: int = 64
    vocab_size: int = 50277
    ssm_cfg: dict = field(default_factory=dict)
    rms_norm: bool = True
    residual_in_fp32: bool = True
    fused_add_norm: bool = True
    pad_vocab_size_multiple: int = 8
    tie_embeddings: bool = True


class Block(nn.Module):
    """Adds the hidden states to the residual, norms the sum and mixes it; returns both streams.

    Parameters
    ----------
    dim : width of the model. mixer_cls, norm_cls : called with `dim`.
    fused_add_norm : whether sum and norm are one function. residual_in_fp32 : whether the residual is float32.
    """

    def __init__(self, dim, mixer_cls, norm_cls=nn.LayerNorm, fused_add_norm=False, residual_in_fp32=False):
        super().__init__()
        self.residual_in_fp32 = residual_in_fp32
        self.fused_add_norm = fused_add_norm
        self.mixer = mixer_cls(dim)
        self.norm = norm_cls(dim)

    def forward(self, hidden_states, residual=None, inference_params=None):
        """(batch, length, dim), and the residual of the same shape or None."""
        if self.fused_add_norm:
            function = rms_norm_fn if isinstance(self.norm, RMSNorm) else layer_norm_fn
            hidden_states, residual = function(
                hidden_states,
                self.norm.weight,
                self.norm.bias,
                residual=residual,
                prenorm=True,
                residual_in_fp32=self.residual_in_fp32,
                eps=self.norm.eps,
            )
        else:
            residual = hidden_states if residual is None else hidden_states + residual
            hidden_states = self.norm(residual.to(self.norm.weight.dtype))
            residual = residual.float() if self.residual_in_fp32 else residual
        return self.mixer(hidden_states, inference_params=inference_params), residual

    def allocate_inference_cache(self, batch_size, max_seqlen, dtype=None, **kwargs):
        """The mixer's."""
        return self.mixer.allocate_inference_cache(batch_size, max_seqlen, dtype=dtype, **kwargs)


def create_block(
    d_model,
    ssm_cfg=None,
    norm_epsilon=1e-5,
    rms_norm=False,
    residual_in_fp32=False,
    fused_add_norm=False,
    layer_idx=None,
    device=None,
    dtype=None,
):
    """A block with a Mamba mixer of the options `ssm_cfg`."""
    ssm_cfg = dict(ssm_cfg or {})
    layer = ssm_cfg.pop("layer", "Mamba1")
    if layer != "Mamba1":
        raise NotImplementedError(
            f"create_block: {layer} layers are not available; dis_ssm has those of Mamba 1"
        )
    factory = {"device": device, "dtype": dtype}
    norm_cls = partial(RMSNorm if rms_norm else nn.LayerNorm, eps=norm_epsilon, **factory)
    mixer_cls = partial(Mamba, layer_idx=layer_idx, **ssm_cfg, **factory)
    block = Block(d_model, mixer_cls, norm_cls, fused_add_norm, residual_in_fp32)
    block.layer_idx = layer_idx
    return block


class MixerModel(nn.Module):
    """Embedding, blocks and last norm: tokens (batch, length) to hidden states (batch, length, d_model)."""

    def __init__(
        self,
        d_model,
        n_layer,
        vocab_size,
        ssm_cfg=None,
        norm_epsilon=1e-5,
        rms_norm=False,
        initializer_cfg=None,
        fused_add_norm=False,
        residual_in_fp32=False,
        device=None,
        dtype=None,
    ):
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        self.residual_in_fp32 = residual_in_fp32
        self.fused_add_norm = fused_add_norm
        self.embedding = nn.Embedding(vocab_size, d_model, **factory)
        self.layers = nn.ModuleList(
            create_block(
                d_model, ssm_cfg, norm_epsilon, rms_norm, residual_in_fp32, fused_add_norm, layer, **factory
            )
            for layer in range(n_layer)
        )
        self.norm_f = (RMSNorm if rms_norm else nn.LayerNorm)(d_model, eps=norm_epsilon, **factory)
        self.apply(partial(_init_weights, n_layer=n_layer, **(initializer_cfg or {})))

    def allocate_inference_cache(self, batch_size, max_seqlen, dtype=None, **kwargs):
        """The states of all layers, by number."""
        return {
            number: layer.allocate_inference_cache(batch_size, max_seqlen, dtype=dtype, **kwargs)
            for number, layer in enumerate(self.layers)
        }

    def forward(self, input_ids, inference_params=None):
        """Tokens (batch, length); `inference_params` keeps the states between calls."""
        hidden_states, residual = self.embedding(input_ids), None
        for layer in self.layers:
            hidden_states, residual = layer(hidden_states, residual, inference_params=inference_params)
        function = rms_norm_fn if isinstance(self.norm_f, RMSNorm) else layer_norm_fn
        return function(
            hidden_states, self.norm_f.weight, self.norm_f.bias, residual=residual, eps=self.norm_f.eps
        )


@torch.no_grad()
def _init_weights(
    module, n_layer, initializer_range=0.02, rescale_prenorm_residual=True, n_residuals_per_layer=1
):
    """Zero biases but those of the steps, and output projections smaller by the root of their number."""
    if isinstance(module, nn.Linear):
        if module.bias is not None and not getattr(module.bias, "_no_reinit", False):
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=initializer_range)
    if rescale_prenorm_residual:
        for name, parameter in module.named_parameters():
            if name == "out_proj.weight":
                nn.init.kaiming_uniform_(parameter, a=math.sqrt(5))
                parameter /= math.sqrt(n_residuals_per_layer * n_layer)


class MambaLMHeadModel(nn.Module, GenerationMixin):
    """The language model: tokens (batch, length) to logits (batch, length, vocabulary)."""

    def __init__(self, config, initializer_cfg=None, device=None, dtype=None):
        super().__init__()
        self.config = config
        padding = -config.vocab_size % config.pad_vocab_size_multiple
        vocabulary = config.vocab_size + padding
        self.backbone = MixerModel(
            config.d_model,
            config.n_layer,
            vocabulary,
            ssm_cfg=config.ssm_cfg,
            rms_norm=config.rms_norm,
            initializer_cfg=initializer_cfg,
            fused_add_norm=config.fused_add_norm,
            residual_in_fp32=config.residual_in_fp32,
            device=device,
            dtype=dtype,
        )
        self.lm_head = nn.Linear(config.d_model, vocabulary, bias=False, device=device, dtype=dtype)
        self.apply(partial(_init_weights, n_layer=config.n_layer, **(initializer_cfg or {})))
        self.tie_weights()

    def tie_weights(self):
        """Makes the last projection the embedding, where the configuration says so."""
        if self.config.tie_embeddings:
            self.lm_head.weight = self.backbone.embedding.weight

    def allocate_inference_cache(self, batch_size, max_seqlen, dtype=None, **kwargs):
        """The states of all layers, by number."""
        return self.backbone.allocate_inference_cache(batch_size, max_seqlen, dtype=dtype, **kwargs)

    def forward(self, input_ids, position_ids=None, inference_params=None, num_last_tokens=0):
        """Tokens (batch, length); the result has `logits`, of the last `num_last_tokens` tokens if that is not 0."""
        hidden_states = self.backbone(input_ids, inference_params=inference_params)
        if num_last_tokens > 0:
            hidden_states = hidden_states[:, -num_last_tokens:]
        return namedtuple("CausalLMOutput", ["logits"])(logits=self.lm_head(hidden_states))

    @classmethod
    def from_pretrained(cls, pretrained_model_name, device=None, dtype=None, **kwargs):
        """A model from a folder or from the hub, which transformers reads."""
        known = MambaConfig.__dataclass_fields__
        given = load_config_hf(pretrained_model_name)
        config = MambaConfig(**{name: value for name, value in given.items() if name in known})
        model = cls(config, device=device, dtype=dtype, **kwargs)
        model.load_state_dict(load_state_dict_hf(pretrained_model_name, device=device, dtype=dtype))
        return model

    def save_pretrained(self, save_directory):
        """Weights and configuration in a folder that `from_pretrained` takes."""
        os.makedirs(save_directory, exist_ok=True)
        torch.save(self.state_dict(), os.path.join(save_directory, "pytorch_model.bin"))
        with open(os.path.join(save_directory, "config.json"), "w") as file:
            json.dump(asdict(self.config), file, indent=4)


def _cached(model_name, file_name):
    """A file of a folder, or of a model on the hub."""
    local = os.path.join(model_name, file_name)
    if os.path.isfile(local):
        return local
    from transformers.utils.hub import cached_file

    return cached_file(model_name, file_name)


def load_config_hf(model_name):
    """The configuration of a model in a folder or on the hub, as a dictionary."""
    with open(_cached(model_name, "config.json")) as file:
        return json.load(file)


def load_state_dict_hf(model_name, device=None, dtype=None):
    """The weights of a model in a folder or on the hub, by name."""
    weights = torch.load(_cached(model_name, "pytorch_model.bin"), map_location="cpu", weights_only=True)
    return {name: value.to(device=device, dtype=dtype) for name, value in weights.items()}
