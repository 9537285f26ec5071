"""Products of groups of rows, as of a mixture of experts: where a group ends is data."""

from __future__ import annotations

import pytest
import torch
from torch_harness import check

pytest.importorskip("transformers.integrations.moe")


@pytest.mark.parametrize(("rows", "ends"), [
    (20, [0, 7, 7, 20]), (33, [33, 33, 33]), (9, [1, 2, 3, 9]), (130, [60, 130])])
def test_grouped_products(rows: int, ends: list[int]) -> None:
    def f(x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = torch.ops.transformers.grouped_mm_fallback(
            x, weights, torch.tensor(ends, dtype=torch.int32))
        return found
    check(f, torch.randn(rows, 6, requires_grad=True),
          torch.randn(len(ends), 6, 5, requires_grad=True))
