"""Tilewright functions on tensors: tw.torch.function and tw.jit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch_harness import compiled

import tilewright as tw
from tilewright.torch import function
from tilewright.torch.differentiable import Entry


def network(x: Any, w: Any, scale: Any, idx: Any = None, mode: str = "plain") -> Any:
    hidden = np.tanh(x @ w["a"] + w["b"]) * scale
    if mode == "twice":
        hidden = hidden * 2
    if idx is not None:
        hidden = np.take(hidden, idx, axis=1)
    return {"out": hidden, "sum": (hidden * hidden).sum(axis=1), "best": hidden.argmax(axis=1)}


def reference(x: Any, w: Any, scale: Any, idx: Any = None, mode: str = "plain") -> Any:
    hidden = torch.tanh(x @ w["a"] + w["b"]) * scale * (2 if mode == "twice" else 1)
    if idx is not None:
        hidden = hidden[:, idx]
    return {"out": hidden, "sum": (hidden * hidden).sum(1), "best": hidden.argmax(1)}


def arguments(dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    return [torch.randn(*s, dtype=dtype, requires_grad=True) for s in ((3, 4), (4, 5), (5,))]


lifted = function(network)
INDEX = torch.tensor([0, 2, 2])


def test_values_and_gradients() -> None:
    x, a, b = arguments(torch.float32)
    for options in ({}, {"idx": INDEX}, {"idx": INDEX, "mode": "twice"}):
        made = lifted(x, {"a": a, "b": b}, 2.0, **options)
        expected = reference(x, {"a": a, "b": b}, 2.0, **options)
        assert not made["best"].requires_grad and made["best"].dtype is torch.int64
        torch.testing.assert_close(made, expected)
        found, right = (
            torch.autograd.grad(r["out"].sin().sum() + r["sum"].sum(), (x, a, b))
            for r in (made, expected))
        torch.testing.assert_close(found, right)


def test_every_order() -> None:
    x, a, b = arguments()

    def f(x: Any, a: Any, b: Any) -> Any:
        made = lifted(x, {"a": a, "b": b}, 2.0, idx=INDEX)
        return made["out"], made["sum"]
    assert gradcheck(f, (x, a, b))
    assert gradgradcheck(f, (x, a, b))
    # Third order, of one input, with another that needs none.
    fixed = {"a": a.detach(), "b": b.detach()}

    def second(x: Any) -> Any:
        loss = lifted(x, fixed, 0.5)["sum"].sum()
        (g,) = torch.autograd.grad(loss, x, create_graph=True)
        (h,) = torch.autograd.grad((g ** 2).sum(), x, create_graph=True)
        return h
    assert gradcheck(second, (x,))


def test_only_what_is_needed_and_given() -> None:
    x, a, b = arguments()
    made = lifted(x.detach(), {"a": a, "b": b.detach()}, 2.0)
    (g,) = torch.autograd.grad(made["sum"].sum(), a)
    expected = reference(x.detach(), {"a": a, "b": b.detach()}, 2.0)
    torch.testing.assert_close(g, torch.autograd.grad(expected["sum"].sum(), a)[0])
    with torch.no_grad():
        assert not lifted(x, {"a": a, "b": b}, 2.0)["out"].requires_grad


def test_functional_transforms() -> None:
    x, a, b = (t.detach() for t in arguments())

    def loss(f: Any) -> Any:
        return lambda x: f(x, {"a": a, "b": b}, 2.0)["sum"].sum()
    ours, theirs = loss(lifted), loss(reference)
    torch.testing.assert_close(torch.func.grad(ours)(x), torch.func.grad(theirs)(x))
    torch.testing.assert_close(torch.func.hessian(ours)(x), torch.func.hessian(theirs)(x))
    tangent = torch.randn_like(x)
    torch.testing.assert_close(
        torch.func.jvp(ours, (x,), (tangent,)), torch.func.jvp(theirs, (x,), (tangent,)))
    rows = torch.randn(2, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(torch.func.vmap(ours)(rows), torch.func.vmap(theirs)(rows))
    torch.testing.assert_close(
        torch.func.vmap(torch.func.grad(ours))(rows),
        torch.func.vmap(torch.func.grad(theirs))(rows))


def test_forward_mode() -> None:
    x, a, b = arguments()
    assert gradcheck(
        lambda x, a: lifted(x, {"a": a, "b": b.detach()}, 2.0)["sum"], (x, a),
        check_forward_ad=True)


def test_inside_a_compiled_model() -> None:
    x, a, b = arguments(torch.float32)

    def model(f: Any) -> Any:
        return lambda x, a, b: f(x.sin(), {"a": a, "b": b}, 2.0, idx=INDEX)["out"].exp().sum()
    run = compiled(model(lifted))
    made, expected = run(x, a, b), model(reference)(x, a, b)
    torch.testing.assert_close(made, expected)
    torch.testing.assert_close(
        torch.autograd.grad(made, (x, a, b)), torch.autograd.grad(expected, (x, a, b)))
    report = tw.torch.report(run)
    assert len(report.graphs) == 1 and not report.fallbacks
    torch._dynamo.reset()
    other = torch.compile(model(lifted), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(other(x, a, b), expected)


@dataclass
class Pair:
    left: Any
    right: Any


def test_trees_and_static_values() -> None:
    traced = []

    @function
    def f(pair: Any, axis: int, flag: bool, nothing: None = None) -> Any:
        traced.append(axis)
        total = pair.left.sum(axis=axis) + pair.right[0]
        return Pair((total if flag else -total), [nothing, total * 2])
    x, y = torch.randn(3, 4), torch.randn(())
    made = f(Pair(x, (y,)), 0, True)
    torch.testing.assert_close(made.left, x.sum(0) + y)
    assert made.right[0] is None
    torch.testing.assert_close(f(Pair(x, (y,)), axis=1, flag=False).left, -(x.sum(1) + y))
    f(Pair(x + 1, (y,)), 0, True)
    f(Pair(x.numpy(), (y,)), 0, True)
    assert traced == [0, 1]


def test_results_have_memory_of_their_own_and_inputs_are_read_in_place() -> None:
    x = torch.arange(6.0).reshape(2, 3)
    same = function(lambda x: (x, x))
    a, b = same(x)
    assert len({t.data_ptr() for t in (x, a, b)}) == 3
    torch.testing.assert_close(same(x.t())[0], x.t())


@pytest.mark.parametrize("dtype", [
    torch.float32, torch.float16, torch.bfloat16, torch.int32, torch.uint8, torch.bool])
def test_element_types(dtype: torch.dtype) -> None:
    x = torch.tensor([0, 1, 1, 0]).to(dtype)
    made = function(lambda x: np.where(x > 0, x, x))(x)
    assert made.dtype is dtype and torch.equal(made, x)


def refused(kind: type[Exception], f: Any, *args: Any) -> str:
    with pytest.raises(kind) as raised:
        f(*args)
    assert raised.value.loc is not None and raised.value.loc.file == __file__
    return str(raised.value).split("\n  at:")[0]


def test_errors() -> None:
    f = function(lambda x, y: x + y["z"])
    good = torch.ones(3)
    assert refused(tw.DTypeError, f, good, {"z": torch.ones(3, dtype=torch.complex64)}) == (
        "the argument y['z'] has an element type that is not supported\n"
        "  expected: a tensor of one of bool, uint8, uint16, uint32, uint64, int8, int16, int32, "
        "int64, float16, bfloat16, float32, float64\n"
        "  got:      torch.complex64")
    for make in (function, tw.jit):
        g = make(lambda x: x + 1)
        assert refused(tw.Unsupported, g, torch.empty(3, device="meta")) == (
            "the argument x is a tensor on meta\n"
            "  expected: a tensor on the CPU or a CUDA device\n"
            "  got:      meta")
        assert "sparse" in refused(tw.Unsupported, g, torch.eye(3).to_sparse())
    with pytest.raises(tw.TraceError, match="takes a function"):
        function(3)  # type: ignore[arg-type]


# --- tw.jit ---------------------------------------------------------------------------------
@tw.jit
def step(params: Any, x: Any, rate: Any) -> Any:
    return {"w": params["w"] - rate * x.sum(), "n": params["n"] + 1}


@pytest.mark.parametrize("f", [
    torch.sin, torch.nn.Linear(4, 4), torch.nn.functional.relu, lambda x: x @ INDEX,
    lambda x: INDEX + x, lambda x: INDEX ** x, lambda x: INDEX == x, lambda x: INDEX[x],
])
def test_pytorch_within_a_function(f: Any) -> None:
    for wrap in (function, tw.jit):
        with pytest.raises(tw.TraceError, match="cannot be traced") as caught:
            wrap(lambda x: f(x))(torch.ones(3, 4))
        loc = caught.value.loc
        assert loc is not None and loc.file == __file__ and "NumPy" in str(caught.value)


def test_jit_takes_and_gives_tensors() -> None:
    w, x = torch.randn(4), torch.ones(3)
    made = step({"w": w, "n": 3}, x, 0.5)
    torch.testing.assert_close(made["w"], w - 0.5 * 3)
    assert isinstance(made["n"], torch.Tensor) and made["n"].item() == 4
    again = step({"w": w.numpy(), "n": 3}, x.numpy(), 0.5)
    assert isinstance(again["w"], np.ndarray)
    assert len(step.history) == 1, "tensors and arrays of the same types share a compilation"
    mixed = step({"w": w.numpy(), "n": 3}, x, 0.5)
    assert isinstance(mixed["w"], torch.Tensor)
    assert len(step.history) == 1


def test_jit_is_differentiable() -> None:
    w, x = torch.randn(4, requires_grad=True), torch.ones(3, requires_grad=True)
    step({"w": w, "n": 3}, x, 0.5)["w"].sum().backward()
    torch.testing.assert_close(w.grad, torch.ones(4))
    torch.testing.assert_close(x.grad, torch.full((3,), -2.0))
    with torch.no_grad():
        assert not step({"w": w, "n": 3}, x, 0.5)["w"].requires_grad
    torch.testing.assert_close(
        torch.func.grad(lambda w: step({"w": w, "n": 3}, x.detach(), 0.5)["w"].sum())(w.detach()),
        torch.ones(4))


def test_jit_with_static_arguments_and_threads() -> None:
    @tw.jit(static_argnames="axis", threads=1)
    def total(x: Any, axis: int) -> Any:
        return x.sum(axis=axis)
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    for axis in (0, 1):
        torch.testing.assert_close(total(x, axis=axis), x.sum(axis))
        torch.testing.assert_close(total(x.detach(), axis), x.detach().sum(axis))
    assert gradcheck(lambda x: total(x, 0), (x,))


def test_jit_with_named_sizes() -> None:
    square = tw.jit(lambda x: (x * x).sum(axis=0), dynamic={"x": {0: "n"}})
    for n in (3, 5, 7):
        x = torch.randn(n, 2, requires_grad=True)
        torch.testing.assert_close(square(x.detach()), (x * x).sum(0).detach())
        (g,) = torch.autograd.grad(square(x).sum(), x)
        torch.testing.assert_close(g, 2 * x)


def test_bf16_and_strides() -> None:
    x = torch.randn(4, 6).to(torch.bfloat16)
    double = tw.jit(lambda x: x * 2)
    assert torch.equal(double(x), x * 2)
    assert torch.equal(double(x.t()[::2]), x.t()[::2] * 2)
    z = torch.view_as_complex(torch.randn(3, 2))
    assert torch.equal(double(z.conj().imag), z.conj().imag * 2)


def test_entries_keep_what_is_dear_and_compute_the_rest_again() -> None:
    lowered = tw.jit(lambda x, w: np.tanh(x @ w) * 2).lower(np.ones((4, 4)), np.ones((4, 4)))
    forward, backward, parts = Entry(lowered.graph).parts((0, 1))
    assert len(parts.kept) == 1
    assert [n.op.name for n in forward.graph.nodes()].count("contract") == 1
    ops = [n.op.name for n in backward.graph.nodes()]
    assert ops.count("contract") == 2 and "tanh" in ops
