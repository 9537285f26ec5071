"""THE op table: one row per operation.

A row gives the type rule, the NumPy meaning, the derivative or transpose, the domain of its tests
and, for a composite op, its expansion into primitives. Names, printing, parsing, folding, the
public functions and the generated tests follow from the row.

An expansion may give its node back: the op is then primitive for that element type. An op without
a derivative and transpose is differentiated through its expansion.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tilewright.ir import attrs as a
from tilewright.ir import complex_routines as c
from tilewright.ir import derivatives as d
from tilewright.ir import expansions as e
from tilewright.ir import groups as g
from tilewright.ir import index_derivatives as i
from tilewright.ir import infer, meaning
from tilewright.ir import order_derivatives as o
from tilewright.ir import recurrences as s
from tilewright.ir import routines as r
from tilewright.ir import transposes as t
from tilewright.ir.graph import (
    OPS,
    Attrs,
    ConstAttrs,
    FullAttrs,
    InputAttrs,
    NoAttrs,
    Op,
    SizeAttrs,
    apply,
)
from tilewright.ir.infer import ALL, BITS, NUMBERS
from tilewright.ir.types import FLOATS, INTS, DType, f32, f64


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


def composite(
    name: str, arity: int, numpy: Any, types: tuple[DType, ...], expand: Any, **row: Any
) -> None:
    """An elementwise row made of other ops; 16-bit floats go through f32."""
    elementwise(name, arity, numpy, types, expand=e.in_f32(e.of_inputs(expand)), **row)


def bitwise(
    name: str, arity: int, numpy: Any, types: tuple[DType, ...], expand: Any,
    truth: bool = False, **row: Any,
) -> None:
    """An elementwise row that looks at an element as it is, 16-bit floats too."""
    rule = (infer.truth if truth else infer.like_inputs)(name, types)
    row.setdefault("ufunc", numpy)
    register(Op(name, "elementwise", arity, rule, meaning.as_it_is(numpy), types=types,
                expand=e.of_inputs(expand), **row))


# --- sources ----------------------------------------------------------------------------
register(Op("input", "source", 0, infer.no_inference, meaning.constant, InputAttrs))
register(Op("full", "source", 0, infer.no_inference, meaning.full, FullAttrs))
register(Op("size", "source", 0, infer.no_inference, meaning.size, SizeAttrs))
register(Op("const", "source", 0, infer.no_inference, meaning.constant, ConstAttrs))
register(Op("iota", "source", 0, infer.no_inference, meaning.iota, a.IotaAttrs))

# --- arithmetic -------------------------------------------------------------------------
elementwise("add", 2, np.add, ALL, derivative=d.add)
elementwise("sub", 2, np.subtract, NUMBERS, derivative=d.sub)
elementwise("mul", 2, np.multiply, ALL, derivative=d.mul)
elementwise("div", 2, np.true_divide, FLOATS, derivative=d.div, domain=(0.3, 3))
elementwise("floordiv", 2, np.floor_divide, NUMBERS, derivative=d.none, expand=e.in_f32(e.floordiv))
elementwise("mod", 2, np.remainder, NUMBERS, derivative=d.mod, expand=e.in_f32(e.mod),
            domain=(0.3, 3))
elementwise("pow", 2, meaning.power, NUMBERS, ufunc=np.power, domain=(0.1, 3.0), flops=40,
            derivative=d.power, expand=e.power)
elementwise("neg", 1, np.negative, NUMBERS, derivative=d.neg)
elementwise("abs", 1, np.absolute, NUMBERS, derivative=d.absolute)
elementwise("max", 2, np.maximum, ALL, derivative=d.chosen("gt"))
elementwise("min", 2, np.minimum, ALL, derivative=d.chosen("lt"))
bitwise("positive", 1, np.positive, NUMBERS, lambda x: x)
bitwise("stop_gradient", 1, meaning.identity, ALL, lambda x: x, derivative=d.none, ufunc=None)
composite("square", 1, np.square, NUMBERS, lambda x: x * x)
composite("reciprocal", 1, meaning.reciprocal, NUMBERS, e.reciprocal, ufunc=np.reciprocal,
          domain=(0.3, 3))
composite("sign", 1, np.sign, NUMBERS, e.sign, derivative=d.none)
composite("fabs", 1, np.fabs, FLOATS, lambda x: apply("abs", x))
composite("fmod", 2, np.fmod, NUMBERS, e.fmod, derivative=d.fmod, domain=(0.3, 3))
composite("fmax", 2, np.fmax, ALL, e.choose_number("max"))
composite("fmin", 2, np.fmin, ALL, e.choose_number("min"))
composite("clip", 3, np.clip, NUMBERS, e.clip, ufunc=np.clip)
composite("nan_to_num", 1, np.nan_to_num, NUMBERS, e.nan_to_num, ufunc=np.nan_to_num)

# --- bits and logic ---------------------------------------------------------------------
elementwise("and", 2, np.bitwise_and, BITS)
elementwise("or", 2, np.bitwise_or, BITS)
elementwise("xor", 2, np.bitwise_xor, BITS)
elementwise("not", 1, np.invert, BITS)
elementwise("shl", 2, np.left_shift, INTS)
elementwise("shr", 2, np.right_shift, INTS)
elementwise("popcount", 1, np.bitwise_count, INTS, ufunc=None)
register(Op("bitwise_count", "elementwise", 1, infer.infer_bitwise_count,
            meaning.elementwise(np.bitwise_count), types=INTS, ufunc=np.bitwise_count,
            expand=e.bitwise_count))
bitwise("logical_and", 2, np.logical_and, ALL, e.logical("and"), truth=True)
bitwise("logical_or", 2, np.logical_or, ALL, e.logical("or"), truth=True)
bitwise("logical_xor", 2, np.logical_xor, ALL, e.logical("xor"), truth=True)
bitwise("logical_not", 1, np.logical_not, ALL, lambda x: ~e.nonzero(x), truth=True)

# --- comparison and choice --------------------------------------------------------------
elementwise("eq", 2, np.equal, ALL, truth=True)
elementwise("ne", 2, np.not_equal, ALL, truth=True)
elementwise("lt", 2, np.less, ALL, truth=True)
elementwise("le", 2, np.less_equal, ALL, truth=True)
elementwise("gt", 2, np.greater, ALL, truth=True)
elementwise("ge", 2, np.greater_equal, ALL, truth=True)
bitwise("isnan", 1, np.isnan, ALL, e.isnan, truth=True)
bitwise("isinf", 1, np.isinf, ALL, e.isinf, truth=True)
bitwise("isfinite", 1, np.isfinite, ALL, e.isfinite, truth=True)
bitwise("isposinf", 1, np.isposinf, FLOATS, lambda x: apply("eq", x, math.inf), truth=True)
bitwise("isneginf", 1, np.isneginf, FLOATS, lambda x: apply("eq", x, -math.inf), truth=True)
bitwise("signbit", 1, np.signbit, FLOATS, e.signbit, truth=True)
composite("heaviside", 2, np.heaviside, FLOATS, e.heaviside, derivative=d.heaviside)
register(Op("where", "elementwise", 3, infer.infer_where, meaning.as_it_is(np.where), types=ALL,
            transpose=t.where_))
register(Op("cast", "elementwise", 1, infer.infer_cast, meaning.cast, a.CastAttrs, types=ALL,
            transpose=t.cast_))
register(Op("bitcast", "elementwise", 1, infer.infer_bitcast, meaning.bitcast, a.CastAttrs,
            types=ALL, transpose=t.nothing))

# --- rounding and functions -------------------------------------------------------------
for _name, _numpy, _domain, _derivative, _flops in (  # flops: multiplies and adds, about
    ("floor", np.floor, (-3, 3), d.none, 1),
    ("ceil", np.ceil, (-3, 3), d.none, 1),
    ("trunc", np.trunc, (-3, 3), d.none, 1),
    ("rint", np.rint, (-3, 3), d.none, 1),
    ("sqrt", np.sqrt, (0.1, 3), d.sqrt, 4),
    ("cbrt", np.cbrt, (0.1, 3), d.cbrt, 20),
    ("exp", np.exp, (-3, 3), d.exp, 12),
    ("exp2", np.exp2, (-3, 3), d.exp2, 12),
    ("expm1", np.expm1, (-3, 3), d.expm1, 16),
    ("log", np.log, (0.1, 3), d.log, 14),
    ("log2", np.log2, (0.1, 3), d.log2, 16),
    ("log10", np.log10, (0.1, 3), d.log10, 16),
    ("log1p", np.log1p, (-0.8, 3), d.log1p, 18),
    ("sin", np.sin, (-3, 3), d.sin, 20),
    ("cos", np.cos, (-3, 3), d.cos, 20),
    ("tan", np.tan, (-1.2, 1.2), d.tan, 25),
    ("asin", np.arcsin, (-0.9, 0.9), d.asin, 16),
    ("acos", np.arccos, (-0.9, 0.9), d.acos, 16),
    ("atan", np.arctan, (-3, 3), d.atan, 18),
    ("sinh", np.sinh, (-3, 3), d.sinh, 20),
    ("cosh", np.cosh, (-3, 3), d.cosh, 20),
    ("tanh", np.tanh, (-3, 3), d.tanh, 16),
    ("asinh", np.arcsinh, (-3, 3), d.asinh, 25),
    ("acosh", np.arccosh, (1.2, 3), d.acosh, 25),
    ("atanh", np.arctanh, (-0.8, 0.8), d.atanh, 22),
    ("erf", meaning.erf, (-3, 3), d.erf, 16),
):
    elementwise(_name, 1, _numpy, FLOATS, domain=_domain, derivative=_derivative, flops=_flops)
elementwise("atan2", 2, np.arctan2, FLOATS, derivative=d.atan2, domain=(0.3, 3), flops=25)
elementwise("copysign", 2, np.copysign, FLOATS, derivative=d.copysign)
composite("rsqrt", 1, meaning.rsqrt, FLOATS, lambda x: 1 / apply("sqrt", x),
          derivative=d.rsqrt, domain=(0.1, 3))
composite("float_power", 2, np.float_power, (f64,), lambda x, y: apply("pow", x, y),
          domain=(0.1, 3))
composite("hypot", 2, np.hypot, FLOATS, e.hypot, derivative=d.hypot, domain=(0.3, 3))
composite("logaddexp", 2, np.logaddexp, FLOATS, e.logaddexp("exp", e.natural_log1p),
          derivative=d.logaddexp("exp"))
composite("logaddexp2", 2, np.logaddexp2, FLOATS, e.logaddexp("exp2", e.binary_log1p),
          derivative=d.logaddexp("exp2"))
composite("sigmoid", 1, meaning.sigmoid, FLOATS, e.sigmoid, derivative=d.sigmoid)
composite("sinc", 1, meaning.sinc, FLOATS, e.sinc, derivative=d.sinc, ufunc=np.sinc)
composite("degrees", 1, np.degrees, FLOATS, e.scaled(180 / math.pi))
composite("rad2deg", 1, np.rad2deg, FLOATS, e.scaled(180 / math.pi))
composite("radians", 1, np.radians, FLOATS, e.scaled(math.pi / 180))
composite("deg2rad", 1, np.deg2rad, FLOATS, e.scaled(math.pi / 180))
bitwise("nextafter", 2, np.nextafter, (f32, f64), e.nextafter, derivative=d.first_only)
bitwise("spacing", 1, np.spacing, (f32, f64), e.spacing, derivative=d.none)
register(Op("ldexp", "elementwise", 2, infer.infer_ldexp, meaning.elementwise(np.ldexp),
            types=FLOATS, expand=e.in_f32(e.of_inputs(e.ldexp)), ufunc=np.ldexp,
            derivative=d.ldexp))

# --- reductions -------------------------------------------------------------------------
_REDUCTIONS: tuple[tuple[str, Any, Any, Any], ...] = (
    ("sum", meaning.total, NUMBERS, t.sum_),
    ("prod", meaning.product, NUMBERS, t.product),
    ("reduce_max", meaning.largest, ALL, t.extreme),
    ("reduce_min", meaning.smallest, ALL, t.extreme),
)
for _name, _total, _types, _transpose in _REDUCTIONS:
    register(Op(_name, "reduce", 1, infer.infer_reduce, meaning.reduce(_total), a.ReduceAttrs,
                types=_types, transpose=_transpose))

# --- views, contraction, indexing -------------------------------------------------------
_VIEWS: tuple[tuple[str, int | None, Any, Any, type[Attrs], Any], ...] = (
    ("reshape", 1, infer.infer_reshape, meaning.reshape, a.ReshapeAttrs, t.reshape_),
    ("transpose", 1, infer.infer_transpose, meaning.transpose, a.TransposeAttrs, t.transpose_),
    ("broadcast", 1, infer.infer_broadcast, meaning.broadcast, a.BroadcastAttrs, t.broadcast_),
    ("slice", 1, infer.infer_slice, meaning.slice_, a.SliceAttrs, t.slice_),
    ("flip", 1, infer.infer_flip, meaning.flip, a.FlipAttrs, t.flip),
    ("pad", 2, infer.infer_pad, meaning.pad, a.PadAttrs, t.pad_),
    ("window", 1, infer.infer_window, meaning.window, a.WindowAttrs, t.window),
    ("concat", None, infer.infer_concat, meaning.concat, a.ConcatAttrs, t.concat),
)
for _name, _arity, _rule, _meaning, _attrs, _transpose in _VIEWS:
    register(Op(_name, "view", _arity, _rule, _meaning, _attrs, types=ALL, transpose=_transpose))
register(Op("contract", "contract", 2, infer.infer_contract, meaning.contract, a.ContractAttrs,
            types=ALL, transpose=t.contract_))
register(Op("contract_groups", "grouped", 3, g.infer, g.compute, a.ContractAttrs, types=FLOATS,
            transpose=g.transpose, expand=g.expand))
register(Op("take", "index", 2, infer.infer_take, meaning.take, a.IndexAttrs,
            types=ALL, transpose=i.take))
register(Op("take_along", "index", 2, infer.infer_take_along, meaning.take_along, a.IndexAttrs,
            types=ALL, transpose=i.take_along))
register(Op("put", "index", 3, infer.infer_put(infer.infer_take), meaning.put,
            a.PutAttrs, types=ALL, transpose=i.put, expand=e.put))
register(Op("put_along", "index", 3, infer.infer_put(infer.infer_take_along),
            meaning.put_along, a.PutAttrs, types=ALL, transpose=i.put,
            expand=e.put))

# --- scans, sorts and searches ----------------------------------------------------------
_SCANS: tuple[tuple[str, Any, tuple[DType, ...], Any], ...] = (
    ("cumsum", np.add, NUMBERS, o.cumsum),
    ("cumprod", np.multiply, NUMBERS, o.cumprod),
    ("cummax", np.maximum, ALL, o.running("argcummax")),
    ("cummin", np.minimum, ALL, o.running("argcummin")),
)
for _name, _ufunc, _types, _transpose in _SCANS:
    register(Op(_name, "scan", 1, infer.infer_scan(_name, _types), meaning.accumulate(_ufunc),
                a.ScanAttrs, types=_types, transpose=_transpose))
for _name, _reaches in (("argcummax", np.greater_equal), ("argcummin", np.less_equal)):
    register(Op(_name, "scan", 1, infer.infer_argscan, meaning.running_place(_reaches),
                a.ScanAttrs, types=ALL, transpose=t.nothing))
register(Op("recurrence", "scan", 2, infer.infer_scan("recurrence", NUMBERS),
            meaning.scan(meaning.recurrence), a.ScanAttrs, types=NUMBERS, flops=2,
            transpose=o.recurrence))
register(Op("logcumsumexp", "scan", 1, infer.infer_scan("logcumsumexp", FLOATS),
            meaning.accumulate(np.logaddexp), a.ScanAttrs, types=FLOATS, flops=40,
            expand=e.in_f32(e.logcumsumexp)))
register(Op("sort", "sort", 1, infer.infer_sort, meaning.sort, a.SortAttrs, types=ALL,
            transpose=o.sort))
register(Op("argsort", "sort", 1, infer.infer_argsort, meaning.argsort, a.SortAttrs, types=ALL,
            transpose=t.nothing))
register(Op("searchsorted", "search", 2, infer.infer_searchsorted, meaning.searchsorted,
            a.SearchAttrs, types=ALL, transpose=t.nothing))

# --- serial algorithms on each item of a batch ------------------------------------------
for _name, _arity, _rule, _meaning, _attrs, _flops in (  # flops: of a matrix of ten columns
    ("cholesky", 1, r.infer_factor("cholesky", True), r.each(2, r.cholesky), NoAttrs, 3),
    ("lu", 1, r.infer_factor("lu", False), r.each(2, r.lu), NoAttrs, 7),
    ("qr", 1, r.infer_factor("qr", False), r.each(2, r.qr), NoAttrs, 13),
    ("reflect", 2, r.infer_reflect, r.each(2, r.reflect), r.ReflectAttrs, 20),
    ("exchange", 2, r.infer_exchange, r.each(2, r.exchange), r.ExchangeAttrs, 1),
    ("triangular_solve", 2, r.infer_triangular, r.each(2, r.triangular_solve), r.TriangleAttrs,
     10),
    ("ldl", 1, r.infer_factor("ldl", True), r.each(2, r.ldl), NoAttrs, 4),
    ("ldl_solve", 3, r.infer_ldl_solve, r.each(2, r.ldl_solve), NoAttrs, 20),
    ("eigh", 1, r.infer_factor("eigh", True), r.each(2, r.eigh), NoAttrs, 500),
    ("svd", 1, r.infer_svd, r.each(2, r.svd), NoAttrs, 500),
    ("eig", 1, c.infer_eig, r.each(2, c.eig), NoAttrs, 1000),
    ("complex_lu", 1, c.infer_lu, r.each(2, c.lu), NoAttrs, 30),
    ("complex_triangular_solve", 2, c.infer_triangular, r.each(2, c.triangular_solve),
     r.TriangleAttrs, 40),
    ("matrix_exp", 1, r.infer_square("matrix_exp"), r.each(2, r.matrix_exp), NoAttrs, 400),
    ("polynomial", 2, r.infer_numbers("polynomial"), s.polynomial, r.PolynomialAttrs, 20),
    ("zeta", 2, r.infer_numbers("zeta"), s.zeta, NoAttrs, 500),
    ("incomplete_gamma", 3, r.infer_numbers("incomplete_gamma"), s.incomplete_gamma,
     r.GammaAttrs, 500),
):
    register(Op(_name, "routine", _arity, _rule, _meaning, _attrs, types=r.TYPES, flops=_flops,
                transpose=r.refused))
