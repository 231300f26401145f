"""`dis_ssm.compat`: what becomes importable, what is left alone, and the extensions' own functions.

Imports are tried in processes of their own, since a process imports a name once.
"""

import os
import subprocess
import sys
import textwrap

import pytest
import torch
from support import close, leaves, scan_arguments

from dis_ssm.compat import _extensions
from dis_ssm.torch.reference import causal_conv1d_ref, selective_scan_ref


def run(code, *options, path=(), cwd=None, check=True):
    """What a fresh interpreter prints."""
    environment = dict(
        os.environ, PYTHONPATH=os.pathsep.join([*map(str, path), os.environ.get("PYTHONPATH", "")])
    )
    command = [sys.executable, "-W", "ignore", *options] + (["-c", textwrap.dedent(code)] if code else [])
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stderr
    return done if not check else done.stdout.strip()


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return folder


def test_everything_is_importable():
    printed = run(
        """
        import importlib, importlib.metadata, importlib.util
        import dis_ssm.compat
        from dis_ssm.compat._modules import CONTENTS
        assert importlib.util.find_spec("mamba_ssm") is None
        names = dis_ssm.compat.install()
        assert dis_ssm.compat.install() == names
        for name in CONTENTS:
            spec = importlib.util.find_spec(name)
            module = importlib.import_module(name)
            assert module.__spec__.name == spec.name == name, name
        import mamba_ssm, causal_conv1d
        assert mamba_ssm.ops.triton.selective_state_update.selective_state_update
        for package in (mamba_ssm, causal_conv1d):
            name = package.__name__
            assert importlib.metadata.version(name) == package.__version__
            assert importlib.metadata.version(name.replace("_", "-")) == package.__version__
        for absent in ("mamba_ssm.ops.triton.ssd_combined", "mamba_ssm.modules.mamba2"):
            try:
                importlib.import_module(absent)
            except ModuleNotFoundError as error:
                assert absent in str(error)
            else:
                raise AssertionError(absent)
        dis_ssm.compat.uninstall()
        assert importlib.util.find_spec("mamba_ssm") is None
        print(names)
        """
    )
    assert printed == "('mamba_ssm', 'causal_conv1d', 'selective_scan_cuda', 'causal_conv1d_cuda')"


def test_installing_imports_no_torch():
    run(
        """
        import sys
        import dis_ssm.compat
        dis_ssm.compat.install()
        assert "torch" not in sys.modules
        """
    )


def test_installed_extensions_win(tmp_path):
    folder = write(
        tmp_path,
        {
            "selective_scan_cuda.py": "",
            "mamba_ssm/__init__.py": "real = True",
            "causal_conv1d_cuda.py": "",
            "causal_conv1d/__init__.py": "real = True",
        },
    )
    code = """
        import dis_ssm.compat
        print(dis_ssm.compat.install(force={force}))
        import mamba_ssm, causal_conv1d
        print(hasattr(mamba_ssm, "real"), hasattr(causal_conv1d, "real"))
        """
    assert run(code.format(force=False), path=[folder]) == "()\nTrue True"
    assert run(code.format(force=True), path=[folder]).endswith("False False")


def test_of_a_fork_only_what_needs_a_gpu_is_replaced(tmp_path):
    fork = {
        "mamba_ssm/__init__.py": "from mamba_ssm.mixer import kind",
        "mamba_ssm/mixer.py": """
            from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
            from mamba_ssm.ops.triton.layernorm import RMSNorm
            from mamba_ssm.ops.extra import extra
            kind = "fork"
            """,
        "mamba_ssm/ops/__init__.py": "",
        "mamba_ssm/ops/extra.py": "extra = 1",
        "mamba_ssm/ops/selective_scan_interface.py": "import no_such_extension",
        "mamba_ssm/ops/triton/__init__.py": "",
        "mamba_ssm/ops/triton/layernorm.py": "import no_such_triton",
    }
    code = """
        import dis_ssm.compat
        dis_ssm.compat.install()
        import {prefix}mamba_ssm as fork
        from {prefix}mamba_ssm.ops.selective_scan_interface import selective_scan_fn
        print(fork.kind, selective_scan_fn.__module__)
        """
    on_the_path = write(tmp_path / "path", fork)
    assert run(code.format(prefix=""), path=[on_the_path]) == "fork dis_ssm.torch._scan"
    inside = {
        "vendor/" + name: text.replace("from mamba_ssm", "from vendor.mamba_ssm")
        for name, text in fork.items()
    }
    folder = write(tmp_path / "inside", {"vendor/__init__.py": "", **inside})
    assert run(code.format(prefix="vendor."), path=[folder]) == "fork dis_ssm.torch._scan"


