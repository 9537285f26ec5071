"""PyTorch's modes over compiled models: what users combine torch.compile with."""

from __future__ import annotations

import copy
import io
import pickle
import threading
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch_harness import compiled, same

from tilewright.torch import backend, report


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 4))


def gradients_agree(model: nn.Module, twin: nn.Module, **tolerance: Any) -> None:
    for (name, a), b in zip(model.named_parameters(), twin.parameters(), strict=True):
        if b.grad is None:
            assert a.grad is None, name
        else:
            torch.testing.assert_close(a.grad, b.grad, **tolerance, msg=name)


# --- precision and memory -----------------------------------------------------------------
def test_autocast_trains() -> None:
    model = mlp()
    twin = copy.deepcopy(model)
    run = compiled(model)
    x, y = torch.randn(32, 8), torch.randn(32, 4)
    curves = []
    for net, own in ((run, model), (twin, twin)):
        steps = torch.optim.SGD(own.parameters(), lr=0.1)
        curve = []
        for _ in range(5):
            steps.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                made = net(x)
                assert made.dtype is torch.bfloat16
                loss = nn.functional.mse_loss(made.float(), y)
            loss.backward()
            steps.step()
            curve.append(loss.item())
        curves.append(curve)
    torch.testing.assert_close(curves[0], curves[1], rtol=1e-2, atol=1e-2)
    assert curves[0][-1] < curves[0][0]
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert a.dtype is torch.float32
        torch.testing.assert_close(a, b, rtol=2e-2, atol=1e-2)


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.between, self.last = mlp(), nn.Linear(4, 8), mlp()
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = checkpoint(self.first, x, use_reentrant=False)
        return checkpoint(
            lambda x: self.drop(self.last(x)), self.between(x), use_reentrant=False)


def test_checkpointing() -> None:
    model = Checkpointed()
    twin = copy.deepcopy(model)
    x = torch.randn(5, 8)
    for net in (compiled(model), twin):
        torch.manual_seed(4)
        net(x).sum().backward()
    gradients_agree(model, twin, rtol=1e-4, atol=1e-5)


# --- torch.func ---------------------------------------------------------------------------
def wave(x: torch.Tensor) -> torch.Tensor:
    return (x.sin() * x).sum()


def test_transforms_of_compiled_functions() -> None:
    run = torch.compile(wave, backend=backend)
    x, t = torch.randn(6), torch.randn(6)
    same(torch.func.grad(run)(x), torch.func.grad(wave)(x))
    same(torch.func.vmap(run)(x.view(2, 3)), torch.func.vmap(wave)(x.view(2, 3)))
    same(torch.func.jvp(run, (x,), (t,)), torch.func.jvp(wave, (x,), (t,)))


LINEAR = nn.Linear(6, 2)


def per_sample(params: Any, x: torch.Tensor) -> Any:
    def loss(params: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x @ params["w"] + params["b"]).square().sum()
    return torch.func.vmap(torch.func.grad(loss), (None, 0))(params, x)


@pytest.mark.parametrize("function", [
    lambda x, w: torch.func.grad(wave)(x),
    lambda x, w: torch.func.vmap(lambda row: torch.tanh(w @ row))(x),
    lambda x, w: torch.func.jvp(lambda y: torch.tanh(y) * y, (x,), (x.cos(),)),
    lambda x, w: per_sample({"w": w.t(), "b": w[:, 0]}, x),
    lambda x, w: torch.func.functional_call(LINEAR, {"weight": w, "bias": w[:, 0]}, (x,)),
], ids=["grad", "vmap", "jvp", "per-sample", "functional-call"])
def test_compiled_transforms(function: Any) -> None:
    x, w = torch.randn(3, 6), torch.randn(2, 6)
    same(compiled(function)(x, w), function(x, w), rtol=1e-4, atol=1e-5)


