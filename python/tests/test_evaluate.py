import numpy as np
import pytest

import dis_ssm


def pictures(n, seed, shift=0):
    rng = np.random.default_rng(seed)
    return rng.integers(shift, 200 + shift, size=(n, 4, 4, 3)).astype(np.uint8)


def test_alike_and_not():
    reference = pictures(300, 0)
    alike = dis_ssm.evaluate(pictures(300, 1), reference, resamples=20)
    apart = dis_ssm.evaluate(pictures(300, 1, shift=50), reference, resamples=20)
    assert list(alike.figures) == ["fid", "kid", "precision", "recall", "density", "coverage", "copies"]
    assert alike["fid"].value < apart["fid"].value and alike["copies"].value < 0.1
    low, high = apart["fid"].interval
    assert low < apart["fid"].value < high
    assert "fid" in str(alike)
    same = dis_ssm.evaluate(reference, reference, metrics=["fid", "copies"], resamples=0)
    assert same["fid"].value == pytest.approx(0, abs=1e-6) and same["copies"].value == 1
    assert same["fid"].interval is None


def test_data_by_name():
    report = dis_ssm.evaluate("digits-held-out", "digits-train", metrics="fid,pr", resamples=0)
    assert report["precision"].value > 0.5


def test_features_of_a_function():
    samples, reference = pictures(100, 0), pictures(80, 1)
    report = dis_ssm.evaluate(samples, reference, "fid", features=lambda x: x.reshape(len(x), -1)[:, :3], resamples=0)
    mean = np.reshape(samples, (100, -1))[:, :3].mean(0) - np.reshape(reference, (80, -1))[:, :3].mean(0)
    assert report["fid"].value >= (mean**2).sum()
    with pytest.raises(ValueError, match="features of samples have shape"):
        dis_ssm.evaluate(samples, reference, features=lambda x: x[:1, 0, 0])


def test_what_does_not_do():
    good = pictures(10, 0)
    for bad, error, words in (
        (good.astype(np.float32), TypeError, "samples is of type float32"),
        (good[0], ValueError, r"samples has shape \(4, 4, 3\)"),
        (good[:, :2], ValueError, "samples are of"),
        (good[:0], ValueError, "samples"),
        (None, TypeError, "samples is of type NoneType"),
        ("no-such-folder", ValueError, "samples: "),
    ):
        with pytest.raises(error, match=words):
            dis_ssm.evaluate(bad, good)
    with pytest.raises(ValueError, match="metrics: .*nonsense"):
        dis_ssm.evaluate(good, good, metrics=["nonsense"])
    left = dis_ssm.evaluate(good[:1], good, metrics=["fid"])
    assert "fid" in left.left_out
