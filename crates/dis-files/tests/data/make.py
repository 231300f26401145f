"""Makes the files of this folder; they were made with PyTorch 2.9.1 and NumPy 2."""

import argparse
import collections
import os

import numpy as np
import torch

TAG = None
# Tags storages as if they had been on a GPU.
torch.serialization.register_package(0, lambda _: TAG, lambda obj, tag: obj)

TYPES = (
    "float64 float32 float16 bfloat16 float8_e4m3fn float8_e5m2 int64 int32 int16 int8 "
    "uint64 uint32 uint16 uint8 bool"
).split()
VALUES = torch.tensor([0.0, 1.0, 2.0, 3.0, 1.5, -2.0, 96.0, 0.25])


def typed(name):
    signed = not name.startswith("uint") and name != "bool"
    return (VALUES if signed else VALUES.abs()).to(getattr(torch, name))


base = torch.arange(24, dtype=torch.float32).reshape(4, 6) - 5
views = collections.OrderedDict(
    dense=base,
    transposed=base.t(),
    offset=base[1:3, 2:5],
    strided=base[::2, ::3],
    scalar=torch.tensor(7.5),
    empty=torch.zeros(0, 3),
    flat=base.reshape(-1)[5:9],
    expanded=base[:1, :1].expand(2, 3),
)


def reset(model):
    with torch.no_grad():
        model.weight.copy_(torch.arange(6.0).reshape(2, 3))
        model.bias.copy_(torch.tensor([-1.0, -2.0]))


model = torch.nn.Linear(3, 2)
reset(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
model(torch.ones(1, 3)).sum().backward()
optimizer.step()
reset(model)
args = argparse.Namespace(
    name="x",
    num_classes=10,
    lr=1e-4,
    flag=True,
    nothing=None,
    big=1 << 80,
    device=torch.device("cuda", 0),
    loss=np.float64(0.5),
    steps=np.int64(7),
    size=torch.Size([2, 3]),
    negative=-5,
    sequence=[1, 2, (3,)],
)
everything = {
    "types": {name: typed(name) for name in TYPES},
    "views": views,
    "param": {"p": torch.nn.Parameter(torch.tensor([1.0, 2.0]))},
    "wrapped": {"module." + k: v for k, v in model.state_dict().items()},
    "deep": {"module": {"state_dict": model.state_dict()}},
    "opt": optimizer.state_dict(),
    "args": args,
    "best": np.float32(0.25),
    "dtype": torch.bfloat16,
    "epoch": 3,
}
TAG = "cuda:1"
torch.save(everything, "types.pt")
TAG = "meta"
torch.save({"model": model.state_dict()}, "meta.pt")
TAG = None
for protocol in (3, 4):
    content = {"model": dict(model.state_dict()), "args": args}
    torch.save(content, f"protocol{protocol}.pt", pickle_protocol=protocol)


class Runs:
    def __reduce__(self):
        return os.system, ("exit 1",)


torch.save({"model": model.state_dict(), "extra": Runs()}, "runs.pt")
torch.save(model.state_dict(), "legacy.pt", _use_new_zipfile_serialization=False)
torch.save(model.state_dict(), "bare.pt")
torch.jit.script(model).save("script.pt")
