"""What does not do is refused with an exception that names the argument; nothing aborts, nothing wrong comes out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dis_ssm

BATCH, CHANNELS, LENGTH, STATES = 2, 6, 5, 3


def scan_arguments():
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    return dict(
        u=normal(BATCH, CHANNELS, LENGTH),
        delta=normal(BATCH, CHANNELS, LENGTH),
        A=-np.exp(normal(CHANNELS, STATES)),
        B=normal(BATCH, STATES, LENGTH),
        C=normal(BATCH, 2, STATES, LENGTH),
        D=normal(CHANNELS),
        z=normal(BATCH, CHANNELS, LENGTH),
        delta_bias=normal(CHANNELS),
        initial_state=normal(BATCH, CHANNELS, STATES),
    )


def conv_arguments():
    rng = np.random.default_rng(0)
    x, weight, bias = rng.normal(size=(BATCH, CHANNELS, LENGTH)), rng.normal(size=(CHANNELS, 4)), rng.normal(size=CHANNELS)
    before = rng.normal(size=(BATCH, CHANNELS, 3))
    names = dict(x=x, weight=weight, bias=bias, initial_states=before)
    return {name: array.astype(np.float32) for name, array in names.items()}


CALLS = {"scan": (dis_ssm.selective_scan, scan_arguments), "conv": (dis_ssm.causal_conv1d, conv_arguments)}
OPTIONAL = {"D", "z", "delta_bias", "initial_state", "bias", "initial_states"}


@given(st.sampled_from(sorted(CALLS)), st.data())
def test_other_shapes(call, data):
    """One argument of another shape: it is named, with its shape, unless the shape does after all."""
    function, arguments = CALLS[call]
    arguments = arguments()
    expected = function(**arguments)
    name = data.draw(st.sampled_from(sorted(arguments)))
    shape = tuple(data.draw(st.lists(st.integers(0, 7), min_size=0, max_size=5)))
    changed = np.ones(shape, np.float32)
    if name == "u":
        # Everything else is measured by it.
        with pytest.raises(ValueError, match=r"has shape"):
            function(**{**arguments, name: changed if shape != expected.shape else changed[:1]})
        return
    try:
        found = function(**{**arguments, name: changed})
    except ValueError as error:
        text = str(error)
        assert name in text or (name == "x" and "shape" in text) or (name in ("A", "weight")), text
        if name in text:
            assert str(shape) in text or "groups" in text, text
    else:
        assert found.shape == expected.shape or name == "x"
        assert shape == arguments[name].shape or name in ("B", "C", "A", "weight", "x")


@given(st.sampled_from(sorted(CALLS)), st.sampled_from(["float64", "int32", "complex64", "bool", ">f4", "object"]), st.data())
def test_other_types(call, dtype, data):
    function, arguments = CALLS[call]
    arguments = arguments()
    name = data.draw(st.sampled_from(sorted(arguments)))
    with pytest.raises(TypeError, match=rf"^{name} is .*(expected float32|only real)"):
        function(**{**arguments, name: arguments[name].astype(dtype)})


@pytest.mark.parametrize("value", [None, 1.5, "text", [[1.0]], object()])
@pytest.mark.parametrize("call", sorted(CALLS))
def test_no_arrays(call, value):
    function, arguments = CALLS[call]
    for name in arguments():
        if value is None and name in OPTIONAL:
            continue
        with pytest.raises(TypeError, match=rf"^{name} is of type"):
            function(**{**arguments(), name: value})


def test_complex_a_is_refused_in_words():
    arguments = scan_arguments()
    with pytest.raises(TypeError, match="A is complex.*only real"):
        dis_ssm.selective_scan(**{**arguments, "A": arguments["A"].astype(np.complex64)})


def test_words_that_are_none():
    arguments = scan_arguments()
    with pytest.raises(ValueError, match="discretization is 'euler'"):
        dis_ssm.selective_scan(**arguments, discretization="euler")
    with pytest.raises(ValueError, match="layout is 'dbl'"):
        dis_ssm.selective_scan(**arguments, layout="dbl")
    with pytest.raises(ValueError, match="activation is 'gelu'"):
        dis_ssm.causal_conv1d(**conv_arguments(), activation="gelu")


@pytest.mark.parametrize("width", [0, 1, 5])
def test_widths_that_are_not_supported(width):
    arguments = {**conv_arguments(), "weight": np.ones((CHANNELS, width), np.float32), "initial_states": None}
    with pytest.raises(ValueError, match=rf"weight has shape \(6, {width}\)"):
        dis_ssm.causal_conv1d(**arguments)


def test_read_only_arrays_are_read_but_not_written():
    arguments = scan_arguments()
    expected = dis_ssm.selective_scan(**arguments)
    for array in arguments.values():
        array.flags.writeable = False
    np.testing.assert_array_equal(dis_ssm.selective_scan(**arguments), expected)
    x, A = np.ones((BATCH, CHANNELS), np.float32), arguments["A"]
    B = np.ones((BATCH, STATES), np.float32)
    with pytest.raises(ValueError, match="state is read-only"):
        dis_ssm.selective_state_update(arguments["initial_state"], x, x, A, B, B)
    with pytest.raises(ValueError, match="conv_state is read-only"):
        dis_ssm.causal_conv1d_update(x, np.broadcast_to(np.float32(0), (BATCH, CHANNELS, 4)), np.ones((CHANNELS, 4), np.float32))


def test_what_repeats_is_read_right():
    arguments = scan_arguments()
    arguments["delta"] = np.broadcast_to(np.float32(0.5), arguments["u"].shape)
    arguments["A"] = np.broadcast_to(-np.arange(1, STATES + 1, dtype=np.float32), (CHANNELS, STATES))
    copies = {name: array.copy() for name, array in arguments.items()}
    np.testing.assert_array_equal(dis_ssm.selective_scan(**arguments), dis_ssm.selective_scan(**copies))


def test_not_a_number_stays_where_it_is():
    arguments = scan_arguments()
    arguments["u"][1, 2, 3] = np.nan
    y = dis_ssm.selective_scan(**arguments)
    bad = np.isnan(y)
    assert bad[1, 2, 3:].all() and bad.sum() == LENGTH - 3


def test_memory_at_odd_places_is_refused():
    raw = np.zeros(BATCH * CHANNELS * LENGTH * 4 + 1, np.uint8)[1:].view(np.float32)
    arguments = {**scan_arguments(), "u": raw.reshape(BATCH, CHANNELS, LENGTH)}
    with pytest.raises(ValueError, match="u does not lie at multiples of four bytes"):
        dis_ssm.selective_scan(**arguments)


@given(
    st.sampled_from(["u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state", "y", "last_state", "checkpoints"]),
    st.one_of(st.none(), st.integers(), st.lists(st.integers(0, 7), max_size=5)),
)
def test_the_compiled_part_alone_refuses_too(name, value):
    """Without the checks in front of it."""
    native = dis_ssm._native
    arguments = scan_arguments()
    u, delta, z = (arguments[n].swapaxes(1, 2) for n in ("u", "delta", "z"))
    B, C = arguments["B"].swapaxes(1, 2), arguments["C"].transpose(0, 3, 1, 2)
    given = dict(arguments, u=u, delta=delta, z=z, B=B, C=C, y=np.zeros_like(u), last_state=None, checkpoints=None)
    given[name] = np.ones(value, np.float32) if isinstance(value, list) else value
    try:
        native.scan(**given, delta_softplus=True, zero_order_hold=False, reverse=False)
    except (TypeError, ValueError) as error:
        assert str(error)
    else:
        assert np.isfinite(given["y"]).all()


def test_results_do_not_go_where_arguments_are():
    native = dis_ssm._native
    arguments = scan_arguments()
    u, B = arguments["u"].swapaxes(1, 2), arguments["B"].swapaxes(1, 2)
    inputs, flags = (u, u, arguments["A"], B, B, None, None, None, None), (False, False, False)
    with pytest.raises(ValueError, match="y cannot be written"):
        native.scan(inputs, flags, u, None, None)
    twice = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), u.shape, (0, 0, 0))
    with pytest.raises(ValueError, match="y cannot be written"):
        native.scan(inputs, flags, twice, None, None)
