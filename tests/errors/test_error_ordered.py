"""The exact text of errors: scans, sorts, quantiles and searches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from error_harness import message, text

import tilewright as tw

X = np.ones((3, 4), np.float32)


@pytest.mark.parametrize(("kind", "function", "expected"), [
    (tw.ShapeError, lambda x: np.sort(x, 2), """
        np.sort: there is no axis 2
          expected: -2 to 1
          got:      2
          at:       HERE in <lambda>
                    (tw.ShapeError, lambda x: np.sort(x, 2), \"\"\"
    """),
    (tw.DTypeError, lambda x: np.argsort(x, kind="bubble"), """
        np.argsort: there is no kind of sort 'bubble'
          at:       HERE in <lambda>
                    (tw.DTypeError, lambda x: np.argsort(x, kind="bubble"), \"\"\"
          hint:     leave it out: every sort here is stable
    """),
    (tw.OutOfBounds, lambda x: np.partition(x, 4), """
        np.partition: there is no place 4
          expected: -4 to 3
          got:      4
          at:       HERE in <lambda>
                    (tw.OutOfBounds, lambda x: np.partition(x, 4), \"\"\"
    """),
    (tw.ShapeError, lambda x: np.quantile(x, 1.5), """
        np.quantile: q is outside its range
          expected: 0 to 1
          got:      1.5
          at:       HERE in <lambda>
                    (tw.ShapeError, lambda x: np.quantile(x, 1.5), \"\"\"
    """),
    (tw.TraceError, lambda x: np.percentile(x, x[0]), """
        np.percentile of a traced q cannot be traced
          at:       HERE in <lambda>
                    (tw.TraceError, lambda x: np.percentile(x, x[0]), \"\"\"
          hint:     make q a number or a NumPy array
    """),
    (tw.ShapeError, lambda x: np.searchsorted(x, 1), """
        np.searchsorted looks in an array with one axis
          got:      f32[3, 4] (argument x)
          at:       HERE in <lambda>
                    (tw.ShapeError, lambda x: np.searchsorted(x, 1), \"\"\"
    """),
    (tw.ShapeError, lambda x: np.digitize(x, [1, 3, 2]), """
        np.digitize: the bins neither rise nor fall
          got:      [1, 3, 2]
          at:       HERE in <lambda>
                    (tw.ShapeError, lambda x: np.digitize(x, [1, 3, 2]), \"\"\"
    """),
    (tw.TraceError, lambda x: np.subtract.accumulate(x), """
        the ufunc method np.subtract.accumulate cannot be traced
          at:       HERE in <lambda>
                    (tw.TraceError, lambda x: np.subtract.accumulate(x), \"\"\"
          hint:     only np.add, np.multiply, np.maximum, np.minimum, np.logical_or, \
np.logical_and, np.logaddexp have a running form; use a loop over x[i]
    """),
    (tw.TraceError, lambda x: x.sort(), """
        the array method .sort, which works in place, cannot be traced
          got:      f32[3, 4] (argument x)
          at:       HERE in <lambda>
                    (tw.TraceError, lambda x: x.sort(), \"\"\"
          hint:     use the sorted copy that np.sort(x) gives
    """),
    (tw.TraceError, lambda x: np.flatnonzero(x), """
        the NumPy function np.flatnonzero cannot be traced
          at:       HERE in <lambda>
                    (tw.TraceError, lambda x: np.flatnonzero(x), \"\"\"
          hint:     its result has no fixed size: count with np.count_nonzero, or choose \
with np.where
    """),
])
def test_message(kind: type[Exception], function: Callable[..., Any], expected: str) -> None:
    assert message(kind, tw.jit(function), X) == text(expected.replace('\\"', '"'))


def test_quantile_of_nothing() -> None:
    f = tw.jit(lambda x: np.quantile(x, 0.5))
    assert message(tw.ShapeError, f, X[:0]) == text("""
        np.quantile of no elements has no value
          got:      f32[0, 4] (argument x)
          at:       HERE in <lambda>
                    f = tw.jit(lambda x: np.quantile(x, 0.5))
    """)
