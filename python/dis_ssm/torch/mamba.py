"""Mamba mixers as modules, with the parameter names of the published ones.

`Mamba` reads state dictionaries of `mamba_ssm.modules.mamba_simple.Mamba`, and those of the two-way mixers that DiS,
Vim and their kin add to it (`bimamba_type`).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from ._conv import causal_conv1d_update, conv_silu
from ._inner import bimamba_inner_fn
from ._scan import selective_scan_fn, selective_state_update

_DIRECTIONS = ("none", "v1", "v2")


class Mamba(nn.Module):
    """A Mamba mixer, (batch, length, d_model) to the same.

    Parameters
    ----------
    d_model : width of the model. d_state : states of a channel. d_conv : taps of the convolution, 2 to 4.
    expand : channels of the scan as a multiple of d_model.
    dt_rank : rank of the steps, or "auto" for d_model / 16.
    dt_min, dt_max, dt_init, dt_scale, dt_init_floor : initialisation of the steps; dt_init is "random" or "constant".
    conv_bias, bias : whether the convolution, and the two outer projections, have a bias.
    use_fast_path : accepted and not used: there is one path.
    layer_idx : key of this layer's states in an inference cache.
    bimamba_type : "none"; "v1": both directions share all but `A_b_log`; "v2": the way back has its own weights `*_b`.
    if_divide_out : with "v2", the mean of the directions instead of their sum.
    init_layer_scale : if given, the output is multiplied by a parameter `gamma` (d_model,) of this value.

    Raises
    ------
    ValueError
        If `dt_init` or `bimamba_type` is unknown, or d_conv is not 2, 3 or 4.
    """

    def __init__(
        self,
        d_model,
        d_state=16,
        d_conv=4,
        expand=2,
        dt_rank="auto",
        dt_min=0.001,
        dt_max=0.1,
        dt_init="random",
        dt_scale=1.0,
        dt_init_floor=1e-4,
        conv_bias=True,
        bias=False,
        use_fast_path=True,
        layer_idx=None,
        device=None,
        dtype=None,
        bimamba_type="none",
        if_divide_out=False,
        init_layer_scale=None,
    ):
        super().__init__()
        if dt_init not in ("random", "constant"):
            raise ValueError(f'Mamba: dt_init must be "random" or "constant", not {dt_init!r}')
        if bimamba_type not in _DIRECTIONS:
            raise ValueError(f"Mamba: bimamba_type must be one of {_DIRECTIONS}, not {bimamba_type!r}")
        if d_conv not in (2, 3, 4):
            raise ValueError(f"Mamba: d_conv must be 2, 3 or 4, not {d_conv!r}")
        self.d_model = d_model
        self.d_state = d_state
        self.d_conv = d_conv
        self.expand = expand
        self.d_inner = int(expand * d_model)
        self.dt_rank = math.ceil(d_model / 16) if dt_rank == "auto" else dt_rank
        self.use_fast_path = use_fast_path
        self.layer_idx = layer_idx
        self.bimamba_type = bimamba_type
        self.if_divide_out = if_divide_out
        self.init_layer_scale = init_layer_scale
        self.activation = "silu"
        self.act = nn.SiLU()
        self._factory = {"device": device, "dtype": dtype}
        self._steps = (dt_min, dt_max, dt_init, dt_scale, dt_init_floor)
        if init_layer_scale is not None:
            self.gamma = nn.Parameter(init_layer_scale * torch.ones(d_model))
        self.in_proj = nn.Linear(d_model, self.d_inner * 2, bias=bias, **self._factory)
        self._direction("", conv_bias)
        if bimamba_type == "v1":
            self.A_b_log = self._state_matrix()
        elif bimamba_type == "v2":
            self._direction("_b", conv_bias)
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias, **self._factory)

    def _direction(self, suffix, conv_bias):
        """The convolution, projections, state matrix and skip of one direction."""
        channels = self.d_inner
        setattr(
            self,
            "conv1d" + suffix,
            nn.Conv1d(
                channels,
                channels,
                self.d_conv,
                groups=channels,
                padding=self.d_conv - 1,
                bias=conv_bias,
                **self._factory,
            ),
        )
        outputs = self.dt_rank + 2 * self.d_state
        setattr(self, "x_proj" + suffix, nn.Linear(channels, outputs, bias=False, **self._factory))
        dt_proj = nn.Linear(self.dt_rank, channels, bias=True, **self._factory)
        if suffix == "":
            self._init_steps(dt_proj)
        setattr(self, "dt_proj" + suffix, dt_proj)
        # Published checkpoints have A_log and A_b_log.
        setattr(self, f"A{suffix}_log", self._state_matrix())
        skip = nn.Parameter(torch.ones(channels, device=self._factory["device"]))
        skip._no_weight_decay = True
        setattr(self, "D" + suffix, skip)

    def _state_matrix(self):
        """The logarithm of -A, where A is -1 to -d_state in every channel; float32."""
        states = torch.arange(1, self.d_state + 1, dtype=torch.float32, device=self._factory["device"])
        log = nn.Parameter(torch.log(states).repeat(self.d_inner, 1))
        log._no_weight_decay = True
        return log

    @torch.no_grad()
    def _init_steps(self, dt_proj):
        """Steps between dt_min and dt_max, uniform in their logarithm, after softplus."""
        low, high, kind, scale, floor = self._steps
        bound = self.dt_rank**-0.5 * scale
        if kind == "constant":
            nn.init.constant_(dt_proj.weight, bound)
        else:
            nn.init.uniform_(dt_proj.weight, -bound, bound)
        drawn = torch.rand(self.d_inner, **self._factory)
        dt = torch.exp(drawn * (math.log(high) - math.log(low)) + math.log(low)).clamp(min=floor)
        # The inverse of softplus.
        dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))
        dt_proj.bias._no_reinit = True

    def forward(self, hidden_states, inference_params=None):
        """(batch, length, d_model) to the same.

        With `inference_params` (its `key_value_memory_dict` keeps the states by `layer_idx`) the first call leaves the
        states after the last token, and later ones take one token each.
        """
        states = None
        if inference_params is not None:
            states = self._get_states_from_cache(inference_params, hidden_states.shape[0])
            if inference_params.seqlen_offset > 0:
                return self.step(hidden_states, *states)[0]
        xz = self.in_proj(hidden_states).transpose(1, 2)
        if self.bimamba_type == "v1":
            return self._scaled(self._share(xz))
        x, z = xz.chunk(2, dim=1)
        y = self._scan(x, z, "", self.A_log, states)
        if self.bimamba_type == "v2":
            y = y + self._scan(x, z, "_b", self.A_b_log, reverse=True)
            y = y / 2 if self.if_divide_out else y
        return self._scaled(self.out_proj(y.transpose(1, 2)))

    def _scaled(self, out):
        return out if self.init_layer_scale is None else out * self.gamma

    def _share(self, xz):
        """Two directions that share all but the state matrix, of xz (batch, 2 channels, length)."""
        return bimamba_inner_fn(
            xz,
            self.conv1d.weight,
            self.conv1d.bias,
            self.x_proj.weight,
            self.dt_proj.weight,
            self.out_proj.weight,
            self.out_proj.bias,
            -torch.exp(self.A_log.float()),
            -torch.exp(self.A_b_log.float()),
            D=self.D.float(),
            delta_bias=self.dt_proj.bias.float(),
            delta_softplus=True,
        )

    def _scan(self, x, z, suffix, A_log, states=None, reverse=False):
        """One direction of x and z (batch, channels, length)."""
        conv = getattr(self, "conv1d" + suffix)
        dt_proj = getattr(self, "dt_proj" + suffix)
        if states is not None:
            conv_state, ssm_state = states
            conv_state.copy_(F.pad(x, (self.d_conv - x.shape[-1], 0)))
        u = conv_silu("Mamba", x, conv.weight.squeeze(1), conv.bias, reverse)
        projected = getattr(self, "x_proj" + suffix)(u.transpose(1, 2))
        delta, B, C = projected.split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        y, last = selective_scan_fn(
            u,
            F.linear(delta, dt_proj.weight).transpose(1, 2),
            -torch.exp(A_log.float()),
            B.transpose(1, 2),
            C.transpose(1, 2),
            getattr(self, "D" + suffix).float(),
            z,
            dt_proj.bias.float(),
            delta_softplus=True,
            return_last_state=True,
            reverse=reverse,
        )
        if states is not None:
            ssm_state.copy_(last)
        return y

    def step(self, hidden_states, conv_state, ssm_state):
        """One token, (batch, 1, d_model); both states are changed in place.

        Returns the output (batch, 1, d_model) and the two states: the convolution's (batch, channels, d_conv) and the
        scan's (batch, channels, d_state).

        Raises
        ------
        ValueError
            If there is more than one token, or the mixer is two-way, which has no form that goes token by token.
        """
        if hidden_states.dim() != 3 or hidden_states.shape[1] != 1:
            shape = tuple(hidden_states.shape)
            raise ValueError(f"Mamba.step: hidden_states has shape {shape}; expected (batch, 1, d_model)")
        if self.bimamba_type != "none":
            raise ValueError("Mamba.step: a two-way mixer sees later tokens, and cannot go token by token")
        x, z = self.in_proj(hidden_states.squeeze(1)).chunk(2, dim=-1)
        u = causal_conv1d_update(
            x, conv_state, self.conv1d.weight.squeeze(1), self.conv1d.bias, self.activation
        )
        delta, B, C = self.x_proj(u).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        y = selective_state_update(
            ssm_state,
            u,
            F.linear(delta, self.dt_proj.weight),
            -torch.exp(self.A_log.float()),
            B,
            C,
            self.D,
            z=z,
            dt_bias=self.dt_proj.bias,
            dt_softplus=True,
        )
        return self._scaled(self.out_proj(y)).unsqueeze(1), conv_state, ssm_state

    def allocate_inference_cache(self, batch_size, max_seqlen, dtype=None, **kwargs):
        """The two states of `step`, zero: (batch, channels, d_conv) and (batch, channels, d_state)."""
        device = self.out_proj.weight.device
        conv_state = torch.zeros(
            batch_size, self.d_inner, self.d_conv, device=device, dtype=dtype or self.conv1d.weight.dtype
        )
        ssm_state = torch.zeros(
            batch_size, self.d_inner, self.d_state, device=device, dtype=dtype or self.dt_proj.weight.dtype
        )
        return conv_state, ssm_state

    def _get_states_from_cache(self, inference_params, batch_size, initialize_states=False):
        if self.layer_idx is None:
            raise ValueError("Mamba: an inference cache needs layer_idx")
        cache = inference_params.key_value_memory_dict
        if self.layer_idx not in cache:
            cache[self.layer_idx] = self.allocate_inference_cache(batch_size, 0)
        states = cache[self.layer_idx]
        if initialize_states:
            for state in states:
                state.zero_()
        return states


class BiMamba(Mamba):
    """The two-way mixer of DiS and Vim: a `Mamba` with `bimamba_type` "v2" unless another is given."""

    def __init__(self, d_model, *args, bimamba_type="v2", **kwargs):
        super().__init__(d_model, *args, bimamba_type=bimamba_type, **kwargs)
