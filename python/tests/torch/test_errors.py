"""Wrong arguments: exceptions that name the argument and its shape, type or device, and nothing worse."""

import pytest
import torch
from support import scan_arguments

from dis_ssm.torch import causal_conv1d_fn, causal_conv1d_update, selective_scan_fn, selective_state_update

SHAPES = [
    ("u", (2, 18), r"u has shape \(2, 18\)"),
    ("u", (2, 17, 21), "delta has shape"),
    ("delta", (2, 18, 20), r"delta has shape \(2, 18, 20\).*\(2, 18, 21\)"),
    ("A", (18,), r"A has shape \(18,\)"),
    ("A", (17, 5), r"A has shape \(17, 5\)"),
    ("A", (18, 0), "at least one state"),
    ("B", (5,), r"B has shape \(5,\)"),
    ("B", (18, 6), r"B has shape \(18, 6\)"),
    ("B", (2, 5, 20), r"B has shape \(2, 5, 20\)"),
    ("C", (2, 4, 5, 21), "C has 4 groups"),
    ("C", (2, 0, 5, 21), "C has 0 groups"),
    ("D", (17,), r"D has shape \(17,\)"),
    ("D", (18, 1), r"D has shape \(18, 1\)"),
    ("z", (2, 18, 22), r"z has shape \(2, 18, 22\)"),
    ("delta_bias", (1,), r"delta_bias has shape \(1,\)"),
    ("initial_state", (2, 18, 6), r"initial_state has shape \(2, 18, 6\)"),
]


@pytest.mark.parametrize("name, shape, message", SHAPES)
def test_scan_shapes(name, shape, message):
    arguments = dict(scan_arguments(), **{name: torch.zeros(shape)})
    with pytest.raises(ValueError, match=message):
        selective_scan_fn(**arguments)


