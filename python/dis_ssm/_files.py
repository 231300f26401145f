"""Dictionaries of arrays in ``.pt`` and safetensors files."""

import os

import numpy as np

from . import _native


def load_state_dict(path, entry=None):
    """Reads the tensors of a safetensors or ``.pt`` file: a dictionary of arrays in the order of the file.

    A ``.pt`` file is read without running anything of it. ``entry`` names the dictionary in it (``"ema"``, ``"raw"`` for
    the weights as they were trained, or a path such as ``"model/encoder"``); by default the moving average if there is
    one, else the weights. Bfloat16 becomes ml_dtypes' type if that is installed, else float32.

    Raises ValueError with what is wrong with the file, FileNotFoundError if there is none.
    """
    state = {}
    for name, type_name, shape, data in _native.load_tensors(os.fspath(path), entry):
        if type_name == "bfloat16":
            array = _bfloat16(np.frombuffer(data, np.uint16))
        else:
            array = np.frombuffer(data, type_name)
        state[name] = array.reshape(shape)
    return state


def _bfloat16(bits):
    try:
        from ml_dtypes import bfloat16
    except ImportError:
        # The upper half of a float32.
        return (bits.astype(np.uint32) << 16).view(np.float32)
    return bits.view(bfloat16)


def save_state_dict(state, path, entry="model", metadata=None):
    """Writes a dictionary of arrays (or of CPU tensors) to a file, atomically: safetensors, or ``.pt`` by its name.

    A ``.pt`` file (``.pt``, ``.pth``) holds ``{entry: {name: tensor}}``, of float32; ``torch.load`` reads it, also with
    ``weights_only=True``. ``metadata`` is a dictionary of texts for safetensors.
    """
    path = os.fspath(path)
    is_torch = path.endswith((".pt", ".pth"))
    if not is_torch and not path.endswith(".safetensors"):
        raise ValueError(f"path is {path!r}, expected a name that ends in .safetensors, .pt or .pth")
    if is_torch and metadata is not None:
        raise ValueError("metadata is for safetensors only")
    tensors = []
    for name, value in state.items():
        if not isinstance(name, str):
            raise TypeError(f"a key of state is of type {type(name).__name__}, expected str")
        if hasattr(value, "detach"):
            value = value.detach()
            if str(value.dtype) == "torch.bfloat16":
                value = value.float()
            value = value.numpy()
        if not isinstance(value, np.ndarray):
            raise TypeError(f"tensor {name!r} is of type {type(value).__name__}, expected a NumPy array")
        if not value.dtype.isnative:
            value = value.astype(value.dtype.newbyteorder("="))
        shape = value.shape
        data = np.ascontiguousarray(value).reshape(-1)
        if data.dtype.hasobject:
            raise TypeError(f"tensor {name!r} is of type {data.dtype}, which files do not have")
        tensors.append((name, data.dtype.name, shape, data.view(np.uint8)))
    _native.save_tensors(path, tensors, entry if is_torch else None, metadata)
