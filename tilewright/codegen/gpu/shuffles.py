"""Values of other threads of the warp, of every element type."""

from __future__ import annotations

from tilewright.codegen.builder import Builder, Value
from tilewright.codegen.integers import number_of
from tilewright.ir.loops import ShuffleMode
from tilewright.ir.types import bool_, f32, f64, i32, i64

MODES: dict[ShuffleMode, tuple[str, int]] = {
    "xor": ("bfly", 31), "up": ("up", 0), "down": ("down", 31), "lane": ("idx", 31),
}
"""The instruction of a mode, and the lane beyond which a thread gets its own value."""


def exchanged(b: Builder, mode: ShuffleMode, v: Value, lane: Value) -> Value:
    """The value that another thread has; written where all threads of the warp come by.

    lane  as in :class:`tilewright.ir.loops.Shuffle`, an i64
    """
    number = number_of(lane)
    short = Value(str(number), i32) if number is not None else b.convert("trunc", lane, i32)
    if v.lanes == 1:
        return _one(b, mode, v, short)
    result = Value("poison", v.dtype, v.lanes)
    for n in range(v.lanes):
        part = _one(b, mode, b.define(v.dtype, 1, f"extractelement {v.typed}, i64 {n}"), short)
        result = b.define(v.dtype, v.lanes, f"insertelement {result.typed}, {part.typed}, i64 {n}")
    return result


def _one(b: Builder, mode: ShuffleMode, v: Value, lane: Value) -> Value:
    if v.dtype is f32:
        return _word(b, mode, v, lane)
    if v.dtype is f64:
        return b.convert("bitcast", _one(b, mode, b.convert("bitcast", v, i64), lane), f64)
    if v.dtype.bits == 64:
        high = b.convert("trunc", b.binary("lshr", v, Value("32", v.dtype)), i32)
        parts = [_word(b, mode, w, lane) for w in (b.convert("trunc", v, i32), high)]
        low, top = (b.convert("zext", p, v.dtype) for p in parts)
        return b.binary("or", low, b.binary("shl", top, Value("32", v.dtype)))
    if v.dtype.bits == 32 and v.dtype is not bool_:
        return Value(_word(b, mode, Value(v.name, i32), lane).name, v.dtype)
    return b.convert("trunc", _word(b, mode, b.convert("zext", v, i32), lane), v.dtype)


def _word(b: Builder, mode: ShuffleMode, v: Value, lane: Value) -> Value:
    """32 bits."""
    name, edge = MODES[mode]
    symbol = f"llvm.nvvm.shfl.sync.{name}.{v.dtype.name}"
    b.declarations.add(f"declare {v.type} @{symbol}(i32, {v.type}, i32, i32)")
    return b.define(
        v.dtype, 1, f"call {v.type} @{symbol}(i32 -1, {v.typed}, {lane.typed}, i32 {edge})")
