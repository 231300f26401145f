import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

import dis_ssm


def order(array, layout):
    """(batch, length, ..) in a layout; None stays."""
    return array if array is None or layout == "bld" else np.moveaxis(array, 1, -1)


def memory(array, kind):
    """The same numbers, lying otherwise in memory."""
    if array is None or kind == "as is":
        return array
    if kind == "other way":
        return np.ascontiguousarray(array.T).T
    if kind == "gaps":
        wide = np.full((*array.shape[:-1], 2 * array.shape[-1] + 1), np.nan, array.dtype)
        wide[..., 1::2] = array
        return wide[..., 1::2]
    return np.ascontiguousarray(array[..., ::-1])[..., ::-1]


@st.composite
def scans(draw, least=0):
    """The arguments of a scan as (batch, length, channels), and how they are given."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    batch, length = draw(st.integers(least, 3)), draw(st.integers(least, 40))
    groups, states = draw(st.integers(1, 3)), draw(st.integers(1, 18))
    channels = groups * draw(st.integers(1, 30))

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    def optional(*shape):
        return normal(*shape) if draw(st.booleans()) else None

    def matrix():
        return normal(*draw(st.sampled_from([(channels, states), (batch, length, states), (batch, length, groups, states)])))

    softplus = draw(st.booleans())
    full = (batch, length, channels)
    delta = normal(*full)
    arguments = dict(
        u=normal(*full),
        delta=delta if softplus else np.abs(delta),
        A=-np.exp(normal(channels, states)),
        B=matrix(),
        C=matrix(),
        D=optional(channels),
        z=optional(*full),
        delta_bias=optional(channels) if softplus else None,
        initial_state=optional(batch, channels, states),
    )
    options = dict(delta_softplus=softplus, reverse=draw(st.booleans()))
    layout = draw(st.sampled_from(["bdl", "bld"]))
    kinds = {name: draw(st.sampled_from(["as is", "other way", "gaps", "backwards"])) for name in arguments}
    hold = draw(st.booleans())
    moved = ("u", "delta", "z", "B", "C")
    shown = {
        name: memory(order(x, layout) if name in moved and x is not None and x.ndim > 2 else x, kinds[name])
        for name, x in arguments.items()
    }
    return arguments, shown, options, layout, hold


def close(found, expected, tolerance=1e-5):
    assert found.shape == expected.shape
    scale = 1 + np.abs(expected).max(initial=0)
    assert np.abs(found - expected).max(initial=0) <= tolerance * scale


@given(scans())
def test_values(case):
    arguments, shown, options, layout, hold = case
    discretization = "zoh" if hold else "mamba"
    y, last = dis_ssm.selective_scan(**shown, **options, return_last_state=True, discretization=discretization, layout=layout)
    expected, expected_last = reference.scan(**arguments, **options, hold=hold)
    close(y, order(expected, layout))
    close(last, expected_last)
    assert y.dtype == last.dtype == np.float32


@given(scans(least=1))
def test_gradients(case):
    """Along a random direction in every array, against differences in float64."""
    arguments, shown, options, layout, hold = case
    rng = np.random.default_rng(0)
    dout = rng.normal(size=arguments["u"].shape).astype(np.float32)
    dlast = rng.normal(size=(dout.shape[0], *arguments["A"].shape)).astype(np.float32)
    found = dis_ssm.selective_scan_grad(
        **shown,
        **options,
        dout=order(dout, layout),
        dlast_state=dlast,
        discretization="zoh" if hold else "mamba",
        layout=layout,
    )

    def loss(**changed):
        y, last = reference.scan(**{**arguments, **changed}, **options, hold=hold)
        return (dout * y).sum() + (dlast * last).sum()

    for name, array in arguments.items():
        gradient = getattr(found, name)
        if array is None:
            assert gradient is None
            continue
        assert gradient.shape == shown[name].shape
        direction = rng.normal(size=array.shape)
        step = 1e-6
        middle = array.astype(np.float64)
        difference = (loss(**{name: middle + step * direction}) - loss(**{name: middle - step * direction})) / (2 * step)
        direction = order(direction, layout) if shown[name].shape != array.shape or array.ndim > 2 and name not in ("initial_state",) else direction
        size = np.sqrt((gradient.astype(np.float64) ** 2).sum() * array.size) + 1
        assert abs((gradient * direction).sum() - difference) <= 1e-4 * size, name


def test_long_sequences_in_mambas_layout():
    """More tokens than a tile has: it goes on from the state."""
    rng = np.random.default_rng(1)
    u, delta = rng.normal(size=(2, 2, 2500, 20)).astype(np.float32)
    A, B = -np.exp(rng.normal(size=(20, 4))).astype(np.float32), rng.normal(size=(2, 2500, 4)).astype(np.float32)
    for reverse in (False, True):
        options = dict(delta_softplus=True, reverse=reverse, return_last_state=True)
        expected, state = dis_ssm.selective_scan(u, delta, A, B, B, **options, layout="bld")
        u_, delta_, B_ = (np.ascontiguousarray(x.swapaxes(1, 2)) for x in (u, delta, B))
        found, last = dis_ssm.selective_scan(u_, delta_, A, B_, B_, **options)
        np.testing.assert_array_equal(found, expected.swapaxes(1, 2))
        np.testing.assert_array_equal(last, state)


@given(scans(least=1), st.data())
def test_token_by_token_is_the_whole_bit_for_bit(case, data):
    arguments, _, options, _, _ = case
    if arguments["B"].ndim == 2 or arguments["C"].ndim == 2:
        return
    arguments = {**arguments, "initial_state": None}
    y, last = dis_ssm.selective_scan(**arguments, delta_softplus=options["delta_softplus"], return_last_state=True, layout="bld")
    batch, length, channels = y.shape
    heads = data.draw(st.sampled_from([n for n in (1, 2, 3) if channels % n == 0]))
    wide = (channels,) if heads == 1 else (heads, channels // heads)
    state = np.zeros((batch, *wide, arguments["A"].shape[1]), np.float32)

    def row(x, t):
        return None if x is None else x[:, t].reshape(batch, *wide)

    def vector(x):
        return None if x is None else x.reshape(*wide, *x.shape[1:])

    for t in range(length):
        token = dis_ssm.selective_state_update(
            state,
            row(arguments["u"], t),
            row(arguments["delta"], t),
            vector(arguments["A"]),
            arguments["B"][:, t],
            arguments["C"][:, t],
            vector(arguments["D"]),
            row(arguments["z"], t),
            vector(arguments["delta_bias"]),
            options["delta_softplus"],
        )
        np.testing.assert_array_equal(token.reshape(batch, channels), y[:, t])
    np.testing.assert_array_equal(state.reshape(last.shape), last)


def test_a_state_that_does_not_lie_densely_is_changed_too():
    rng = np.random.default_rng(2)
    x, A, B = rng.normal(size=(2, 6)), -np.ones((6, 4)), rng.normal(size=(2, 4))
    x, A, B = (array.astype(np.float32) for array in (x, A, B))
    dense = rng.normal(size=(2, 6, 4)).astype(np.float32)
    strided = np.asfortranarray(dense)
    halves = dense.astype(np.float16)
    y = dis_ssm.selective_state_update(dense, x, abs(x), A, B, B)
    np.testing.assert_array_equal(dis_ssm.selective_state_update(strided, x, abs(x), A, B, B), y)
    np.testing.assert_array_equal(strided, dense)
    dis_ssm.selective_state_update(halves, x, abs(x), A, B, B)
    assert np.abs(halves - dense).max() < 1e-2 and halves.dtype == np.float16


def test_halves_come_back_as_halves():
    rng = np.random.default_rng(3)
    u = rng.normal(size=(1, 8, 12)).astype(np.float16)
    A, B = -np.ones((8, 4), np.float32), rng.normal(size=(1, 4, 12)).astype(np.float16)
    y = dis_ssm.selective_scan(u, abs(u), A, B, B)
    wide = dis_ssm.selective_scan(*(x.astype(np.float32) for x in (u, abs(u))), A, *(2 * [B.astype(np.float32)]))
    assert y.dtype == np.float16
    np.testing.assert_array_equal(y, wide.astype(np.float16))
    grads = dis_ssm.selective_scan_grad(u, abs(u), A, B, B, u)
    assert grads.u.dtype == grads.B.dtype == np.float16 and grads.A.dtype == np.float32


def test_threads_do_not_change_bits():
    rng = np.random.default_rng(4)
    u, delta = rng.normal(size=(2, 3, 96, 257)).astype(np.float32)
    A, B = -np.exp(rng.normal(size=(96, 16))).astype(np.float32), rng.normal(size=(3, 16, 257)).astype(np.float32)
    results = []
    for threads in (1, 3):
        dis_ssm.set_num_threads(threads)
        assert dis_ssm.get_num_threads() == threads
        y = dis_ssm.selective_scan(u, delta, A, B, B, delta_softplus=True)
        results.append([y, *dis_ssm.selective_scan_grad(u, delta, A, B, B, u, delta_softplus=True)])
    dis_ssm.set_num_threads(0)
    for one, three in zip(*results):
        if one is not None:
            np.testing.assert_array_equal(one, three)


@pytest.mark.parametrize("form", ["variable", "grouped", "constant"])
def test_nothing_to_scan(form):
    A = -np.ones((4, 3), np.float32)
    for batch, length in ((0, 5), (2, 0)):
        u = np.ones((batch, 4, length), np.float32)
        B = {"variable": (batch, 3, length), "grouped": (batch, 2, 3, length), "constant": (4, 3)}[form]
        B = np.ones(B, np.float32)
        y, last = dis_ssm.selective_scan(u, u, A, B, B, return_last_state=True)
        assert y.shape == u.shape and (last == 0).all()
        grads = dis_ssm.selective_scan_grad(u, u, A, B, B, u)
        assert (grads.A == 0).all() and (grads.B == 0).all()
