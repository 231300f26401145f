"""What torch does around the operators: no gradients, compilation, threads, its own checks of an operator."""

import ast
import inspect
import pathlib
import threading

import pytest
import torch
from support import close, scan_arguments

import dis_ssm.torch
from dis_ssm.torch import (
    Mamba,
    causal_conv1d_fn,
    causal_conv1d_update,
    mamba_inner_fn,
    selective_scan_fn,
    selective_state_update,
)


def test_without_gradients():
    arguments = scan_arguments()
    arguments["u"].requires_grad_()
    with_gradients = selective_scan_fn(**arguments)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            y = selective_scan_fn(**arguments)
        assert not y.requires_grad
        assert torch.equal(y, with_gradients)


@pytest.mark.parametrize("keep", [False, True])
def test_torch_checks_the_scan(keep):
    arguments = scan_arguments(b="grouped", c="variable", channels=34)
    tensors = [value.requires_grad_(keep) for value in arguments.values()]
    u, delta, A, B, C, D, z, delta_bias, initial_state = tensors
    values = (
        u.transpose(1, 2), delta.transpose(1, 2), A, B.permute(0, 3, 1, 2), C.transpose(1, 2), D,
        z.transpose(1, 2), delta_bias, initial_state, True, False, False, keep, True,
    )  # fmt: skip
    checks = ["test_schema", "test_faketensor", "test_aot_dispatch_dynamic"]
    torch.library.opcheck(torch.ops.dis_ssm.selective_scan, values, test_utils=checks)


def test_torch_checks_the_other_operators():
    x, weight, bias = torch.randn(2, 9, 18), torch.randn(18, 4), torch.randn(18)
    operators = torch.ops.dis_ssm
    values = (x.requires_grad_(), weight.requires_grad_(), bias, torch.randn(2, 3, 18), True, False, False)
    torch.library.opcheck(operators.causal_conv1d, values)
    state = torch.randn(2, 4, 18)
    torch.library.opcheck(
        operators.causal_conv1d_update,
        (state, x.detach(), weight.detach(), bias, True),
        test_utils=["test_schema", "test_faketensor"],
    )
    row = torch.randn(2, 18)
    matrix = torch.randn(2, 5)
    values = (torch.randn(2, 18, 5), row, row, torch.randn(18, 5), matrix, matrix, bias, row, bias, True)
    torch.library.opcheck(
        operators.selective_state_update, values, test_utils=["test_schema", "test_faketensor"]
    )


def scan(**arguments):
    return selective_scan_fn(**arguments, delta_softplus=True)


def gradients(function, arguments):
    leaves = {name: value.detach().clone().requires_grad_() for name, value in arguments.items()}
    function(**leaves).square().sum().backward()
    return {name: leaf.grad for name, leaf in leaves.items()}


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_scan(dynamic):
    def step(**arguments):
        return torch.tanh(selective_scan_fn(**arguments, delta_softplus=True)) * 2

    compiled = torch.compile(step, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for length in (21, 34):
        arguments = scan_arguments(length=length, b="grouped")
        with torch.no_grad():
            close(compiled(**arguments), step(**arguments), "y", 1e-6)
        expected = gradients(step, arguments)
        for name, gradient in gradients(compiled, arguments).items():
            close(gradient, expected[name], name, 1e-5)


def test_compiled_updates():
    def step(x, conv_state, state, weight, A, B):
        u = causal_conv1d_update(x, conv_state, weight, activation="silu")
        return selective_state_update(state, u, u, A, B, B, dt_softplus=True) + 1

    x, weight, A, B = torch.randn(2, 18), torch.randn(18, 4), -torch.rand(18, 5), torch.randn(2, 5)
    states = torch.randn(2, 18, 4), torch.randn(2, 18, 5)
    copies = [state.clone() for state in states]
    y = torch.compile(step, fullgraph=True, backend="aot_eager")(x, *states, weight, A, B)
    close(y, step(x, *copies, weight, A, B), "y", 1e-6)
    for state, copy in zip(states, copies):
        close(state, copy, "state", 1e-6)


def test_compiled_module():
    # The default backend, which compiles C++: the memory order of results must be what was promised.
    torch.manual_seed(0)
    mixer = Mamba(24, d_state=6)
    compiled = torch.compile(mixer, fullgraph=True)
    x = torch.randn(2, 9, 24, requires_grad=True)
    y = compiled(x)
    close(y, mixer(x), "out", 1e-5)
    y.square().sum().backward()
    found = x.grad.clone()
    x.grad = None
    mixer(x).square().sum().backward()
    close(found, x.grad, "gradient", 1e-5)


def test_meta_tensors():
    arguments = {name: value.to("meta") for name, value in scan_arguments().items()}
    y = selective_scan_fn(**arguments)
    assert y.device.type == "meta" and y.shape == (2, 18, 21)


def test_several_threads():
    arguments = scan_arguments(channels=40, length=80)
    expected = gradients(scan, arguments)
    found = [None] * 8

    def work(number):
        for _ in range(5):
            found[number] = gradients(scan, arguments)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(found))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in found:
        for name, gradient in result.items():
            assert torch.equal(gradient, expected[name]), name