def test_too_late(tmp_path):
    folder = write(tmp_path, {"causal_conv1d/__init__.py": ""})
    code = """
        import causal_conv1d
        import dis_ssm.compat
        try:
            dis_ssm.compat.install()
        except RuntimeError as error:
            print(error)
        """
    assert "causal_conv1d was imported before" in run(code, path=[folder])


def test_programs(tmp_path):
    write(
        tmp_path,
        {
            "program.py": """
                import sys
                import beside
                from mamba_ssm import Mamba
                print(__name__, sys.argv[1:], Mamba.__name__, beside.value)
                """,
            "beside.py": "value = 3",
        },
    )
    expected = "__main__ ['a', '--b'] Mamba 3"
    assert run(None, "-m", "dis_ssm.compat", str(tmp_path / "program.py"), "a", "--b") == expected
    assert run(None, "-m", "dis_ssm.compat", "-m", "program", "a", "--b", cwd=tmp_path) == expected
    assert "usage" in run(None, "-m", "dis_ssm.compat", "--help")
    for wrong, words in (((), "usage"), (("-m",), "usage"), (("missing.py",), "no such file: missing.py")):
        done = run(None, "-m", "dis_ssm.compat", *wrong, check=False)
        assert done.returncode == 2 and words in done.stderr


@pytest.mark.parametrize("gate", [False, True])
def test_scan_extension(gate):
    arguments = scan_arguments(options=("D", "delta_bias", "z") if gate else ("D",))
    values = [arguments.get(name) for name in ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")]
    out, x, *gated = _extensions.fwd(*values, True)
    wide = leaves(arguments, torch.float64)
    expected, last = selective_scan_ref(**wide, delta_softplus=True, return_last_state=True)
    close(x[:, :, -1, 1::2], last, "last state", 1e-5)
    close(gated[0] if gate else out, expected, "out", 1e-5)
    dout = torch.randn(out.shape)
    dz = torch.empty_like(dout) if gate else None
    grads = _extensions.bwd(*values, dout, x, out, dz, True, gate)
    (expected * dout.double()).sum().backward()
    names = ["u", "delta", "A", "B", "C", "D", "delta_bias"] + (["z"] if gate else [])
    for name, gradient in zip(names, grads):
        if name in wide:
            close(gradient, wide[name].grad, f"gradient of {name}", 5e-5)
        else:
            assert gradient is None
    if gate:
        assert grads[7] is dz
        close(grads[8], expected, "gated output", 1e-5)


def test_conv_extension():
    x, weight, bias = torch.randn(2, 18, 9), torch.randn(18, 4), torch.randn(18)
    expected = causal_conv1d_ref(x, weight, bias, activation="silu")
    close(_extensions.causal_conv1d_fwd(x, weight, bias, True), expected, "first releases", 1e-6)
    close(_extensions.causal_conv1d_fwd(x, weight, bias, None, None, None, True), expected, "from 1.2", 1e-6)
    room, final = torch.empty_like(x), torch.empty(2, 18, 3)
    _extensions.causal_conv1d_fwd(x, weight, bias, None, None, room, final, True)
    close(room, expected, "from 1.5", 1e-6)
    assert torch.equal(final, x[..., -3:])
    with pytest.raises(TypeError, match="5 arguments"):
        _extensions.causal_conv1d_fwd(x, weight, bias, None, True)
    wide = leaves({"x": x, "weight": weight, "bias": bias}, torch.float64)
    dout = torch.randn(x.shape)
    (causal_conv1d_ref(**wide, activation="silu") * dout.double()).sum().backward()
    grads = _extensions.causal_conv1d_bwd(x, weight, bias, dout, room, True)
    assert grads[0] is room
    for (name, value), gradient in zip(wide.items(), grads):
        close(gradient, value.grad, f"gradient of {name}", 1e-5)


@pytest.fixture(scope="module")
def language_model():
    from dis_ssm.compat._language import MambaConfig, MambaLMHeadModel

    torch.manual_seed(0)
    config = MambaConfig(d_model=32, n_layer=3, vocab_size=50, ssm_cfg={"d_state": 8})
    return MambaLMHeadModel(config).eval()


def test_generation_is_what_whole_sequences_give(language_model):
    tokens = torch.randint(0, 50, (2, 5))
    found = language_model.generate(tokens, 12, return_dict_in_generate=True, output_scores=True)
    assert found.sequences.shape == (2, 12) and torch.equal(found.sequences[:, :5], tokens)
    with torch.no_grad():
        logits = language_model(found.sequences).logits
    assert logits.shape == (2, 12, 56)
    close(torch.stack(found.scores, dim=1), logits[:, 4:11], "logits", 1e-5)
    assert torch.equal(found.sequences[:, 5:], logits[:, 4:11].argmax(-1))
    drawn = language_model.generate(tokens, 9, top_k=3, top_p=0.9, temperature=0.7)
    assert drawn.shape == (2, 9)
    with pytest.raises(TypeError, match="teacher_outputs"):
        language_model.generate(tokens, 9, teacher_outputs=tokens)


def test_published_names_of_the_language_model(language_model):
    names = set(language_model.state_dict())
    assert {"backbone.embedding.weight", "backbone.norm_f.weight", "lm_head.weight"} <= names
    assert {"backbone.layers.2.norm.weight", "backbone.layers.2.mixer.A_log"} <= names
    assert language_model.lm_head.weight is language_model.backbone.embedding.weight


def test_saving_and_reading(language_model, tmp_path):
    from dis_ssm.compat._language import MambaLMHeadModel

    language_model.save_pretrained(str(tmp_path))
    again = MambaLMHeadModel.from_pretrained(str(tmp_path)).eval()
    tokens = torch.randint(0, 50, (1, 4))
    with torch.no_grad():
        assert torch.equal(again(tokens).logits, language_model(tokens).logits)


def test_mamba_2_is_refused_in_words():
    from dis_ssm.compat._language import MambaConfig, MambaLMHeadModel

    with pytest.raises(NotImplementedError, match="Mamba2 layers are not available"):
        MambaLMHeadModel(MambaConfig(d_model=32, n_layer=1, vocab_size=50, ssm_cfg={"layer": "Mamba2"}))


def test_the_older_order_of_arguments():
    from dis_ssm.compat import _norms
    from dis_ssm.torch import layer_norm_fn, rms_norm_fn

    x, weight, bias, residual = torch.randn(2, 8), torch.randn(8), torch.randn(8), torch.randn(2, 8)
    old = _norms.layer_norm_fn(x, weight, bias, residual, 1e-3, True, True)
    new = layer_norm_fn(x, weight, bias, residual, eps=1e-3, prenorm=True, residual_in_fp32=True)
    assert all(torch.equal(a, b) for a, b in zip(old, new))
    old = _norms.rms_norm_fn(x, weight, None, residual, True, True, 1e-3)
    new = rms_norm_fn(x, weight, None, residual, eps=1e-3, prenorm=True, residual_in_fp32=True)
    assert all(torch.equal(a, b) for a, b in zip(old, new))
