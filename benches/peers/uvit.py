"""A small U-ViT in PyTorch, trained for a while on Fashion-MNIST: what somebody would write in an afternoon.

A transformer with long skips (Bao et al., "All are Worth Words", 2022): time, class and patches are tokens. It predicts v
under the cosine schedule; AdamW, half a cosine of the learning rate over the wall clock, a moving average that warms up.
`fashion.py` beside this trains it and `dis train` for the same time and judges both.

    python uvit.py FOLDER SECONDS OUT.npz [--threads N] [--seed N]
"""

import argparse
import copy
import gzip
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

WIDTH, DEPTH, HEADS, PATCH, SIDE, CLASSES = 96, 6, 4, 4, 28, 10
GRID = SIDE // PATCH
BATCH, RATE, WARMUP, DROP = 64, 1.5e-3, 100, 0.1


class Block(nn.Module):
    """Attention and a perceptron behind norms; a deep block first joins a shallow one's output."""

    def __init__(self, deep):
        super().__init__()
        self.join = nn.Linear(2 * WIDTH, WIDTH) if deep else None
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x, shallow=None):
        if self.join is not None:
            x = self.join(torch.cat([x, shallow], dim=-1))
        batch, tokens, _ = x.shape
        heads = self.qkv(self.norms[0](x)).reshape(batch, tokens, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*heads).transpose(1, 2).reshape(batch, tokens, WIDTH)
        x = x + self.out(mixed)
        return x + self.mlp(self.norms[1](x))


class UViT(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, WIDTH, PATCH, PATCH)
        self.positions = nn.Parameter(0.02 * torch.randn(1, 2 + GRID * GRID, WIDTH))
        self.classes = nn.Embedding(CLASSES + 1, WIDTH)
        self.time = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.shallow = nn.ModuleList(Block(False) for _ in range(DEPTH // 2))
        self.deep = nn.ModuleList(Block(True) for _ in range(DEPTH // 2))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, PATCH * PATCH)
        nn.init.zeros_(self.head.weight)

    def forward(self, x, t, label):
        rates = torch.exp(torch.arange(WIDTH // 2) * (-math.log(1e4) / (WIDTH // 2)))
        angles = 1000 * t[:, None] * rates
        time_token = self.time(torch.cat([angles.cos(), angles.sin()], dim=-1))
        patches = self.patches(x).flatten(2).transpose(1, 2)
        h = torch.cat([time_token[:, None], self.classes(label)[:, None], patches], dim=1) + self.positions
        kept = []
        for block in self.shallow:
            h = block(h)
            kept.append(h)
        for block in self.deep:
            h = block(h, kept.pop())
        pixels = self.head(self.norm(h))[:, 2:]
        return F.pixel_shuffle(pixels.transpose(1, 2).reshape(-1, PATCH * PATCH, GRID, GRID), PATCH)


def alpha_bar(t):
    """Cosine schedule of Nichol and Dhariwal (2021), equation 17."""
    return (torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2).clamp(1e-4, 0.9999)


def read(folder, name, header):
    return np.frombuffer(gzip.open(Path(folder) / name).read(), np.uint8, offset=header)


def train(folder, seconds):
    images = torch.tensor(read(folder, "train-images-idx3-ubyte.gz", 16)).reshape(-1, 1, SIDE, SIDE)
    labels = torch.tensor(read(folder, "train-labels-idx1-ubyte.gz", 8)).long()
    model = UViT()
    average = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    begin, step = time.time(), 0
    while (done := (time.time() - begin) / seconds) < 1:
        rate = RATE * min(1, (step + 1) / WARMUP) * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)
        for group in optimizer.param_groups:
            group["lr"] = rate
        rows = torch.randint(len(images), (BATCH,))
        x = images[rows].float() / 127.5 - 1
        label = torch.where(torch.rand(BATCH) < DROP, CLASSES, labels[rows])
        t = torch.rand(BATCH)
        a = alpha_bar(t).reshape(-1, 1, 1, 1)
        noise = torch.randn_like(x)
        v = a.sqrt() * noise - (1 - a).sqrt() * x
        loss = F.mse_loss(model(a.sqrt() * x + (1 - a).sqrt() * noise, t, label), v)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), model.parameters()):
                slow.lerp_(fast, 1 - min(0.999, (1 + step) / (10 + step)))
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters} parameters, {step} steps of {BATCH} in {time.time() - begin:.0f} s", flush=True)
    return average.eval()


@torch.no_grad()
def draw(model, count, guidance=1.5, steps=50):
    """DDIM with estimates clipped to [-1, 1]; classes in turn."""
    labels, pictures = torch.arange(count) % CLASSES, []
    times = torch.linspace(0.999, 0, steps + 1)
    for label in labels.split(100):
        x = torch.randn(len(label), 1, SIDE, SIDE)
        for now, then in zip(times, times[1:]):
            a, b, t = alpha_bar(now), alpha_bar(then), now.expand(len(label))
            free = model(x, t, torch.full_like(label, CLASSES))
            v = free + guidance * (model(x, t, label) - free)
            start = (a.sqrt() * x - (1 - a).sqrt() * v).clamp(-1, 1)
            x = b.sqrt() * start + (1 - b).sqrt() * (x - a.sqrt() * start) / (1 - a).sqrt()
        pictures.append(((start + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy())
    return np.concatenate(pictures), labels.numpy()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("seconds", type=float)
    parser.add_argument("out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    pictures, labels = draw(train(options.folder, options.seconds), options.num)
    np.savez(options.out, arr_0=pictures, arr_1=labels)