# --- optimisers ---------------------------------------------------------------------------
OPTIMISERS = {
    "SGD": {"lr": 0.1, "momentum": 0.9}, "Adam": {"lr": 1e-2},
    "AdamW": {"lr": 1e-2, "weight_decay": 0.1},
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_compiled_optimiser_step(name: str) -> None:
    """In place, in one graph, in far fewer kernels than parameters have steps."""
    model = nn.Sequential(*[nn.Linear(8, 8) for _ in range(6)])
    twin = copy.deepcopy(model)
    made, plain = (
        getattr(torch.optim, name)(m.parameters(), **OPTIMISERS[name]) for m in (model, twin))
    places = [p.data_ptr() for p in model.parameters()]
    step = torch.compile(made.step, backend=backend, options={"fallback": False})
    for _ in range(4):
        x = torch.randn(4, 8)
        for net, run in ((model, step), (twin, plain.step)):
            net.zero_grad()
            net(x).square().sum().backward()
            run()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert places == [p.data_ptr() for p in model.parameters()]
    for a, b in zip(made.state.values(), plain.state.values(), strict=True):
        torch.testing.assert_close(dict(a), dict(b), rtol=1e-4, atol=1e-5)
    found = report(step)
    assert not found.breaks and not found.fallbacks
    assert all(p.kernels <= 2 * 6 for g in found.graphs for p in g.programs), str(found)


def test_an_optimiser_step_copies_nothing() -> None:
    from tilewright.torch.records import regions_of
    model = nn.Sequential(*[nn.Linear(8, 8) for _ in range(3)])
    steps = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    step = torch.compile(steps.step, backend=backend, options={"fallback": False})
    for _ in range(3):
        model(torch.randn(2, 8)).sum().backward()
        step()
    (program,) = regions_of(step)[-1].records[0].programs
    assert len(program.updates) == 12 and all(placed for _, _, placed in program.updates)
    assert all(not part.copies for part in program.parts)


def test_compiled_autograd() -> None:
    model = mlp()
    twin = copy.deepcopy(model)
    x = torch.randn(5, 8)
    twin(x).sum().backward()

    def train(x: torch.Tensor) -> None:
        model(x).sum().backward()
    with torch._dynamo.config.patch(compiled_autograd=True):
        torch.compile(train, backend=backend, options={"fallback": False})(x)
    gradients_agree(model, twin, rtol=1e-4, atol=1e-5)


# --- who requires gradients ---------------------------------------------------------------
def test_no_grad_and_inference_mode() -> None:
    model, x = mlp(), torch.randn(5, 8)
    run = compiled(model)
    with torch.no_grad():
        made = run(x)
        assert not made.requires_grad
        same(made, model(x))
    with torch.inference_mode():
        made = run(x)
        assert made.is_inference()
        same(made, model(x))
    made = run(x)
    assert made.requires_grad
    same(made, model(x))


def test_frozen_parameters_and_inputs_that_require_gradients() -> None:
    model = mlp()
    for p in model[0].parameters():  # type: ignore[index]
        p.requires_grad_(False)
    twin = copy.deepcopy(model)
    x, y = (torch.ones(5, 8).requires_grad_() for _ in range(2))
    compiled(model)(x).sum().backward()
    twin(y).sum().backward()
    gradients_agree(model, twin, rtol=1e-4, atol=1e-5)
    same(x.grad, y.grad, rtol=1e-4, atol=1e-5)


def test_detach_and_no_grad_inside() -> None:
    def f(x: torch.Tensor, y: torch.Tensor) -> Any:
        with torch.no_grad():
            scale = x.sum()
        return x * scale + y.detach(), y * 2
    x, y = torch.randn(3, requires_grad=True), torch.randn(3, requires_grad=True)
    made, expected = compiled(f)(x, y), f(x, y)
    same(made, expected)
    same(torch.autograd.grad(made[0].sum() + made[1].sum(), (x, y)),
         torch.autograd.grad(expected[0].sum() + expected[1].sum(), (x, y)))


def test_train_and_eval() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
    run, x = compiled(model), torch.randn(5, 8)
    run(x)
    run.eval()
    same(run(x), model(x))
    run.train()
    twin = copy.deepcopy(model)
    for net in (run, twin):
        torch.manual_seed(1)
        net(x)
    same([*model.buffers()], [*twin.buffers()])


def test_double_backward_is_refused_by_name() -> None:
    x = torch.randn(4, requires_grad=True)
    (g,) = torch.autograd.grad(compiled(wave)(x), x, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        g.sum().backward()


# --- sizes, aliases, kinds of tensors -----------------------------------------------------
def test_dynamic_sizes() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x @ x.t(), -1) * x.shape[0]
    run = torch.compile(
        f, backend=backend, fullgraph=True, dynamic=True, options={"fallback": False})
    for n in (3, 5, 2, 1):
        x = torch.randn(n, 4)
        same(run(x), f(x), rtol=1e-4, atol=1e-5)


def test_automatic_dynamic_sizes_train() -> None:
    model = mlp()
    twin = copy.deepcopy(model)
    run = torch.compile(model, backend=backend, fullgraph=True, options={"fallback": False})
    for n in (3, 5, 7):
        x = torch.randn(n, 8)
        for net in (run, twin):
            net(x).sum().backward()
    gradients_agree(model, twin, rtol=1e-4, atol=1e-5)


def test_views_that_change_and_leave() -> None:
    def f(x: torch.Tensor) -> Any:
        y = x[1:]
        y.add_(1)
        return y, x.view(-1), x * 2
    x = torch.randn(4, 4)
    z = x.clone()
    made, expected = compiled(f)(x), f(z)
    same(made, expected)
    same(x, z)
    assert made[0].data_ptr() == x[1:].data_ptr() and made[1].data_ptr() == x.data_ptr()


def test_one_tensor_as_two_arguments() -> None:
    def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x.mul_(2)
        return x + y
    x = torch.randn(4)
    z = x.clone()
    same(compiled(f)(x, x), f(z, z))
    same(x, z)


def test_overlapping_arguments() -> None:
    def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x.add_(1)
        return x + y
    base = torch.randn(6)
    other = base.clone()
    run = torch.compile(f, backend=backend)
    same(run(base[:4], base[2:]), f(other[:4], other[2:]))
    same(base, other)


class Labelled(torch.Tensor):
    """A subclass without a behaviour of its own."""


def test_plain_subclasses_stay_what_they_are() -> None:
    x = torch.randn(4).as_subclass(Labelled)
    made = compiled(lambda x: x * 2 + 1)(x)
    assert type(made) is Labelled
    same(made.as_subclass(torch.Tensor), (x * 2 + 1).as_subclass(torch.Tensor))


# --- models as objects --------------------------------------------------------------------
def test_state_copies_and_pickles() -> None:
    model, x = mlp(), torch.randn(3, 8)
    run = compiled(model)
    expected = run(x)
    twin = copy.deepcopy(run)
    same(twin(x), expected)
    with torch.no_grad():
        for p in twin.parameters():
            p.mul_(2)
    same(run(x), expected)
    same(twin(x), twin._orig_mod(x), rtol=1e-4, atol=1e-5)
    stored = io.BytesIO()
    torch.save(run.state_dict(), stored)
    stored.seek(0)
    fresh = compiled(mlp())
    fresh(x)
    fresh.load_state_dict(torch.load(stored))
    same(fresh(x), expected)
    weights = pickle.loads(pickle.dumps(model.state_dict()))
    model.load_state_dict(weights)
    same(run(x), expected)


def test_a_graph_is_kept_for_another_backward() -> None:
    model, x = mlp(), torch.randn(4, 8)
    found = []
    for run in (model, compiled(model)):
        model.zero_grad()
        loss = run(x).square().sum()
        loss.backward(retain_graph=True)
        loss.backward()
        found.append([p.grad.clone() for p in model.parameters()])
    same(found[1], found[0])


def test_two_threads() -> None:
    model = mlp()
    run = compiled(model)
    inputs = [torch.randn(16, 8) for _ in range(2)]
    expected = [model(x).detach() for x in inputs]
    run(inputs[0])
    wrong: list[Any] = []

    def work(i: int) -> None:
        try:
            for _ in range(100):
                made = run(inputs[i])
                if not torch.allclose(made, expected[i], atol=1e-5):
                    wrong.append(i)
                torch.autograd.grad(made.sum(), model[0].weight)  # type: ignore[index]
        except Exception as error:
            wrong.append(error)
    team = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    assert wrong == []
