"""A pytest plugin that runs the tests of mamba_ssm and causal_conv1d, as they are, on a CPU against dis_ssm.

`public_tests.sh` uses it. The functions under test are ours, through `dis_ssm.compat`. What they are compared with are
the published definitions (functions whose names end in `_ref`), taken out of the published files, whose other contents
need CUDA. Tensors that the tests ask for on "cuda" are made on the CPU.

Environment: PUBLISHED_FILES, the files with the definitions, separated by colons.
"""

import ast
import importlib
import math
import os

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch.overrides import TorchFunctionMode

import dis_ssm.compat

# Where the tests import functions from.
MODULES = (
    "mamba_ssm.ops.selective_scan_interface",
    "mamba_ssm.ops.triton.selective_state_update",
    "causal_conv1d.causal_conv1d_interface",
    "causal_conv1d.causal_conv1d_varlen",
)


class OnCpu(TorchFunctionMode):
    """Makes on the CPU what is asked for on a CUDA device."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if str(kwargs.get("device", "")).startswith("cuda"):
            kwargs["device"] = "cpu"
        return function(*args, **kwargs)


def definitions(path, known):
    """The published `*_ref` functions of a file."""
    with open(path) as file:
        tree = ast.parse(file.read(), path)
    tree.body = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.endswith("_ref")
    ]
    scope = {
        "torch": torch,
        "F": F,
        "math": math,
        "rearrange": rearrange,
        "repeat": repeat,
        "Tensor": torch.Tensor,
        **known,
    }
    exec(compile(tree, path, "exec"), scope)
    return {name: value for name, value in scope.items() if name.endswith("_ref")}


def conv_in_order(published):
    """The published convolution with the arguments in the order of the function that the definitions call."""

    def causal_conv1d_fn(x, weight, bias=None, activation=None):
        return published(x, weight, bias, activation=activation)

    return causal_conv1d_fn


def pytest_configure(config):
    dis_ssm.compat.install()
    known = {}
    for path in os.environ["PUBLISHED_FILES"].split(":"):
        known.update(definitions(path, known))
        # Definitions of mixers call the fast functions; they get definitions too.
        if "causal_conv1d_ref" in known:
            known["causal_conv1d_fn"] = conv_in_order(known["causal_conv1d_ref"])
        if "selective_scan_ref" in known:
            known["selective_scan_fn"] = known["selective_scan_ref"]
    for path in os.environ["PUBLISHED_FILES"].split(":"):
        known.update(definitions(path, known))
    replaced = []
    for name in MODULES:
        module = importlib.import_module(name)
        for ref in [ref for ref in vars(module) if ref.endswith("_ref") and ref in known]:
            setattr(module, ref, known[ref])
            replaced.append(ref)
    config.against_published = sorted(replaced)
    OnCpu().__enter__()


def pytest_report_header(config):
    return "published definitions: " + ", ".join(config.against_published)


def pytest_collection_modifyitems(items):
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        if parameters.get("wtype") == torch.complex64:
            item.add_marker(pytest.mark.skip(reason="complex state matrices are refused in words"))
