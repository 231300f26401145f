"""The published Vim and ZigMa models, unmodified, through `dis_ssm.compat`.

    python python/tests/against/published_models.py vim CHECKOUT
    python python/tests/against/published_models.py zigma CHECKOUT

CHECKOUT is a clone of the authors' repository (hustvl/Vim, CompVis/zigma), outside this one. Needs torch, einops, timm,
transformers, and for ZigMa torchvision and matplotlib. A small model of each kind is run in float32; then the same
model in float64, with the definitions in plain torch in place of the fast functions. Outputs and all gradients must
agree.
"""

import copy
import importlib
import pathlib
import sys

import torch

import dis_ssm.compat
from dis_ssm.torch import reference

OUTPUT, GRADIENT = 2e-5, 2e-4


def vim(checkout):
    """The class, the options of each model, and its inputs."""
    sys.path.insert(0, str(checkout / "vim"))
    sys.path.insert(0, str(checkout / "mamba-1p1p1"))
    dis_ssm.compat.install()
    module = importlib.import_module("models_mamba")
    shared = dict(
        img_size=32, patch_size=8, stride=8, depth=4, embed_dim=48, rms_norm=True, residual_in_fp32=True,
        fused_add_norm=True, final_pool_type="mean", if_abs_pos_embed=True, if_cls_token=True,
        use_middle_cls_token=True, num_classes=10, drop_path_rate=0.0,
    )  # fmt: skip
    kinds = {
        "v2": dict(shared, bimamba_type="v2", if_divide_out=True),
        "v1": dict(shared, bimamba_type="v1"),
        "one way": dict(shared, bimamba_type="none"),
    }
    return module.VisionMamba, kinds, (torch.randn(2, 3, 32, 32),)


def zigma(checkout):
    """The class, the options of each model, and its inputs."""
    sys.path.insert(0, str(checkout))
    dis_ssm.compat.install()
    module = importlib.import_module("model_zigma")
    shared = dict(
        in_channels=4, embed_dim=48, depth=4, img_dim=8, patch_size=1, device="cpu", use_jit=False,
        drop_path_rate=0.0,
    )  # fmt: skip
    kinds = {kind: dict(shared, scan_type=kind) for kind in ("v2", "zigzagN8", "hilbertN8", "randomN8")}
    return module.ZigMa, kinds, (torch.randn(2, 4, 8, 8), torch.rand(2))


REPOSITORIES = {"vim": vim, "zigma": zigma}


def fast_functions():
    """Every place that names a fast function, with the definition of it."""
    definitions = {
        "selective_scan_fn": reference.selective_scan_ref,
        "mamba_inner_fn": reference.mamba_inner_ref,
        "bimamba_inner_fn": reference.bimamba_inner_ref,
        "mamba_inner_fn_no_out_proj": no_out_proj,
        "rms_norm_fn": norm,
        "layer_norm_fn": norm,
    }
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith(
            ("mamba_ssm", "dis_mamba", "models_mamba", "model_zigma")
        ):
            for name, definition in definitions.items():
                if callable(getattr(module, name, None)):
                    yield module, name, definition


def no_out_proj(*arguments, **options):
    channels = arguments[4].shape[0]
    identity = torch.eye(channels, dtype=torch.float64)
    return reference.mamba_inner_ref(*arguments[:5], identity, None, *arguments[5:], **options).transpose(
        1, 2
    )


def norm(x, weight, bias, residual=None, prenorm=False, residual_in_fp32=False, eps=1e-6, **options):
    total = x if residual is None else x + residual
    if bias is None:
        out = total * torch.rsqrt(total.square().mean(-1, keepdim=True) + eps) * weight
    else:
        out = torch.nn.functional.layer_norm(total, total.shape[-1:], weight, bias, eps)
    return (out, total) if prenorm else out


class Wide:
    """While it is entered, the models compute in float64 by the definitions."""

    def __enter__(self):
        self.before = [(module, name, getattr(module, name)) for module, name, _ in fast_functions()]
        for module, name, definition in list(fast_functions()):
            setattr(module, name, definition)
        self.float = torch.Tensor.float
        # Their code asks for float32 here and there.
        torch.Tensor.float = torch.Tensor.double
        torch.set_default_dtype(torch.float64)

    def __exit__(self, *error):
        torch.set_default_dtype(torch.float32)
        torch.Tensor.float = self.float
        for module, name, function in self.before:
            setattr(module, name, function)


def difference(ours, wide):
    """The largest difference, relative to the largest magnitude."""
    return ((ours.double() - wide).abs().max() / wide.abs().max().clamp(min=1e-12)).item()


def randomised(model):
    """Small changes of every parameter, so that none is at a special value."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return model


def main(name, checkout):
    torch.manual_seed(0)
    model_class, kinds, inputs = REPOSITORIES[name](pathlib.Path(checkout))
    failed = 0
    for kind, options in kinds.items():
        model = randomised(model_class(**options)).eval()
        wide = copy.deepcopy(model).double()
        for module in wide.modules():
            if getattr(module, "dtype", None) == torch.float32:
                module.dtype = torch.float64
        y = model(*inputs)
        y.square().sum().backward()
        with Wide():
            expected = wide(*(value.double() for value in inputs))
            expected.square().sum().backward()
        assert expected.dtype == torch.float64
        output = difference(y, expected)
        largest = max(
            parameter.grad.abs().max() for parameter in wide.parameters() if parameter.grad is not None
        )
        gradient = max(
            ((ours.grad - other.grad).abs().max() / largest).item()
            for ours, other in zip(model.parameters(), wide.parameters())
            if other.grad is not None
        )
        failed += output > OUTPUT or gradient > GRADIENT
        print(f"{name} {kind}: output {output:.1e}, gradients {gradient:.1e} of the largest magnitude")
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in REPOSITORIES:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
