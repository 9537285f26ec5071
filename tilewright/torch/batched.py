"""Batches of tensors that autograd's own functions make, as ``is_grads_batched=True`` does.

They are not those of ``torch.func.vmap``, for which a function has a rule, and reach a program as
they are: tensors without memory, each of a level of nesting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

is_batched: Callable[[torch.Tensor], bool] = (
    torch._C._functorch.is_legacy_batchedtensor)  # type: ignore[attr-defined]


def one_by_one(run: Callable[[list[Any]], list[Any]], inputs: Sequence[Any]) -> list[Any]:
    """The results on inputs of which some are batches: one run per element.

    ``run`` may get batches too, of the levels outside of the innermost.
    """
    torch._C._vmapmode_increment_nesting()
    level = torch._C._vmapmode_decrement_nesting()
    # A tensor that does not belong to the level is expanded along a new axis: by 1 here.
    rows = [torch._remove_batch_dim(x, level, 1, 0) if isinstance(x, torch.Tensor) else x
            for x in inputs]
    size = max(len(r) for r in rows if isinstance(r, torch.Tensor))
    torch._C._vmapmode_decrement_nesting()  # for what is outside of this level
    try:
        made = [run([r[min(i, len(r) - 1)] if isinstance(r, torch.Tensor) else r for r in rows])
                for i in range(size)]
        stacked = [
            torch.stack(found) if isinstance(found[0], torch.Tensor) else found[0]
            for found in zip(*made, strict=True)]
    finally:
        torch._C._vmapmode_increment_nesting()
    return [torch._add_batch_dim(x, 0, level) if isinstance(x, torch.Tensor) else x
            for x in stacked]
