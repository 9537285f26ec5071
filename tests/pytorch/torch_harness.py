"""Running the same PyTorch code eagerly and compiled, and comparing everything that comes out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from tilewright.torch import backend

STRICT = {"fallback": False}


def compiled(function: Any, **options: Any) -> Any:
    """The function or module, compiled in one graph with every operator in it."""
    return torch.compile(
        function, backend=backend, fullgraph=True, dynamic=False, options={**STRICT, **options})


def check(function: Callable[..., Any], *args: Any, **options: Any) -> None:
    """The results of a function, their strides and the gradients of its inputs, as eager's."""
    dynamic = options.pop("dynamic", False)
    eager, ours = _fresh(args), _fresh(args)
    torch.manual_seed(1)
    expected = function(*eager)
    torch.manual_seed(1)
    made = torch.compile(
        function, backend=backend, fullgraph=True, dynamic=dynamic,
        options={**STRICT, **options})(*ours)
    same(made, expected)
    if any(t.requires_grad for t in _tensors(expected)):
        for results in (expected, made):
            torch.manual_seed(1)
            total = sum(
                (t * torch.randn_like(t)).sum() for t in _tensors(results) if t.requires_grad)
            total.backward()  # type: ignore[union-attr]
        for a, b in zip(_tensors(eager), _tensors(ours), strict=True):
            same(b.grad, a.grad)


def _fresh(args: Sequence[Any]) -> list[Any]:
    return [
        a.detach().clone(memory_format=torch.preserve_format).requires_grad_(a.requires_grad)
        if isinstance(a, torch.Tensor) else a for a in args
    ]


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [t for v in value for t in _tensors(v)]
    return []


def same(made: Any, expected: Any, **tolerance: Any) -> None:
    """Equal within what rounding in another order gives, strides included."""
    if expected is None:
        assert made is None
        return
    if not isinstance(expected, torch.Tensor):
        assert type(made) is type(expected), (made, expected)
        if isinstance(expected, dict):
            made, expected = list(made.values()), list(expected.values())
        if isinstance(expected, list | tuple):
            for m, e in zip(made, expected, strict=True):
                same(m, e, **tolerance)
        else:
            assert made == expected
        return
    torch.testing.assert_close(made, expected, equal_nan=True, **tolerance)
    assert made.stride() == expected.stride(), (made.stride(), expected.stride())


def losses(
    model: nn.Module, batches: Sequence[Sequence[Any]], loss: Callable[..., torch.Tensor],
    make_compiled: bool, optimizer: Callable[..., Any] = torch.optim.SGD, **settings: Any,
) -> list[float]:
    """The loss of every step of training a copy of a model."""
    own = copy.deepcopy(model)
    run = compiled(own) if make_compiled else own
    steps = optimizer(own.parameters(), **settings)
    torch.manual_seed(3)
    found = []
    for batch in batches:
        steps.zero_grad()
        value = loss(run, *batch)
        value.backward()
        steps.step()
        found.append(value.item())
    return found
