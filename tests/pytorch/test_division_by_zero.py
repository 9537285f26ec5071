"""Integers divided by zero: PyTorch's error, and only where eager raises it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import opinfo
import pytest
import torch
from torch_harness import compiled

FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "floor": lambda a, b: a // b,
    "rest": lambda a, b: a % b,
    "truncated": lambda a, b: torch.div(a, b, rounding_mode="trunc"),
    "fmod": torch.fmod,
    "in place": lambda a, b: a.clone().floor_divide_(b),
    "chosen elsewhere": lambda a, b: torch.where(b == 0, 0, a // b),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_errors(name: str) -> None:
    f = FUNCTIONS[name]
    run = compiled(f)
    a, b = torch.arange(-6, 6).view(3, 4), torch.tensor([3, -2, 5, 7])
    assert torch.equal(run(a, b), f(a, b))
    b[2] = 0
    for call in (f, run):
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            call(a, b)
    b[2] = 1
    assert torch.equal(run(a, b), f(a, b))


def test_the_line_is_told() -> None:
    with pytest.raises(RuntimeError, match=r"an integer is divided by zero at .*by_zero\.py:\d+"):
        compiled(FUNCTIONS["floor"])(torch.ones(3, dtype=torch.int32), torch.tensor(0))


def test_what_is_no_error() -> None:
    empty, zero = torch.ones(0, 3, dtype=torch.int64), torch.tensor(0)
    assert compiled(lambda a, b: a // b)(empty, zero).shape == (0, 3)
    x = torch.tensor([1.0, -1.0, 0.0])
    torch.testing.assert_close(
        compiled(lambda a, b: a // b)(x, zero), x // zero, equal_nan=True)


def test_a_number_that_is_zero() -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        torch.ones(3, dtype=torch.int64) % 0
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        compiled(lambda a: a % 0)(torch.ones(3, dtype=torch.int64))


@pytest.mark.parametrize(("by", "steps"), [(3, 1), (torch.tensor(3), 2)])
def test_only_tensors_are_looked_at(by: Any, steps: int) -> None:
    found: list[Any] = []
    a = torch.arange(20)
    assert torch.equal(opinfo.compiled(lambda a, b: a // b, found)(a, by), a // by)
    assert [len(recipe.steps) for recipe in found] == [steps]
