"""Equivalents of DiS and DiT in PyTorch on a CPU, timed on request.

Reads lines `NAME BATCH THREADS` and answers each with the seconds of one call as JSON. Weights are
random: only time is compared.
"""

import json
import os
import sys
import time

import torch
import torch._inductor.config
import torch.nn.functional as F
from torch import nn

WIDTH, DEPTH, STATES, CONV = 368, 24, 16, 4
TOKENS, PATCH, CHANNELS = 257, 2, 3


def scan_steps(u, delta, a, b, c, d):
    """One step after another, on whole tensors."""
    delta_a = torch.exp(delta.unsqueeze(-1) * a)
    delta_bu = (delta * u).unsqueeze(-1) * b.unsqueeze(2)
    h = torch.zeros_like(delta_a[:, 0])
    out = []
    for t in range(u.shape[1]):
        h = delta_a[:, t] * h + delta_bu[:, t]
        out.append((h * c[:, t].unsqueeze(1)).sum(-1))
    return torch.stack(out, 1) + u * d


CHUNK = 8


def chunk_steps(u, delta, a, b, c, d, states):
    """A few steps with every state in a tensor of its own, so that all of it is elementwise."""
    out = []
    for t in range(u.shape[1]):
        x, y = delta[:, t], u[:, t] * d
        xu = x * u[:, t]
        for n in range(STATES):
            states[n] = torch.exp(x * a[:, n]) * states[n] + xu * b[:, t, n : n + 1]
            y = y + states[n] * c[:, t, n : n + 1]
        out.append(y)
    return torch.stack(out, 1), states


if os.environ.get("ATEN_CPU_CAPABILITY") == "avx2":
    # What the compiler makes is held to it as well.
    torch._inductor.config.cpp.simdlen = 256
compiled_chunk = torch.compile(chunk_steps, dynamic=False)


def scan_compiled(u, delta, a, b, c, d):
    states = [torch.zeros_like(u[:, 0]) for _ in range(STATES)]
    out, length = [], u.shape[1]
    for t in range(0, length - length % CHUNK, CHUNK):
        part = slice(t, t + CHUNK)
        y, states = compiled_chunk(u[:, part], delta[:, part], a, b[:, part], c[:, part], d, states)
        out.append(y)
    if length % CHUNK:
        part = slice(length - length % CHUNK, length)
        y, states = chunk_steps(u[:, part], delta[:, part], a, b[:, part], c[:, part], d, states)
        out.append(y)
    return torch.cat(out, 1)


