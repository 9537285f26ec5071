"""Products of groups of rows: attributes and shapes for the tests of the op table, and ends."""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.ir.attrs import ContractAttrs

GROUPED: list[tuple[Any, tuple[tuple[int, ...], ...]]] = [
    (ContractAttrs((0, 1), (2, 1, 3), (0, 3)), ((20, 17), (4, 17, 5), (4,))),
    (ContractAttrs((1, 0), (2, 3, 1), (3, 0)), ((7, 33), (3, 20, 7), (3,))),
    (ContractAttrs((0, 1), (3, 1, 2), (0, 3)), ((130, 4), (9, 4, 2), (2,))),
    (ContractAttrs((0, 1), (2, 1, 3), (0, 3)), ((6, 1), (2, 1, 1), (2,))),
    (ContractAttrs((0, 1), (2, 1, 3), (0, 3)), ((0, 3), (2, 3, 4), (2,))),
    (ContractAttrs((0, 1), (2, 1, 3), (0, 3)), ((5, 3), (0, 3, 4), (0,))),
    (ContractAttrs((0, 1), (0, 3), (2, 1, 3)), ((20, 17), (20, 5), (4,))),
    (ContractAttrs((1, 0), (0, 3), (3, 1, 2)), ((9, 40), (40, 33), (3,))),
    (ContractAttrs((0, 1), (3, 0), (2, 1, 3)), ((11, 1), (1, 11), (2,))),
    (ContractAttrs((0, 1), (0, 3), (2, 1, 3)), ((0, 3), (0, 4), (2,))),
]


def ends_of(rows: int, groups: int, rng: np.random.Generator) -> np.ndarray:
    """Where groups of rows end; there are empty ones, and rows behind the last."""
    ends = np.sort(rng.integers(0, rows + 1, groups)).astype(np.int64)
    ends[1:2] = ends[:1]
    return ends
