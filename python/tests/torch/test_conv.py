"""The causal convolution: values and gradients against the definition in float64."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support import TOLERANCE, close, same_as_reference, strided

from dis_ssm.torch import causal_conv1d_fn, causal_conv1d_update
from dis_ssm.torch._conv import causal_conv1d_varlen_states
from dis_ssm.torch.reference import (
    causal_conv1d_ref,
    causal_conv1d_update_ref,
    causal_conv1d_varlen_states_ref,
)


def conv_arguments(batch=2, channels=18, length=21, width=4, dtype=torch.float32, initial=False, bias=True):
    draw = torch.Generator().manual_seed(5)

    def normal(*shape):
        return torch.randn(*shape, generator=draw)

    arguments = {"x": normal(batch, channels, length).to(dtype), "weight": normal(channels, width)}
    if bias:
        arguments["bias"] = normal(channels)
    if initial:
        arguments["initial_states"] = normal(batch, channels, width - 1).to(dtype)
    return arguments


@pytest.mark.parametrize("width", [2, 3, 4])
@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize("initial", [False, True])
def test_widths(width, activation, initial):
    arguments = conv_arguments(width=width, initial=initial)
    same_as_reference(causal_conv1d_fn, causal_conv1d_ref, arguments, activation=activation)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types(dtype):
    arguments = conv_arguments(dtype=dtype)
    assert causal_conv1d_fn(**arguments, activation="silu").dtype == dtype
    same_as_reference(causal_conv1d_fn, causal_conv1d_ref, arguments, TOLERANCE[dtype], activation="swish")


@settings(deadline=None, max_examples=40)
@given(
    batch=st.integers(0, 3),
    channels=st.sampled_from([0, 1, 3, 16, 17, 33]),
    length=st.sampled_from([0, 1, 2, 3, 15, 16, 17, 64]),
    width=st.integers(2, 4),
    bias=st.booleans(),
    initial=st.booleans(),
    reverse=st.booleans(),
    views=st.booleans(),
)
def test_shapes_and_strides(batch, channels, length, width, bias, initial, reverse, views):
    arguments = conv_arguments(batch, channels, length, width, initial=initial, bias=bias)
    if views:
        arguments["x"] = strided(arguments["x"])
        arguments["weight"] = strided(arguments["weight"])
    same_as_reference(causal_conv1d_fn, causal_conv1d_ref, arguments, activation="silu", reverse=reverse)


@pytest.mark.parametrize("length", [1, 2, 9])
def test_final_states(length):
    arguments = conv_arguments(length=length, initial=True)
    same_as_reference(
        causal_conv1d_fn, causal_conv1d_ref, arguments, activation="silu", return_final_states=True
    )
    room = torch.empty(2, 18, 3)
    _, final = causal_conv1d_fn(**arguments, return_final_states=True, final_states_out=room)
    assert final is room


def test_the_activation_in_the_fourth_place():
    arguments = conv_arguments()
    y = causal_conv1d_fn(arguments["x"], arguments["weight"], arguments["bias"], "silu")
    assert torch.equal(y, causal_conv1d_fn(**arguments, activation="silu"))


def test_several_sequences_in_a_row():
    arguments = conv_arguments(batch=1, length=10)
    owner = torch.tensor([[0, 0, 0, 1, 2, 2, 2, 2, 3, -1]], dtype=torch.int32)
    y = causal_conv1d_fn(**arguments, seq_idx=owner, activation="silu")
    for index in range(4):
        own = (owner[0] == index).nonzero()[:, 0]
        part = dict(arguments, x=arguments["x"][..., own])
        close(y[..., own], causal_conv1d_fn(**part, activation="silu"), f"sequence {index}", 1e-6)
    assert (y[..., 9] == 0).all()


@pytest.mark.parametrize("width", [2, 3, 4])
@pytest.mark.parametrize("held", [0, 2])
@pytest.mark.parametrize("length", [None, 1, 5])
@pytest.mark.parametrize("ring", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_update(width, held, length, ring, dtype):
    held += width - 1 if length is None or not ring else max(width - 1, length)
    arguments = conv_arguments(batch=3, width=width, length=length or 1, dtype=dtype)
    x = arguments.pop("x")
    x = x[..., 0] if length is None else x
    state = torch.randn(3, 18, held).to(dtype)
    expected_state = state.double()
    seen = torch.tensor([0, 1, 12], dtype=torch.int32) if ring else None
    y = causal_conv1d_update(x, state, **arguments, activation="silu", cache_seqlens=seen)
    expected = causal_conv1d_update_ref(
        x.double(),
        expected_state,
        arguments["weight"].double(),
        arguments["bias"].double(),
        activation="silu",
        cache_seqlens=seen,
    )
    assert y.dtype == dtype and y.shape == x.shape
    close(y, expected, "y", TOLERANCE[dtype])
    assert torch.equal(state.double(), expected_state)


def test_update_of_some_rows():
    arguments = conv_arguments(batch=2, length=2)
    x = arguments.pop("x")
    pool = torch.randn(4, 18, 4)
    expected, part = pool.clone(), pool[[3, 0]].clone()
    rows = torch.tensor([3, 0], dtype=torch.int32)
    y = causal_conv1d_update(x, pool, **arguments, conv_state_indices=rows)
    assert torch.equal(y, causal_conv1d_update(x, part, **arguments))
    expected[[3, 0]] = part
    assert torch.equal(pool, expected)


def test_update_of_padding():
    arguments = conv_arguments(batch=3, length=2)
    x = arguments.pop("x")
    pool = torch.randn(4, 18, 4)
    expected, part = pool.clone(), pool[[2, 0]].clone()
    y = causal_conv1d_update(x, pool, **arguments, conv_state_indices=torch.tensor([2, -1, 0]))
    assert torch.equal(y[[0, 2]], causal_conv1d_update(x[[0, 2]], part, **arguments))
    assert (y[1] == 0).all()
    expected[[2, 0]] = part
    assert torch.equal(pool, expected)


def test_tokens_are_the_convolution():
    arguments = conv_arguments(length=7)
    x = arguments.pop("x")
    state = torch.zeros(2, 18, 4)
    steps = [causal_conv1d_update(x[..., t], state, **arguments, activation="silu") for t in range(7)]
    whole = causal_conv1d_fn(x, **arguments, activation="silu")
    close(torch.stack(steps, dim=-1), whole, "y", 1e-6)
    assert torch.equal(state, F.pad(x, (4, 0))[..., -4:])


def test_states_of_sequences_of_several_lengths():
    x = torch.randn(12, 5)
    bounds = torch.tensor([0, 1, 1, 7, 12], dtype=torch.int32)
    states = causal_conv1d_varlen_states(x, bounds, 4)
    assert states.shape == (4, 5, 4)
    assert torch.equal(states, causal_conv1d_varlen_states_ref(x, bounds, 4))
