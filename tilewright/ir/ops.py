"""THE op table: one row per operation.

A row gives the type rule, the NumPy meaning, the derivative or transpose, the domain of its tests
and, for a composite op, its expansion into primitives. Names, printing, parsing, folding, the
public functions and the generated tests follow from the row.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.ir import attrs as a
from tilewright.ir import infer, meaning
from tilewright.ir.graph import OPS, ConstAttrs, FullAttrs, InputAttrs, Op
from tilewright.ir.infer import ALL, BITS, NUMBERS
from tilewright.ir.types import FLOATS, DType


def register(op: Op) -> Op:
    """Add a row."""
    if op.name in OPS:
        raise ValueError(f"two rows are called {op.name}")
    OPS[op.name] = op
    return op


def elementwise(
    name: str, arity: int, numpy: Any, types: tuple[DType, ...], *, truth: bool = False, **row: Any
) -> None:
    """A row whose result has its inputs' type, or bool if it is a ``truth``."""
    rule = (infer.truth if truth else infer.like_inputs)(name, types)
    row.setdefault("ufunc", numpy if isinstance(numpy, np.ufunc) else None)
    register(Op(name, "elementwise", arity, rule, meaning.elementwise(numpy), types=types, **row))


# --- sources ----------------------------------------------------------------------------
register(Op("input", "source", 0, infer.no_inference, meaning.constant, InputAttrs))
register(Op("full", "source", 0, infer.no_inference, meaning.full, FullAttrs))
register(Op("const", "source", 0, infer.no_inference, meaning.constant, ConstAttrs))
register(Op("iota", "source", 0, infer.no_inference, meaning.iota, a.IotaAttrs))

# --- arithmetic -------------------------------------------------------------------------
elementwise("add", 2, np.add, ALL)
elementwise("sub", 2, np.subtract, NUMBERS)
elementwise("mul", 2, np.multiply, ALL)
elementwise("div", 2, np.true_divide, FLOATS)
elementwise("floordiv", 2, np.floor_divide, NUMBERS)
elementwise("mod", 2, np.remainder, NUMBERS)
elementwise("pow", 2, meaning.power, NUMBERS, ufunc=np.power, domain=(0.1, 3.0))
elementwise("neg", 1, np.negative, NUMBERS)
elementwise("abs", 1, np.absolute, NUMBERS)
elementwise("max", 2, np.maximum, ALL)
elementwise("min", 2, np.minimum, ALL)

# --- bits and logic ---------------------------------------------------------------------
elementwise("and", 2, np.bitwise_and, BITS)
elementwise("or", 2, np.bitwise_or, BITS)
elementwise("xor", 2, np.bitwise_xor, BITS)
elementwise("not", 1, np.invert, BITS)
elementwise("shl", 2, np.left_shift, infer.INTS)
elementwise("shr", 2, np.right_shift, infer.INTS)
elementwise("popcount", 1, np.bitwise_count, infer.INTS, ufunc=None)

# --- comparison and choice --------------------------------------------------------------
elementwise("eq", 2, np.equal, ALL, truth=True)
elementwise("ne", 2, np.not_equal, ALL, truth=True)
elementwise("lt", 2, np.less, ALL, truth=True)
elementwise("le", 2, np.less_equal, ALL, truth=True)
elementwise("gt", 2, np.greater, ALL, truth=True)
elementwise("ge", 2, np.greater_equal, ALL, truth=True)
register(Op("where", "elementwise", 3, infer.infer_where, meaning.elementwise(np.where), types=ALL))
register(Op("cast", "elementwise", 1, infer.infer_cast, meaning.cast, a.CastAttrs, types=ALL))
register(Op("bitcast", "elementwise", 1, infer.infer_bitcast, meaning.bitcast, a.CastAttrs, types=ALL))

# --- rounding and functions -------------------------------------------------------------
for _name, _numpy, _domain in (
    ("floor", np.floor, (-3, 3)), ("ceil", np.ceil, (-3, 3)), ("trunc", np.trunc, (-3, 3)),
    ("rint", np.rint, (-3, 3)), ("sqrt", np.sqrt, (0.1, 3)), ("cbrt", np.cbrt, (0.1, 3)),
    ("exp", np.exp, (-3, 3)), ("exp2", np.exp2, (-3, 3)), ("expm1", np.expm1, (-3, 3)),
    ("log", np.log, (0.1, 3)), ("log2", np.log2, (0.1, 3)), ("log10", np.log10, (0.1, 3)),
    ("log1p", np.log1p, (-0.9, 3)),
    ("sin", np.sin, (-3, 3)), ("cos", np.cos, (-3, 3)), ("tan", np.tan, (-1.4, 1.4)),
    ("asin", np.arcsin, (-0.9, 0.9)), ("acos", np.arccos, (-0.9, 0.9)), ("atan", np.arctan, (-3, 3)),
    ("sinh", np.sinh, (-3, 3)), ("cosh", np.cosh, (-3, 3)), ("tanh", np.tanh, (-3, 3)),
    ("asinh", np.arcsinh, (-3, 3)), ("acosh", np.arccosh, (1.1, 3)), ("atanh", np.arctanh, (-0.9, 0.9)),
    ("erf", meaning.erf, (-3, 3)),
):
    elementwise(_name, 1, _numpy, FLOATS, domain=_domain)
elementwise("atan2", 2, np.arctan2, FLOATS)
elementwise("copysign", 2, np.copysign, FLOATS)

# --- reductions -------------------------------------------------------------------------
register(Op("sum", "reduce", 1, infer.infer_reduce, meaning.reduce(meaning.total), a.ReduceAttrs, types=NUMBERS))
register(Op("prod", "reduce", 1, infer.infer_reduce, meaning.reduce(meaning.product), a.ReduceAttrs, types=NUMBERS))
register(Op("reduce_max", "reduce", 1, infer.infer_reduce, meaning.reduce(meaning.largest), a.ReduceAttrs, types=ALL))
register(Op("reduce_min", "reduce", 1, infer.infer_reduce, meaning.reduce(meaning.smallest), a.ReduceAttrs, types=ALL))

# --- views ------------------------------------------------------------------------------
register(Op("reshape", "view", 1, infer.infer_reshape, meaning.reshape, a.ReshapeAttrs))
register(Op("transpose", "view", 1, infer.infer_transpose, meaning.transpose, a.TransposeAttrs))
register(Op("broadcast", "view", 1, infer.infer_broadcast, meaning.broadcast, a.BroadcastAttrs))
register(Op("slice", "view", 1, infer.infer_slice, meaning.slice_, a.SliceAttrs))
register(Op("flip", "view", 1, infer.infer_flip, meaning.flip, a.FlipAttrs))
register(Op("pad", "view", 2, infer.infer_pad, meaning.pad, a.PadAttrs))
register(Op("concat", "view", None, infer.infer_concat, meaning.concat, a.ConcatAttrs))

# --- contraction and indexing -----------------------------------------------------------
register(Op("contract", "contract", 2, infer.infer_contract, meaning.contract, a.ContractAttrs))
register(Op("take", "index", 2, infer.infer_take, meaning.take, a.IndexAttrs))
register(Op("take_along", "index", 2, infer.infer_take_along, meaning.take_along, a.IndexAttrs))
register(Op("take_add", "index", 3, infer.infer_scatter(infer.infer_take), meaning.take_add, a.IndexAttrs))
register(Op("take_along_add", "index", 3, infer.infer_scatter(infer.infer_take_along),
            meaning.take_along_add, a.IndexAttrs))
