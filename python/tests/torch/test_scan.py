"""The selective scan: values and gradients against the definition in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import TOLERANCE, close, same_as_reference, scan_arguments, strided

from dis_ssm.torch import selective_scan_fn, selective_state_update
from dis_ssm.torch.reference import selective_scan_ref, selective_state_update_ref


@pytest.mark.parametrize("b", ["constant", "variable", "grouped"])
@pytest.mark.parametrize("c", ["constant", "variable", "grouped"])
def test_all_forms_of_b_and_c(b, c):
    arguments = scan_arguments(b=b, c=c)
    same_as_reference(
        selective_scan_fn, selective_scan_ref, arguments, delta_softplus=True, return_last_state=True
    )


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("discretization", ["mamba", "zoh"])
@pytest.mark.parametrize("softplus", [False, True])
def test_directions_and_discretizations(reverse, discretization, softplus):
    arguments = scan_arguments()
    if not softplus:
        # Steps are positive: a negative one makes states grow.
        arguments["delta"] = arguments["delta"].abs() * 0.2
        arguments["delta_bias"] = arguments["delta_bias"].abs() * 0.2
    same_as_reference(
        selective_scan_fn,
        selective_scan_ref,
        arguments,
        delta_softplus=softplus,
        reverse=reverse,
        discretization=discretization,
        return_last_state=True,
    )


@pytest.mark.parametrize("options", [(), ("D",), ("z",), ("delta_bias",), ("initial_state",), ("D", "z")])
def test_optional_arguments(options):
    arguments = scan_arguments(options=options)
    same_as_reference(selective_scan_fn, selective_scan_ref, arguments, delta_softplus=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types(dtype):
    arguments = scan_arguments(dtype=dtype)
    y = selective_scan_fn(**arguments, delta_softplus=True)
    assert y.dtype == dtype
    same_as_reference(selective_scan_fn, selective_scan_ref, arguments, TOLERANCE[dtype], delta_softplus=True)


@settings(deadline=None, max_examples=40)
@given(
    batch=st.integers(0, 3),
    channels=st.sampled_from([0, 1, 3, 16, 17, 33, 48]),
    length=st.sampled_from([0, 1, 2, 15, 16, 17, 33, 64]),
    states=st.integers(1, 17),
    form=st.sampled_from(["constant", "variable", "grouped"]),
    groups=st.integers(1, 3),
    reverse=st.booleans(),
    views=st.booleans(),
)
def test_shapes_and_strides(batch, channels, length, states, form, groups, reverse, views):
    arguments = scan_arguments(batch, channels * groups, length, states, form, form, groups)
    if views:
        for name in ("u", "B", "z", "A"):
            arguments[name] = strided(arguments[name])
    same_as_reference(
        selective_scan_fn,
        selective_scan_ref,
        arguments,
        delta_softplus=True,
        reverse=reverse,
        return_last_state=True,
    )


def test_order_of_memory_follows_the_input():
    arguments = scan_arguments()
    assert selective_scan_fn(**arguments).is_contiguous()
    arguments["u"] = arguments["u"].transpose(1, 2).contiguous().transpose(1, 2)
    y = selective_scan_fn(**arguments)
    assert y.transpose(1, 2).is_contiguous()


def test_gradient_of_a_sum():
    # The gradient that comes back is one number of stride 0.
    arguments = scan_arguments()
    u = arguments["u"].requires_grad_()
    selective_scan_fn(**arguments).sum().backward()
    wide = {name: value.detach().double() for name, value in arguments.items()}
    wide["u"].requires_grad_()
    selective_scan_ref(**wide).sum().backward()
    close(u.grad, wide["u"].grad, "gradient of u", 1e-5)


def test_last_state_alone():
    arguments = scan_arguments()
    u = arguments["u"].requires_grad_()
    selective_scan_fn(**arguments, return_last_state=True)[1].sum().backward()
    wide = {name: value.detach().double() for name, value in arguments.items()}
    wide["u"].requires_grad_()
    selective_scan_ref(**wide, return_last_state=True)[1].sum().backward()
    close(u.grad, wide["u"].grad, "gradient of u", 1e-5)


def test_a_sequence_in_pieces():
    arguments = scan_arguments(length=40, options=("D", "z", "delta_bias"))
    whole, last = selective_scan_fn(**arguments, delta_softplus=True, return_last_state=True)
    state, pieces = None, []
    for piece in (slice(0, 7), slice(7, 8), slice(8, 40)):
        part = {name: value[..., piece] if value.dim() == 3 else value for name, value in arguments.items()}
        y, state = selective_scan_fn(**part, delta_softplus=True, return_last_state=True, initial_state=state)
        pieces.append(y)
    assert torch.equal(torch.cat(pieces, dim=-1), whole)
    assert torch.equal(state, last)


def update_arguments(batch=3, inner=(18,), states=5, groups=None, dtype=torch.float32):
    draw = torch.Generator().manual_seed(3)

    def normal(*shape):
        return torch.randn(*shape, generator=draw)

    shared = (batch, states) if groups is None else (batch, groups, states)
    return {
        "x": normal(batch, *inner).to(dtype),
        "dt": normal(batch, *inner).to(dtype),
        "A": -torch.exp(normal(*inner, states)),
        "B": normal(*shared).to(dtype),
        "C": normal(*shared).to(dtype),
        "D": normal(*inner),
        "z": normal(batch, *inner).to(dtype),
        "dt_bias": normal(*inner),
    }


@pytest.mark.parametrize(
    "inner, groups", [((18,), None), ((18,), 3), ((4, 6), None), ((4, 6), 2), ((1, 5), 1)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_one_token(inner, groups, dtype):
    arguments = update_arguments(inner=inner, groups=groups, dtype=dtype)
    state = torch.randn(3, *inner, 5).to(dtype)
    wide = state.double()
    y = selective_state_update(state, **arguments, dt_softplus=True)
    expected = selective_state_update_ref(
        wide, **{name: value.double() for name, value in arguments.items()}, dt_softplus=True
    )
    assert y.dtype == dtype
    close(y, expected, "y", TOLERANCE[dtype])
    close(state, wide, "state", TOLERANCE[dtype])


def test_one_token_of_some_rows():
    arguments = update_arguments(batch=2)
    pool = torch.randn(5, 18, 5)
    rows = torch.tensor([4, 1], dtype=torch.int32)
    expected_pool, part = pool.clone(), pool[[4, 1]].clone()
    y = selective_state_update(pool, **arguments, dt_softplus=True, state_batch_indices=rows)
    assert torch.equal(y, selective_state_update(part, **arguments, dt_softplus=True))
    expected_pool[[4, 1]] = part
    assert torch.equal(pool, expected_pool)


@pytest.mark.parametrize("inner", [(18,), (4, 6)])
def test_one_token_of_a_strided_state(inner):
    arguments = update_arguments(inner=inner)
    state = strided(torch.randn(3, *inner, 5))
    dense = state.contiguous()
    y = selective_state_update(state, **arguments)
    assert torch.equal(y, selective_state_update(dense, **arguments))
    assert torch.equal(state, dense)


def test_tokens_are_the_scan():
    arguments = scan_arguments(length=6, options=("D", "z", "delta_bias"))
    whole, last = selective_scan_fn(**arguments, delta_softplus=True, return_last_state=True)
    state = torch.zeros_like(last)
    for t in range(6):
        y = selective_state_update(
            state,
            arguments["u"][..., t],
            arguments["delta"][..., t],
            arguments["A"],
            arguments["B"][..., t],
            arguments["C"][..., t],
            arguments["D"],
            arguments["z"][..., t],
            arguments["delta_bias"],
            dt_softplus=True,
        )
        close(y, whole[..., t], f"token {t}", 1e-6)
    close(state, last, "state", 1e-6)
