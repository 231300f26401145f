import numpy as np
import reference
from hypothesis import given
from hypothesis import strategies as st
from test_scan import close, memory, order

import dis_ssm


@st.composite
def convs(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    batch, length, channels = draw(st.integers(1, 3)), draw(st.integers(0, 40)), draw(st.integers(1, 150))
    width = draw(st.integers(2, 4))

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    arguments = dict(
        x=normal(batch, length, channels),
        weight=normal(channels, width),
        bias=normal(channels) if draw(st.booleans()) else None,
        before=normal(batch, width - 1, channels) if draw(st.booleans()) else None,
    )
    layout = draw(st.sampled_from(["bdl", "bld"]))
    kind = draw(st.sampled_from(["as is", "other way", "gaps", "backwards"]))
    shown = dict(
        x=memory(order(arguments["x"], layout), kind),
        weight=arguments["weight"],
        bias=arguments["bias"],
        activation=draw(st.sampled_from([None, "silu", "swish"])),
        initial_states=order(arguments["before"], layout),
        reverse=draw(st.booleans()),
        layout=layout,
    )
    options = dict(silu=shown["activation"] is not None, reverse=shown["reverse"])
    return arguments, shown, options


@given(convs())
def test_values(case):
    arguments, shown, options = case
    y, final = dis_ssm.causal_conv1d(**shown, return_final_states=True)
    close(y, order(reference.conv(**arguments, **options), shown["layout"]))
    width, length = arguments["weight"].shape[1], arguments["x"].shape[1]
    before = arguments["before"]
    if before is None:
        before = np.zeros((len(y), width - 1, arguments["x"].shape[2]), np.float32)
    parts = (arguments["x"], before) if shown["reverse"] else (before, arguments["x"])
    seen = np.concatenate(parts, axis=1)
    seen = seen[:, : width - 1] if shown["reverse"] else seen[:, length:]
    np.testing.assert_array_equal(final, order(seen, shown["layout"]))


@given(convs())
def test_gradients(case):
    arguments, shown, options = case
    rng = np.random.default_rng(0)
    dout = rng.normal(size=arguments["x"].shape).astype(np.float32)
    found = dis_ssm.causal_conv1d_grad(**shown, dout=order(dout, shown["layout"]))

    def loss(**changed):
        return (dout * reference.conv(**{**arguments, **changed}, **options)).sum()

    names = dict(x="x", weight="weight", bias="bias", before="initial_states")
    for name, array in arguments.items():
        gradient = getattr(found, names[name])
        if array is None:
            assert gradient is None
            continue
        direction = rng.normal(size=array.shape)
        step = 1e-6
        middle = array.astype(np.float64)
        difference = (loss(**{name: middle + step * direction}) - loss(**{name: middle - step * direction})) / (2 * step)
        moved = order(direction, shown["layout"]) if array.ndim == 3 else direction
        size = np.sqrt((gradient.astype(np.float64) ** 2).sum() * array.size) + 1
        assert abs((gradient * moved).sum() - difference) <= 1e-4 * size, name


@given(convs(), st.integers(0, 3), st.integers(1, 5))
def test_in_pieces_is_the_whole_bit_for_bit(case, more, piece):
    arguments, shown, _ = case
    x, weight, bias = arguments["x"], arguments["weight"], arguments["bias"]
    whole = dis_ssm.causal_conv1d(x, weight, bias, shown["activation"], layout="bld")
    batch, length, channels = x.shape
    state = np.zeros((batch, channels, weight.shape[1] - 1 + more), np.float32)
    for start in range(0, length, piece):
        part = x[:, start : start + piece].swapaxes(1, 2)
        y = dis_ssm.causal_conv1d_update(part, state, weight, bias, shown["activation"])
        np.testing.assert_array_equal(y.swapaxes(1, 2), whole[:, start : start + piece])
    kept = np.concatenate([np.zeros((batch, state.shape[2], channels), np.float32), x], axis=1)[:, length:]
    np.testing.assert_array_equal(state, kept.swapaxes(1, 2))


def test_one_token_without_an_axis():
    rng = np.random.default_rng(1)
    x, weight = rng.normal(size=(2, 5)).astype(np.float32), rng.normal(size=(5, 4)).astype(np.float32)
    state = rng.normal(size=(2, 5, 4)).astype(np.float32)
    before = state.copy()
    y = dis_ssm.causal_conv1d_update(x, state, weight)
    expected = np.concatenate([before[:, :, 1:], x[:, :, None]], axis=2)
    np.testing.assert_array_equal(state, expected)
    assert y.shape == x.shape
    np.testing.assert_allclose(y, (expected * weight).sum(-1), rtol=1e-5, atol=1e-5)
