"""Products of groups of rows, as of a mixture of experts: where a group ends is data."""

from __future__ import annotations

import pytest
import torch
from torch_harness import check, same

from tilewright.torch import backend

pytest.importorskip("transformers.integrations.moe")

ENDS = [[0, 7, 7, 20], [33, 33, 33], [0, 0, 1000], [400, 400, 900, 1000]]
"""Empty groups at either end and between, one with all rows, and more rows than a block has."""


def product(x: torch.Tensor, weights: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = torch.ops.transformers.grouped_mm_fallback(x, weights, ends)
    return found


def inputs(
    ends: list[int], width: int, dtype: torch.dtype = torch.float32, rows: int | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x = torch.randn(rows or ends[-1], width, dtype=dtype, requires_grad=True)
    weights = torch.randn(len(ends), width, width - 1, dtype=dtype, requires_grad=True)
    return x, weights, torch.tensor(ends, dtype=torch.int32)


@pytest.mark.parametrize("ends", ENDS, ids=str)
def test_grouped_products(ends: list[int]) -> None:
    """The definition is that of transformers, a loop over the groups."""
    check(product, *inputs(ends, 6 if ends[-1] < 100 else 70, torch.float64), threads=3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_element_types(dtype: torch.dtype) -> None:
    check(product, *inputs([5, 40, 40, 64], 33, dtype))


def test_matrices_contiguous_along_either_axis() -> None:
    x, weights, ends = inputs([3, 40, 41], 40, torch.float64)
    turned = torch.randn(3, 39, 40, dtype=torch.float64, requires_grad=True)
    check(lambda x, w, ends: product(x, w.transpose(1, 2), ends), x, turned, ends)
    columns = torch.randn(40, 41, dtype=torch.float64, requires_grad=True)
    check(lambda x, w, ends: product(x.t(), w, ends).sin(), columns, weights, ends)


def test_rows_of_no_group_are_zero_whatever_they_hold() -> None:
    x, weights, ends = inputs([3, 5], 20, rows=12)
    with torch.no_grad():
        x[5:] = torch.nan
    check(product, x, weights, ends)


def test_groups_do_not_see_each_other() -> None:
    x, weights, ends = inputs([9, 20, 31], 20)
    with torch.no_grad():
        x[10], weights[2, 3] = torch.inf, torch.nan
    check(product, x, weights, ends)


def test_rows_and_groups_of_any_number() -> None:
    for ends in ([5, 20], [2, 2, 2, 33], [0, 700]):
        check(product, *inputs(ends, 24, torch.float64), dynamic=True)


def test_ends_are_data_and_results_do_not_depend_on_threads() -> None:
    found = []
    for threads in (1, 2, 3):
        compiled = torch.compile(product, backend=backend, fullgraph=True,
                                 options={"threads": threads, "fallback": False})
        for ends in ([100, 300, 1000], [0, 990, 1000], [1000, 1000, 1000]):
            torch.manual_seed(2)
            x, weights, stops = inputs(ends, 80)
            made = compiled(x, weights, stops)
            made.square().sum().backward()
            same(made, product(x, weights, stops), rtol=1e-4, atol=1e-4)
            found.append((made, x.grad, weights.grad))
    for first, second, third in zip(found[:3], found[3:6], found[6:], strict=True):
        for a, b, c in zip(first, second, third, strict=True):
            assert torch.equal(a, b) and torch.equal(a, c)
