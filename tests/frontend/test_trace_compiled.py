"""The cases of the tracing tests, compiled to machine code and run on arrays."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from frontend_harness import numpy_result, same
from trace_cases import CASES, ROW, B, I, N, T, V, W, X, Y

import tilewright as tw


@pytest.mark.parametrize("name", [n for n in CASES if n != "attributes"])
def test_compiled(name: str) -> None:
    def run(x, y, i, b, v, w, t, n, k):
        return CASES[name](SimpleNamespace(x=x, y=y, i=i, b=b, v=v, w=w, t=t, n=n, k=k))

    arguments = (X, Y, I, B, V, W, T, N, ROW)
    result = numpy_result(run, *arguments)
    expected = tw.tree.leaves(tuple(result) if isinstance(result, tuple) else result)
    compiled = tw.jit(run)
    for _ in range(2):  # the second call is the native one
        got = tw.tree.leaves(compiled(*arguments))
        assert len(got) == len(expected)
        for a, b in zip(got, expected, strict=True):
            same(a, b)
