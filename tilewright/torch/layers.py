"""Where a traced program repeats itself: equal layers become equal parts, which are compiled once.

    a b c  d e f g  d e f g  d e f g  h        ->  parts:  a b c d e | f g d e | f g d e | f g h

A part also ends the lives of the tensors that no later one reads. Where in the repeated sequence a
part begins is where the fewest bytes cross from one part to the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

LEAST_NODES = 16
"""Operators of one repetition, and 3 repetitions: below, a whole program compiles quickly."""

LEAST_BYTES = 1 << 20
"""That one repetition computes: below, entering a part takes a share of its time."""


def starts_of_parts(module: fx.GraphModule) -> set[fx.Node]:
    """The operators with which another part begins."""
    calls = [n for n in module.graph.nodes if n.op == "call_function"]
    numbers: dict[Any, int] = {}
    keys = np.array([numbers.setdefault(_key(n), len(numbers)) for n in calls], np.int64)
    starts: set[fx.Node] = set()
    for first, stop, period in _repetitions(keys, 0):
        one = calls[first + period:first + 2 * period]
        if sum(map(_bytes, one)) < LEAST_BYTES:
            continue
        shift = _cheapest(calls, first, period)
        starts.update(calls[first + shift:stop + 1:period])
    return starts


def _key(node: fx.Node) -> Any:
    """What equal operators of equal layers have in common."""
    constants = [a for a in node.args if not isinstance(a, fx.Node | tuple | list)]
    return str(node.target), str(constants), str(_types(node.meta.get("val")))


def _types(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.dtype, tuple(value.shape), tuple(value.stride())
    return [_types(v) for v in value] if isinstance(value, tuple | list) else None


def _repetitions(keys: np.ndarray, offset: int) -> Iterator[tuple[int, int, int]]:
    """Where keys repeat at least 3 times: first, end, period; the longest first, then beside it."""
    best = (0, 0, 0)
    for period in range(LEAST_NODES, len(keys) // 3 + 1):
        first, stop = _longest(keys[period:] == keys[:-period])
        if stop - first > best[1] - best[0] and stop - first >= 2 * period:
            best = (first, stop, period)
    first, stop, period = best
    if period:
        yield offset + first, offset + stop + period, period
        yield from _repetitions(keys[:first], offset)
        yield from _repetitions(keys[stop + period:], offset + stop + period)


def _longest(same: np.ndarray) -> tuple[int, int]:
    """The longest run of True: first and end."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], same.astype(np.int8), [0]))))
    if not len(edges):
        return 0, 0
    firsts, stops = edges[::2], edges[1::2]
    i = int(np.argmax(stops - firsts))
    return int(firsts[i]), int(stops[i])


def _cheapest(calls: Sequence[fx.Node], first: int, period: int) -> int:
    """How far into a repetition the fewest bytes are needed behind that were made before."""
    at = {node: i for i, node in enumerate(calls)}
    crossing = np.zeros(period)
    for i in range(first, first + 2 * period):
        ends = [at.get(user, -1) for user in calls[i].users]
        if any(user.op == "output" for user in calls[i].users):
            continue  # it is a tensor anyway
        start, stop = i + 1, min(max(ends, default=-1), first + 2 * period - 1)
        crossing[max(start - first - period, 0):max(stop + 1 - first - period, 0)] += _bytes(
            calls[i])
    return int(np.argmin(crossing))


def _bytes(node: fx.Node) -> int:
    """Of the result of an operator, by the sizes that it was traced with."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return 0
    count = 1
    for size in value.shape:
        count *= getattr(getattr(size, "node", None), "hint", None) or int(size)
    return count * value.dtype.itemsize