@pytest.mark.parametrize("name", ["u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.bool, torch.complex64])
def test_scan_types(name, dtype):
    arguments = scan_arguments()
    arguments[name] = arguments[name].to(dtype)
    with pytest.raises(TypeError, match=rf"selective_scan_fn: {name} is"):
        selective_scan_fn(**arguments)


@pytest.mark.parametrize("name", ["u", "A", "z"])
@pytest.mark.parametrize("value", [1.0, [[1.0]], "u"])
def test_what_is_no_tensor(name, value):
    with pytest.raises(TypeError, match=rf"{name} must be a torch.Tensor"):
        selective_scan_fn(**dict(scan_arguments(), **{name: value}))


def test_a_complex_state_matrix_is_refused_in_words():
    arguments = scan_arguments()
    with pytest.raises(TypeError, match="only real state matrices"):
        selective_scan_fn(**dict(arguments, A=arguments["A"].to(torch.complex64)))


def test_sparse_tensors():
    arguments = scan_arguments()
    with pytest.raises(TypeError, match="A has layout torch.sparse_coo"):
        selective_scan_fn(**dict(arguments, A=arguments["A"].to_sparse()))


class Elsewhere:
    """Stands for the device of a tensor that this machine has none of."""

    type = "cuda"

    def __str__(self):
        return "cuda:0"


def test_other_devices(monkeypatch):
    arguments = scan_arguments()

    class OnGpu(torch.Tensor):
        device = Elsewhere()
        is_cpu = False

    arguments["z"] = arguments["z"].as_subclass(OnGpu)
    with pytest.raises(ValueError, match=r"z is on cuda:0; dis_ssm computes on the CPU"):
        selective_scan_fn(**arguments)


def test_discretization():
    with pytest.raises(ValueError, match="discretization must be"):
        selective_scan_fn(**scan_arguments(), discretization="bilinear")


@pytest.mark.parametrize(
    "x, weight, bias, message",
    [
        ((2, 18), (18, 4), None, r"x has shape \(2, 18\)"),
        ((2, 18, 5), (17, 4), None, r"weight has shape \(17, 4\)"),
        ((2, 18, 5), (18, 1), None, "width must be 2, 3 or 4"),
        ((2, 18, 5), (18, 5), None, "width must be 2, 3 or 4"),
        ((2, 18, 5), (18, 1, 4), None, r"weight has shape \(18, 1, 4\)"),
        ((2, 18, 5), (18, 4), (17,), r"bias has shape \(17,\)"),
    ],
)
def test_conv_shapes(x, weight, bias, message):
    with pytest.raises(ValueError, match=message):
        causal_conv1d_fn(torch.zeros(x), torch.zeros(weight), None if bias is None else torch.zeros(bias))


def test_conv_options():
    x, weight = torch.zeros(2, 18, 5), torch.zeros(18, 4)
    with pytest.raises(NotImplementedError, match="activation must be"):
        causal_conv1d_fn(x, weight, activation="gelu")
    with pytest.raises(ValueError, match=r"seq_idx has shape \(2, 4\)"):
        causal_conv1d_fn(x, weight, seq_idx=torch.zeros(2, 4, dtype=torch.int32))
    with pytest.raises(TypeError, match="seq_idx is torch.float32"):
        causal_conv1d_fn(x, weight, seq_idx=torch.zeros(2, 5))
    with pytest.raises(ValueError, match=r"initial_states has shape \(2, 18, 4\)"):
        causal_conv1d_fn(x, weight, initial_states=torch.zeros(2, 18, 4))


@pytest.mark.parametrize(
    "x, state, message",
    [
        ((2, 18, 5, 1), (2, 18, 4), r"x has shape \(2, 18, 5, 1\)"),
        ((2, 18), (2, 17, 4), r"conv_state has shape \(2, 17, 4\)"),
        ((2, 18), (3, 18, 4), r"conv_state has shape \(3, 18, 4\)"),
        ((2, 18), (2, 18, 2), "at least 3 inputs"),
        ((2, 18), (2, 18), r"conv_state has shape \(2, 18\)"),
    ],
)
def test_conv_update_shapes(x, state, message):
    with pytest.raises(ValueError, match=message):
        causal_conv1d_update(torch.zeros(x), torch.zeros(state), torch.zeros(18, 4))


@pytest.mark.parametrize(
    "name, shape, message",
    [
        ("state", (2, 18), r"state has shape \(2, 18\)"),
        ("x", (2, 17), r"x has shape \(2, 17\)"),
        ("dt", (3, 18), r"dt has shape \(3, 18\)"),
        ("A", (18, 6), r"A has shape \(18, 6\)"),
        ("B", (2, 6), r"B has shape \(2, 6\)"),
        ("C", (2, 4, 5), "C has 4 groups"),
    ],
)
def test_state_update_shapes(name, shape, message):
    arguments = {
        "state": torch.zeros(2, 18, 5),
        "x": torch.zeros(2, 18),
        "dt": torch.zeros(2, 18),
        "A": torch.zeros(18, 5),
        "B": torch.zeros(2, 5),
        "C": torch.zeros(2, 5),
    }
    arguments[name] = torch.zeros(shape)
    with pytest.raises(ValueError, match=message):
        selective_state_update(**arguments)


@pytest.mark.parametrize("index", [-2, 3, 7])
def test_rows_that_are_not_there(index):
    rows = torch.tensor([0, index])
    x, pool = torch.zeros(2, 18), torch.zeros(3, 18, 4)
    with pytest.raises(IndexError, match=r"conv_state_indices has values .* expected -1 to 2"):
        causal_conv1d_update(x, pool, torch.zeros(18, 4), conv_state_indices=rows)
    A, B = torch.zeros(18, 4), torch.zeros(2, 4)
    with pytest.raises(IndexError, match=r"state_batch_indices has values .* expected 0 to 2"):
        selective_state_update(pool, x, x, A, B, B, state_batch_indices=rows)


def test_not_a_number_goes_through():
    # Values that are not finite are results, not errors, and stay in their own row.
    arguments = scan_arguments()
    arguments["u"][0, 3, 4] = float("nan")
    y = selective_scan_fn(**arguments, delta_softplus=True)
    assert y[0, 3, 4:].isnan().all()
    assert not y[1].isnan().any() and not y[0, :3].isnan().any() and not y[0, 3, :4].isnan().any()
