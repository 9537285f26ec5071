"""Binary searches on a GPU: a thread for each query, in large arrays several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from on_sim import agree
from opcodes import count, opcodes

import tilewright as tw
from tilewright.compiler.schedules.gpu import pointwise
from tilewright.ir.loops import For, walk

RANDOM = np.random.default_rng(16)


def sides(a: Any, v: Any) -> Any:
    return np.searchsorted(a, v), np.searchsorted(a, v, side="right") * 2


@pytest.mark.parametrize("queries, several", [(70, False), (2100, True)])
def test_searches(queries: int, several: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks go through the queries as through any elementwise operand."""
    monkeypatch.setattr(pointwise, "LARGE", 2048)
    row = np.sort(RANDOM.integers(-40, 40, 300)).astype(np.float32)
    row[-3:] = np.nan
    values = RANDOM.integers(-45, 45, queries).astype(np.float32)
    values[5] = np.nan
    plan = agree(sides, row, values)
    (launch,) = plan.launches
    kinds = [s.kind for s in walk(launch.kernel.body) if isinstance(s, For)]
    assert kinds[:3] == (["block", "thread", "unroll"] if several else ["parallel"])


def test_each_query_is_read_once() -> None:
    """And a step of the search reads one element; many queries compile as quickly as few."""
    def compiled(f: Callable[..., Any], queries: int) -> int:
        values, row = np.zeros(queries, np.float32), np.zeros(1000, np.float32)
        lowered = tw.jit(f, target="sim").lower(row, values)
        (counts,) = opcodes(lowered.as_text("ptx")).values()
        return count(counts, "ld.global")

    once = compiled(np.searchsorted, 100)
    assert once == 1 + 10
    # The first step of all four looks at the same element.
    assert compiled(np.searchsorted, 1 << 18) == 4 * once - 3