def test_checkpointing():
    from torch.utils.checkpoint import checkpoint

    arguments = scan_arguments()

    def again(**leaves):
        return checkpoint(lambda: scan(**leaves), use_reentrant=False)

    expected = gradients(scan, arguments)
    for name, gradient in gradients(again, arguments).items():
        assert torch.equal(gradient, expected[name]), name


def test_shared_memory_of_inputs():
    # One tensor in several places, and views of one buffer.
    u = torch.randn(2, 18, 9)
    A, B = -torch.rand(18, 5), torch.randn(2, 5, 9)
    close(
        selective_scan_fn(u, u, A, B, B, z=u, delta_softplus=True),
        selective_scan_fn(u, u.clone(), A, B, B.clone(), z=u.clone(), delta_softplus=True),
        "y",
        0.0,
    )


def test_second_derivatives_are_refused():
    arguments = scan_arguments()
    u = arguments["u"].requires_grad_()
    gradient = torch.autograd.grad(selective_scan_fn(**arguments).sum(), u, create_graph=True)[0]
    with pytest.raises(NotImplementedError, match="second derivatives"):
        gradient.sum().backward()


def test_inner_without_gradients_of_some():
    torch.manual_seed(3)
    xz = torch.randn(1, 8, 5, requires_grad=True)
    y = mamba_inner_fn(
        xz, torch.randn(4, 1, 2), None, torch.randn(5, 4), torch.randn(4, 1), torch.randn(3, 4), None, -torch.rand(4, 2)
    )  # fmt: skip
    y.sum().backward()
    assert xz.grad.isfinite().all()
    assert causal_conv1d_fn(xz, torch.randn(8, 3)).requires_grad


def test_stubs_say_what_is_there():
    tree = ast.parse(pathlib.Path(dis_ssm.torch.__file__).with_name("__init__.pyi").read_text())
    functions = {node.name: node.args for node in tree.body if isinstance(node, ast.FunctionDef)}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            methods = (part for part in node.body if isinstance(part, ast.FunctionDef))
            functions.update({f"{node.name}.{method.name}": method.args for method in methods})
    names = {name.partition(".")[0] for name in functions} | {"BiMamba"}
    assert names == set(dis_ssm.torch.__all__)
    for name, arguments in functions.items():
        found = dis_ssm.torch
        for part in name.split("."):
            found = getattr(found, part)
        stub = [argument.arg for argument in arguments.args + arguments.kwonlyargs]
        there = [
            name
            for name, value in inspect.signature(found).parameters.items()
            if value.kind != value.VAR_KEYWORD
        ]
        assert stub == there, name
