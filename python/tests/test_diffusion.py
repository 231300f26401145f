import numpy as np
import pytest

from dis_ssm import diffusion

MEAN, DEVIATION = 0.3, 0.5
BARS = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))


def normal_pixels(x, t):
    """The noise that a network would see that knows pixels to be independent and normal."""
    bar = np.interp(t, np.arange(1000), BARS)[:, None, None, None]
    variance = bar * DEVIATION**2 + 1 - bar
    return np.sqrt(1 - bar) * (x - np.sqrt(bar) * MEAN) / variance


@pytest.mark.parametrize("sampler", ["ddim", "ancestral", "dpmpp-2m", "heun", "unipc-2"])
def test_a_function_is_sampled(sampler):
    steps = 200 if sampler == "ancestral" else 30
    images = diffusion.sample(normal_pixels, (64, 3, 8, 8), sampler=sampler, steps=steps, seed=7)
    assert images.dtype == np.float32 and images.shape == (64, 3, 8, 8)
    assert abs(images.mean() - MEAN) < 0.03 and abs(images.std() - DEVIATION) < 0.05


def test_samples_depend_on_seed_and_number_alone():
    four = diffusion.sample(normal_pixels, (4, 1, 4, 4), seed=3)
    np.testing.assert_array_equal(diffusion.sample(normal_pixels, (2, 1, 4, 4), seed=3), four[:2])
    assert (diffusion.sample(normal_pixels, (4, 1, 4, 4), seed=4) != four).any()


def test_noise_of_ones_own_and_the_callback():
    start = np.random.default_rng(0).normal(size=(2, 1, 4, 4))
    seen = []
    images = diffusion.sample(normal_pixels, start=start, steps=5, callback=lambda done, total, x: seen.append((done, total, x)))
    assert [at[:2] for at in seen] == [(i + 1, 5) for i in range(5)]
    np.testing.assert_array_equal(seen[-1][2], images)
    np.testing.assert_array_equal(diffusion.sample(normal_pixels, start=start, steps=5, seed=9), images)


def test_a_learned_variance_takes_twice_the_channels():
    def network(x, t):
        return np.concatenate([normal_pixels(x, t), np.zeros_like(x)], axis=1)

    images = diffusion.sample(network, (8, 2, 8, 8), sampler="ancestral", steps=100, variance="learned_range")
    assert abs(images.mean() - MEAN) < 0.1


class Stop(Exception):
    pass


def test_what_the_network_raises_comes_out():
    def network(x, t):
        raise Stop("here")

    with pytest.raises(Stop, match="here"):
        diffusion.sample(network, (1, 1, 2, 2))

    def late(done, total, x):
        raise Stop("late")

    with pytest.raises(Stop, match="late"):
        diffusion.sample(normal_pixels, (1, 1, 2, 2), callback=late)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(shape=(1, 1, 2)), "shape is"),
        (dict(shape=(0, 1, 2, 2)), "shape is"),
        (dict(shape=None), "shape is None"),
        (dict(start=np.zeros((2, 2))), "start has shape"),
        (dict(start=np.zeros((1, 1, 3, 3))), "start has shape"),
        (dict(sampler="none"), "none"),
        (dict(steps=0), "steps is 0"),
        (dict(steps=1001), "steps is 1001"),
        (dict(schedule="none"), "none"),
        (dict(prediction="noise"), "prediction is \"noise\""),
        (dict(variance="none"), "variance is"),
        (dict(clip=float("nan")), "clip is nan"),
        (dict(fn=lambda x, t: x[:, :, :1]), "output has shape"),
        (dict(fn=lambda x, t: x[0]), "output has shape"),
        (dict(fn=lambda x, t: x + np.nan), "finite"),
        (dict(eta=0.5), "eta is for"),
    ],
)
def test_what_does_not_do(arguments, words):
    with pytest.raises(ValueError, match=words):
        diffusion.sample(**{"fn": normal_pixels, "shape": (1, 1, 2, 2), "steps": 2, **arguments})


def test_images_beyond_memory():
    with pytest.raises((MemoryError, OverflowError)):
        diffusion.sample(normal_pixels, (2**40, 2**20, 2**20, 2**20))
