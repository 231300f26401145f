import os
import subprocess

import numpy as np
import pytest

import dis_ssm


@pytest.fixture(scope="module")
def digits():
    return dis_ssm.Pipeline.from_pretrained("digits")


def test_what_it_is(digits):
    height, width, channels = digits.image_shape
    assert height == width and channels == 1
    assert digits.num_parameters > 100_000
    assert digits.class_names == [str(digit) for digit in range(10)]
    assert digits.metadata["model"] or digits.metadata


def test_images_depend_on_seed_and_number_alone(digits):
    options = dict(classes=[3, 7], sampler="dpmpp-2m", steps=4)
    images = digits(num=6, **options, seed=5)
    assert images.shape == (6, *digits.image_shape) and images.dtype == np.uint8
    assert 20 < images.mean() < 235
    np.testing.assert_array_equal(digits(num=6, **options, seed=5, batch_size=1), images)
    np.testing.assert_array_equal(digits(num=6, **{**options, "classes": ["3", "7"]}, seed=5), images)
    assert (digits(num=6, **options, seed=6) != images).any()


def test_the_callback_sees_every_step(digits):
    seen = []
    digits(num=2, classes=1, sampler="ddim", steps=3, callback=lambda *at: seen.append(at))
    assert seen == [(2, 6), (4, 6), (6, 6)]

    def stop(done, total):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        digits(num=2, steps=3, callback=stop)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(num=0), "num is 0"),
        (dict(num=10**9), "num is 1000000000"),
        (dict(classes=[10]), "classes"),
        (dict(classes=["ten"]), "classes"),
        (dict(sampler="none"), "none"),
        (dict(steps=0), "steps"),
        (dict(steps=2000), "steps"),
        (dict(cfg_scale=float("nan")), "cfg_scale is NaN"),
        (dict(cfg_scale=-1.0), "cfg_scale is -1"),
        (dict(batch_size=0), "batch_size is 0"),
        (dict(eta=2.0), "eta is 2"),
        (dict(sampler="dpmpp-2m", eta=0.5), "eta is for"),
        (dict(spacing="wide"), "wide"),
    ],
)
def test_choices_that_there_are_not(digits, arguments, words):
    with pytest.raises(ValueError, match=words):
        digits(**{"num": 1, "steps": 2, **arguments})


def test_arguments_of_other_types(digits):
    for arguments in (dict(num=1.5), dict(num=float("nan")), dict(classes=[1.5]), dict(classes=[True]), dict(seed="x")):
        with pytest.raises(TypeError):
            digits(**{"num": 1, "steps": 2, **arguments})
    with pytest.raises(OverflowError):
        digits(num=-1, steps=2)


def test_files_that_are_no_checkpoints(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing.pt"):
        dis_ssm.Pipeline.from_pretrained(tmp_path / "missing.pt")
    (tmp_path / "page.safetensors").write_text("<html>")
    with pytest.raises(ValueError, match="page.safetensors"):
        dis_ssm.Pipeline.from_pretrained(tmp_path / "page.safetensors")


needs_command = pytest.mark.skipif("DIS_COMMAND" not in os.environ, reason="DIS_COMMAND does not name the command")


@needs_command
def test_the_directory_of_a_run_is_its_newest_checkpoint(tmp_path):
    run = tmp_path / "run"
    train = "train --preset digits --steps 2 --checkpoint-every 1 --batch-size 4 --sample-every 0 --keep 0 --out"
    subprocess.run([os.environ["DIS_COMMAND"], *train.split(), str(run)], check=True, capture_output=True)

    def opened(path, **options):
        return dis_ssm.Pipeline.from_pretrained(path, **options)

    def drawn(path):
        return opened(path)(num=2, steps=2)

    first, second = sorted((run / "checkpoints").iterdir())
    images = drawn(run)
    np.testing.assert_array_equal(images, drawn(second / "ema.safetensors"))
    assert opened(run).metadata["holds"] == "ema"
    assert opened(run, raw=True).metadata["holds"] == "weights"
    # One that is damaged is passed over, and named.
    (second / "ema.safetensors").write_bytes(b"no more")
    with pytest.warns(UserWarning, match="ema.safetensors"):
        older = drawn(run)
    np.testing.assert_array_equal(older, drawn(first))


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path.name}.*neither a checkpoint nor the directory of a run"):
        dis_ssm.Pipeline.from_pretrained(tmp_path)


@needs_command
@pytest.mark.parametrize(
    "arguments, flags",
    [
        (dict(num=5, steps=6), []),
        (dict(num=4), []),
        (dict(num=2, sampler="euler"), ["--sampler", "euler"]),
        (dict(num=4, steps=5, classes=[2, 9], sampler="heun", seed=3), ["--classes", "2,9", "--sampler", "heun", "--seed", "3"]),
        (dict(num=3, steps=5, sampler="ancestral", cfg_scale=4.0, clip=True), ["--sampler", "ancestral", "--cfg", "4", "--clip"]),
        (
            dict(num=3, steps=5, sampler="ddim", eta=0.5, batch_size=2),
            ["--sampler", "ddim", "--eta", "0.5", "--batch-size", "2"],
        ),
    ],
)
def test_images_are_those_of_the_command(digits, tmp_path, arguments, flags):
    out = tmp_path / "images.npz"
    command = [os.environ["DIS_COMMAND"], "sample", "--out", str(out), "--num", str(arguments["num"])]
    steps = ["--steps", str(arguments["steps"])] if "steps" in arguments else []
    subprocess.run([*command, *steps, *flags], check=True, capture_output=True)
    with np.load(out) as found:
        expected = found["arr_0"]
    np.testing.assert_array_equal(digits(**arguments), expected)