class Direction(nn.Module):
    def __init__(self, inner, rank):
        super().__init__()
        self.conv = nn.Conv1d(inner, inner, CONV, groups=inner, padding=CONV - 1)
        self.x_proj = nn.Linear(inner, rank + 2 * STATES, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.a_log = nn.Parameter(torch.log(torch.arange(1.0, STATES + 1)).repeat(inner, 1))
        self.d = nn.Parameter(torch.ones(inner))
        self.rank = rank

    def forward(self, x, scan):
        length = x.shape[1]
        u = F.silu(self.conv(x.transpose(1, 2))[..., :length]).transpose(1, 2)
        dt, b, c = self.x_proj(u).split([self.rank, STATES, STATES], -1)
        delta = F.softplus(self.dt_proj(dt))
        return scan(u, delta, -torch.exp(self.a_log), b, c, self.d)


class DisBlock(nn.Module):
    def __init__(self, width, skip):
        super().__init__()
        inner, rank = 2 * width, -(-width // 16)
        self.norm = nn.RMSNorm(width)
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.out_proj = nn.Linear(inner, width, bias=False)
        self.ways = nn.ModuleList([Direction(inner, rank) for _ in range(2)])
        self.skip = nn.Linear(2 * width, width) if skip else None

    def forward(self, hidden, residual, other, scan):
        if self.skip is not None:
            hidden = self.skip(torch.cat([hidden, other], -1))
        residual = hidden + residual
        x, z = self.in_proj(self.norm(residual)).chunk(2, -1)
        y = self.ways[0](x, scan) + self.ways[1](x.flip(1), scan).flip(1)
        return self.out_proj(y * F.silu(z)), residual


class Dis(nn.Module):
    def __init__(self, scan):
        super().__init__()
        self.scan = scan
        self.embed = nn.Conv2d(CHANNELS, WIDTH, PATCH, PATCH)
        self.position = nn.Parameter(torch.zeros(1, TOKENS, WIDTH))
        self.blocks = nn.ModuleList([DisBlock(WIDTH, i > DEPTH // 2) for i in range(DEPTH + 1)])
        self.norm = nn.RMSNorm(WIDTH)
        self.decoder = nn.Linear(WIDTH, 2 * PATCH * PATCH * CHANNELS)

    def forward(self, image):
        patches = self.embed(image).flatten(2).transpose(1, 2)
        time_token = torch.zeros(image.shape[0], 1, WIDTH)
        hidden = torch.cat([time_token, patches], 1) + self.position
        residual, skips = torch.zeros_like(hidden), []
        for i, block in enumerate(self.blocks):
            other = skips.pop() if i > DEPTH // 2 else None
            hidden, residual = block(hidden, residual, other, self.scan)
            if i < DEPTH // 2:
                skips.append(hidden)
        return self.decoder(self.norm(hidden + residual)[:, 1:])


class DitBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width, elementwise_affine=False) for _ in range(2)])
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x, condition):
        parts = self.modulation(F.silu(condition)).unsqueeze(1).chunk(6, -1)
        h = self.norms[0](x) * (1 + parts[0]) + parts[1]
        batch, length, width = h.shape
        q, k, v = self.qkv(h).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, width)
        x = x + parts[2] * self.out(h)
        h = self.norms[1](x) * (1 + parts[3]) + parts[4]
        return x + parts[5] * self.down(F.gelu(self.up(h), approximate="tanh"))


class Dit(nn.Module):
    """DiT-S/2: width 384, 12 blocks, 6 heads."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(CHANNELS, 384, PATCH, PATCH)
        self.blocks = nn.ModuleList([DitBlock(384, 6) for _ in range(12)])
        self.decoder = nn.Linear(384, 2 * PATCH * PATCH * CHANNELS)

    def forward(self, image):
        x = self.embed(image).flatten(2).transpose(1, 2)
        condition = torch.zeros(image.shape[0], 384)
        for block in self.blocks:
            x = block(x, condition)
        return self.decoder(x)


MODELS = {
    "eager": lambda: Dis(scan_steps),
    "compiled": lambda: Dis(scan_compiled),
    "dit": Dit,
}


def block(width, length):
    """A block of DiT alone, with its arguments."""
    return DitBlock(width, width // 64), (torch.randn(1, length, width), torch.zeros(1, width))


def main():
    torch.manual_seed(0)
    models = {}
    capability = torch.backends.cpu.get_cpu_capability()
    print(json.dumps({"torch": torch.__version__, "capability": capability}), flush=True)
    for line in sys.stdin:
        name, batch, threads = line.split()
        torch.set_num_threads(int(threads))
        if name.startswith("dit-block-"):
            module, inputs = block(768, int(name.removeprefix("dit-block-")))
            with torch.inference_mode():
                start = time.perf_counter()
                module(*inputs)
                seconds = time.perf_counter() - start
            print(json.dumps({"seconds": seconds}), flush=True)
            continue
        training = name.endswith("-training")
        key = name.removesuffix("-training")
        if key not in models:
            models[key] = MODELS[key]()
        model = models[key]
        image = torch.randn(int(batch), CHANNELS, 32, 32)
        if training:
            optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
            start = time.perf_counter()
            loss = model(image).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            seconds = time.perf_counter() - start
        else:
            with torch.inference_mode():
                start = time.perf_counter()
                model(image)
                seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds}), flush=True)


main()
