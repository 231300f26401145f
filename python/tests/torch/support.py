"""What the tests share: random arguments, and comparison of values and gradients with float64."""

import torch

# Of the largest magnitude: float32 sums over some tens of tokens, and what is lost by rounding inputs and results.
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}


def scan_arguments(
    batch=2,
    channels=18,
    length=21,
    states=5,
    b="variable",
    c="variable",
    groups=2,
    dtype=torch.float32,
    options=("D", "z", "delta_bias", "initial_state"),
    seed=0,
):
    """Arguments of a scan in mamba's shapes, by name."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=draw)

    def matrix(kind):
        shapes = {
            "constant": (channels, states),
            "variable": (batch, states, length),
            "grouped": (batch, groups, states, length),
        }
        return normal(*shapes[kind])

    arguments = {
        "u": normal(batch, channels, length).to(dtype),
        "delta": (0.5 * normal(batch, channels, length)).to(dtype),
        "A": -torch.exp(0.5 * normal(channels, states)),
        "B": matrix(b).to(dtype),
        "C": matrix(c).to(dtype),
        "D": normal(channels),
        "z": normal(batch, channels, length).to(dtype),
        "delta_bias": 0.5 * normal(channels),
        "initial_state": normal(batch, channels, states),
    }
    required = ("u", "delta", "A", "B", "C")
    return {name: value for name, value in arguments.items() if name in required or name in options}


def strided(value):
    """The same values, lying with the last two axes swapped and a gap between rows."""
    shape = (*value.shape[:-2], value.shape[-1], value.shape[-2] + 3)
    room = value.new_zeros(shape)
    view = room[..., : value.shape[-2]].transpose(-1, -2)
    view.copy_(value)
    return view


def leaves(arguments, dtype=None):
    """Copies that want gradients; of another type if given."""
    return {
        name: value.detach()
        .to(value.dtype if dtype is None else dtype)
        .clone(memory_format=torch.preserve_format)
        .requires_grad_()
        for name, value in arguments.items()
    }


def close(actual, expected, name, tolerance):
    """Within `tolerance` of the largest magnitude."""
    assert actual.shape == expected.shape, f"{name}: {tuple(actual.shape)} for {tuple(expected.shape)}"
    if expected.numel() == 0:
        return
    scale = max(expected.abs().max().item(), 1e-3)
    error = (actual.double() - expected.double()).abs().max().item()
    assert error <= tolerance * scale, f"{name}: off by {error:.2e}, largest magnitude {scale:.2e}"


def same_as_reference(function, reference, arguments, tolerance=TOLERANCE[torch.float32], **options):
    """Compares every result and every gradient with the reference in float64."""
    ours, wide = leaves(arguments), leaves(arguments, torch.float64)
    results, expected = function(**ours, **options), reference(**wide, **options)
    if not isinstance(results, tuple):
        results, expected = (results,), (expected,)
    for number, (result, other) in enumerate(zip(results, expected)):
        close(result, other, f"result {number}", tolerance)
    draw = torch.Generator().manual_seed(1)
    weights = [torch.randn(result.shape, generator=draw) for result in results]
    sum((result.float() * weight).sum() for result, weight in zip(results, weights)).backward()
    sum((other * weight.double()).sum() for other, weight in zip(expected, weights)).backward()
    for name in arguments:
        gradient = ours[name].grad
        assert gradient is not None, f"no gradient of {name}"
        assert gradient.dtype == ours[name].dtype
        expected = wide[name].grad
        expected = torch.zeros_like(wide[name]) if expected is None else expected
        close(gradient, expected, f"gradient of {name}", 3 * tolerance)
