"""Indices for which eager PyTorch raises an error are errors, whichever side they are on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch_harness import check, compiled

import tilewright as tw

WITHOUT_NEGATIVE: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "gather": lambda x, i: x.gather(1, i[:, None]),
    "index_select": lambda x, i: x.index_select(0, i),
    "embedding": lambda x, i: functional.embedding(i, x),
    "embedding_bag": lambda x, i: functional.embedding_bag(i[None], x),
    "cross_entropy": lambda x, i: functional.cross_entropy(x, i),
    "scatter of a number": lambda x, i: x.scatter(1, i[:, None], 1.5),
    "scatter": lambda x, i: x.scatter(1, i[:, None], x),
    "scatter_add": lambda x, i: x.scatter_add(1, i[:, None], x),
    "scatter_reduce": lambda x, i: x.scatter_reduce(1, i[:, None], x, "amax"),
    "index_add": lambda x, i: x.index_add(1, i, x[:, :3]),
    "index_copy": lambda x, i: x.index_copy(1, i, x[:, :3]),
    "index_reduce": lambda x, i: x.index_reduce(1, i, x[:, :3], "prod"),
}

WITH_NEGATIVE: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "index": lambda x, i: x[i],
    "index_put": lambda x, i: x.index_put((i,), x[:3] * 2),
    "index_fill": lambda x, i: x.index_fill(1, i, 2.0),
    "take": lambda x, i: x.take(i),
    "take_along_dim": lambda x, i: x.take_along_dim(i[:, None], 1),
}


def numbers() -> Tensor:
    return torch.arange(9.0).reshape(3, 3).cos()


@pytest.mark.parametrize("at", (-1, 3))
@pytest.mark.parametrize("name", WITHOUT_NEGATIVE)
def test_outside(name: str, at: int) -> None:
    function, index = WITHOUT_NEGATIVE[name], torch.tensor([1, at, 0])
    with pytest.raises((IndexError, RuntimeError)):
        function(numbers(), index)
    run = compiled(function)
    with pytest.raises(tw.OutOfBounds, match="outside an axis of size 3\n  expected: 0 to 2"):
        run(numbers(), index)
    right = torch.tensor([1, 2, 0])
    torch.testing.assert_close(run(numbers(), right), function(numbers(), right))


@pytest.mark.parametrize("name", WITH_NEGATIVE)
def test_counted_from_the_end(name: str) -> None:
    check(WITH_NEGATIVE[name], numbers(), torch.tensor([1, -1, 0]))
