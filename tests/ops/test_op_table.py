"""Every row of the op table is complete, and has test data."""

import numpy as np
import pytest
from op_harness import GIVEN, STRUCTURED, elementwise_rows, special_inputs

from tilewright.ir.graph import OPS
from tilewright.ir.types import DTYPES

BY_FRONTEND = {
    "conjugate", "divmod", "frexp", "matmul", "matvec", "modf", "vecdot", "vecmat",
}
"""Ufuncs that the frontend composes of several rows (several results, or a contraction)."""

REFUSED = {"gcd", "lcm", "isnat"}
"""Ufuncs without a row: loops of unknown length, and dates."""


@pytest.mark.parametrize("name", [n for n, op in OPS.items() if op.kind != "elementwise"])
def test_row_has_test_data(name):
    assert name in STRUCTURED or name in GIVEN, f"add cases for {name} to STRUCTURED"


def test_no_test_data_without_row():
    assert set(STRUCTURED) | GIVEN <= set(OPS)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_elementwise_rows_have_inputs(dtype):
    for op in elementwise_rows(dtype):
        arrays = special_inputs(op, dtype)
        assert len(arrays) == op.arity and arrays[0].size, op.name


def is_truth(op):
    return op.infer.__qualname__.startswith("truth.")


@pytest.mark.parametrize("name", [
    n for n, op in OPS.items()
    if op.kind not in ("source", "routine") and any(d.is_float for d in op.types)
    and not is_truth(op)
])
def test_row_with_float_result_can_be_differentiated(name):
    op = OPS[name]
    assert op.derivative or op.transpose or op.expand, f"{name} has no derivative"


def test_every_ufunc_is_a_row_or_accounted_for():
    ufuncs = {getattr(np, n).__name__ for n in dir(np) if isinstance(getattr(np, n), np.ufunc)}
    rows = {op.ufunc.__name__ for op in OPS.values() if op.ufunc is not None}
    assert ufuncs - rows - REFUSED == BY_FRONTEND


def test_ufuncs_are_unique():
    found = [op.ufunc for op in OPS.values() if op.ufunc is not None]
    assert len(found) == len(set(found))


def test_primitive_names_are_few():
    primitives = [op for op in OPS.values() if op.kind == "elementwise" and op.expand is None]
    assert len(primitives) <= 55
