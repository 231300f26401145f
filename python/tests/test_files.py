import pathlib
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dis_ssm

TYPES = ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool"]


@given(st.lists(st.tuples(st.sampled_from(TYPES), st.lists(st.integers(0, 4), max_size=4)), max_size=5))
def test_safetensors_come_back(tmp_path_factory, tensors):
    rng = np.random.default_rng(0)
    state = {f"layer.{i}": rng.integers(0, 2, size=shape).astype(dtype) for i, (dtype, shape) in enumerate(tensors)}
    if not state:
        return
    path = tmp_path_factory.mktemp("files") / "x.safetensors"
    dis_ssm.save_state_dict(state, path, metadata={"made by": "a test"})
    found = dis_ssm.load_state_dict(path)
    assert found.keys() == state.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype and found[name].flags.writeable


def test_torch_files_come_back(tmp_path):
    state = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3).T, "scale": np.float32([1.5]).reshape(())}
    path = tmp_path / "x.pt"
    dis_ssm.save_state_dict(state, path, entry="ema")
    found = dis_ssm.load_state_dict(path)
    assert list(found) == list(state)
    for name, array in state.items():
        np.testing.assert_array_equal(found[name], array)
    assert dis_ssm.load_state_dict(path, "ema").keys() == state.keys()
    with pytest.raises(ValueError, match="x.pt"):
        dis_ssm.load_state_dict(path, "other")
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


def test_a_checkpoint_goes_through_both_kinds(tmp_path):
    digits = dis_ssm.Pipeline.from_pretrained("digits")
    source = pathlib.Path(__file__).parents[2] / "crates/dis-cli/assets/digits.safetensors"
    if not source.exists():
        pytest.skip("outside the repository")
    state = dis_ssm.load_state_dict(source)
    assert sum(array.size for array in state.values()) == digits.num_parameters
    dis_ssm.save_state_dict(state, tmp_path / "digits.pt")
    again = dis_ssm.load_state_dict(tmp_path / "digits.pt")
    assert all((again[name] == array).all() for name, array in state.items())


def test_bfloat16_is_read_exactly(tmp_path):
    header = b'{"x":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    bits = np.array([0x3FC0, 0xC049], np.uint16).tobytes()
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bits)
    found = dis_ssm.load_state_dict(tmp_path / "x.safetensors")["x"]
    np.testing.assert_array_equal(found.astype(np.float32), np.float32([1.5, -3.140625]))


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_what_is_refused(tmp_path):
    state = {"x": np.ones(3, np.float32)}
    with pytest.raises(ValueError, match="ends in .safetensors"):
        dis_ssm.save_state_dict(state, tmp_path / "x.bin")
    with pytest.raises(TypeError, match='"x" is of type F64'):
        dis_ssm.save_state_dict({"x": np.ones(3)}, tmp_path / "x.pt")
    for bad in ({"x": [1.0]}, {1: np.ones(2)}, {"x": np.array([object()])}, {"x": np.array(["text"])}):
        with pytest.raises(TypeError):
            dis_ssm.save_state_dict(bad, tmp_path / "x.safetensors")
    with pytest.raises(FileNotFoundError):
        dis_ssm.load_state_dict(tmp_path / "missing.safetensors")
    assert list(tmp_path.iterdir()) == []
    with zipfile.ZipFile(tmp_path / "evil.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"x": Evil()}, protocol=2))
    with pytest.raises(ValueError, match="evil.pt"):
        dis_ssm.load_state_dict(tmp_path / "evil.pt")


@given(st.binary(max_size=200))
def test_any_bytes_are_an_error_in_words(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("bytes") / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="x.safetensors"):
        dis_ssm.load_state_dict(path)
