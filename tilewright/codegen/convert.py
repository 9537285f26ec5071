"""Casts between element types, and the 16-bit floats.

A value of type f16 or bf16 is carried in registers as the f32 that equals it; only memory holds
16 bits. Conversions are integer arithmetic unless the target has an exact instruction.
"""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.codegen.builder import Builder, Value, llvm_type
from tilewright.compiler.target import Target
from tilewright.ir.types import DType, bf16, bool_, f16, f32, f64, i32, i64, u8, u16, u32, u64


@dataclass(frozen=True, slots=True)
class Machine:
    """What the spelling of ops must know of a target.

    half      converts f16 in one instruction
    rounding  has floor, ceil, trunc and rint as instructions
    x86       takes x86 intrinsics
    bf16      converts to bf16 in one instruction
    gpu       the number of a GPU's architecture, 80 for sm_80; 0 for a CPU
    """

    half: bool
    rounding: bool
    x86: bool
    bf16: bool = False
    gpu: int = 0


def machine_of(target: Target) -> Machine:
    """The machine that a target describes."""
    if target.gpu is not None:
        sm = target.gpu.sm
        return Machine(True, True, False, bf16=sm >= 80, gpu=sm)
    x86 = target.triple.startswith("x86_64")
    features = target.features.split(",")
    arm = target.triple.startswith(("aarch64", "arm64"))
    return Machine(
        half="+f16c" in features if x86 else arm,
        rounding="+sse4.1" in features if x86 else True,
        x86=x86,
    )


def carrier(dtype: DType) -> DType:
    """The type in which a value of ``dtype`` is kept in registers."""
    return f32 if dtype is f16 or dtype is bf16 else dtype


def memory(dtype: DType) -> DType:
    """The type as which a value of ``dtype`` is loaded and stored."""
    if dtype is bool_:
        return u8
    return u16 if dtype is f16 or dtype is bf16 else dtype


def from_memory(b: Builder, x: Value, dtype: DType, machine: Machine) -> Value:
    """What was loaded as ``memory(dtype)``, in its carrier type."""
    if dtype is bool_:
        return b.compare("icmp ne", x, b.like(x, 0))
    if dtype is bf16:
        wide = b.binary("shl", b.convert("zext", x, u32), splat(b, x, 16))
        value = b.convert("bitcast", wide, f32)
    elif dtype is f16:
        value = expand_half(b, x, machine)
    else:
        return x
    if machine.gpu:
        b.narrow[value.name, dtype] = x
    return value


def to_memory(b: Builder, x: Value, dtype: DType, machine: Machine) -> Value:
    """The carried value as ``memory(dtype)``. A 16-bit float has been rounded before."""
    if dtype is bool_:
        return b.convert("zext", x, u8)
    found = b.narrow.get((x.name, dtype))
    if found is not None:
        return found
    if dtype is bf16:
        bits = b.binary("lshr", b.convert("bitcast", x, u32), splat(b, x, 16))
        return b.convert("trunc", bits, u16)
    if dtype is f16:
        return shrink_half(b, x, machine)
    return x


def splat(b: Builder, like: Value, number: int) -> Value:
    """A u32 constant with the lanes of ``like``."""
    return b.const(u32, number, like.lanes)


def round_half(b: Builder, x: Value, dtype: DType, machine: Machine) -> Value:
    """The f32 nearest to ``x`` that a 16-bit float type can hold, ties to even."""
    if machine.gpu >= PAIRS:
        value = from_memory(b, rounded_bits(b, x, dtype), dtype, machine)
        if x.lanes == 1:
            b.wide[value.name, dtype] = x
        return value
    if dtype is f16:
        return expand_half(b, shrink_half(b, x, machine), machine)
    if machine.bf16:
        return b.convert("fpext", b.convert("fptrunc", x, bf16), f32)
    bits = b.convert("bitcast", x, u32)
    odd = b.binary("and", b.binary("lshr", bits, splat(b, x, 16)), splat(b, x, 1))
    up = b.binary("add", bits, b.binary("add", odd, splat(b, x, 0x7FFF)))
    quiet = b.binary("or", bits, splat(b, x, 0x400000))
    chosen = b.select(b.compare("fcmp uno", x, x), quiet, up)
    return b.convert("bitcast", b.binary("and", chosen, splat(b, x, 0xFFFF0000)), f32)


PAIRS = 80
"""The architecture from which on a GPU rounds two numbers to 16 bits at once."""


def rounded_bits(b: Builder, x: Value, dtype: DType) -> Value:
    """f32 rounded to 16 bits, as u16; two at a time where there is an even number of lanes.

    One alone is rounded beside a zero: that is quicker than the instruction for one.
    """
    if x.lanes == 1:
        return b.convert("trunc", pair_bits(b, x, b.const(f32, 0), dtype), u16)
    if x.lanes % 2:
        return b.convert("bitcast", b.convert("fptrunc", x, dtype), u16)
    words = Value("poison", u32, x.lanes // 2)
    for n in range(x.lanes // 2):
        low, high = (b.define(f32, 1, f"extractelement {x.typed}, i64 {2 * n + i}")
                     for i in range(2))
        one = pair_bits(b, low, high, dtype)
        words = one if x.lanes == 2 else b.define(
            u32, words.lanes, f"insertelement {words.typed}, {one.typed}, i64 {n}")
    return b.define(u16, x.lanes, f"bitcast {words.typed} to <{x.lanes} x i16>")


def pair_bits(b: Builder, low: Value, high: Value, dtype: DType) -> Value:
    """Two f32 rounded to 16 bits each, as a u32."""
    pair = f"<2 x {llvm_type(dtype)}>"
    name = f"llvm.nvvm.ff2{dtype.name}x2.rn"
    b.declarations.add(f"declare {pair} @{name}(float, float)")
    both = b.define(dtype, 2, f"call {pair} @{name}({high.typed}, {low.typed})")
    return b.define(u32, 1, f"bitcast {both.typed} to i32")


def expand_half(b: Builder, x: Value, machine: Machine) -> Value:
    """f16 bits (u16) as f32."""
    if machine.half:
        return b.convert("fpext", b.convert("bitcast", x, f16), f32)
    wide = b.convert("zext", x, u32)
    sign = b.binary("shl", b.binary("and", wide, splat(b, x, 0x8000)), splat(b, x, 16))
    rest = b.binary("and", wide, splat(b, x, 0x7FFF))
    # The exponent is moved by a product, which also normalises what is subnormal in f16.
    shifted = b.convert("bitcast", b.binary("shl", rest, splat(b, x, 13)), f32)
    moved = b.binary("fmul", shifted, b.const(f32, 2.0**112, x.lanes))
    bits = b.convert("bitcast", moved, u32)
    special = b.compare("icmp uge", rest, splat(b, x, 0x7C00))
    bits = b.select(special, b.binary("or", bits, splat(b, x, 0x7F800000)), bits)
    return b.convert("bitcast", b.binary("or", bits, sign), f32)


def shrink_half(b: Builder, x: Value, machine: Machine) -> Value:
    """f32 rounded to f16 bits (u16), ties to even."""
    if machine.half:
        return b.convert("bitcast", b.convert("fptrunc", x, f16), u16)
    bits = b.convert("bitcast", x, u32)
    size = b.binary("and", bits, splat(b, x, 0x7FFFFFFF))
    sign = b.binary("lshr", b.binary("xor", bits, size), splat(b, x, 16))
    odd = b.binary("and", b.binary("lshr", size, splat(b, x, 13)), splat(b, x, 1))
    based = b.binary("add", b.binary("add", size, splat(b, x, 0xC8000FFF)), odd)
    normal = b.binary("lshr", based, splat(b, x, 13))
    # Adding a half lines the mantissa up with the subnormal f16s; the sum rounds it.
    lined = b.binary("fadd", b.convert("bitcast", size, f32), b.const(f32, 0.5, x.lanes))
    tiny = b.binary("sub", b.convert("bitcast", lined, u32), splat(b, x, 0x3F000000))
    nan = b.compare("icmp ugt", size, splat(b, x, 0x7F800000))
    special = b.select(nan, splat(b, x, 0x7E00), splat(b, x, 0x7C00))
    small = b.compare("icmp ult", size, splat(b, x, 0x38800000))
    large = b.compare("icmp uge", size, splat(b, x, 0x47800000))
    result = b.select(large, special, b.select(small, tiny, normal))
    return b.convert("trunc", b.binary("or", result, sign), u16)


def round_to_odd(b: Builder, x: Value) -> Value:
    """f64 to f32 such that rounding the result again to f16 is as rounding ``x`` once."""
    near = b.convert("fptrunc", x, f32)
    back = b.convert("fpext", near, f64)
    bits = b.convert("bitcast", near, u32)
    exact = b.compare("fcmp ueq", back, x)
    odd = b.compare("icmp ne", b.binary("and", bits, splat(b, x, 1)), splat(b, x, 0))
    grew = b.compare("fcmp ogt", b.intrinsic("fabs", back), b.intrinsic("fabs", x))
    step = b.select(grew, splat(b, x, 0xFFFFFFFF), splat(b, x, 1))
    moved = b.convert("bitcast", b.binary("add", bits, step), f32)
    return b.select(b.binary("or", exact, odd), near, moved)


def cast(b: Builder, x: Value, source: DType, dtype: DType, machine: Machine) -> Value:
    """``astype``: floats to ints truncate (what does not fit gives some number, never a trap),
    ints wrap, anything but zero is true.
    """
    if source is dtype:
        return x
    if dtype is bool_:
        zero = b.like(x, 0)
        return b.compare("fcmp une" if x.dtype.is_float else "icmp ne", x, zero)
    if not dtype.is_float:
        return float_to_int(b, x, dtype) if x.dtype.is_float else int_to_int(b, x, dtype)
    if x.dtype is f64 and dtype is f16:
        x = round_to_odd(b, x)
    target = carrier(dtype)
    if not x.dtype.is_float:
        value = b.convert("sitofp" if x.dtype.kind == "i" else "uitofp", x, target)
    elif x.dtype is target:
        value = x
    else:
        value = b.convert("fptrunc" if target is f32 else "fpext", x, target)
    return value if target is dtype else round_half(b, value, dtype, machine)


def int_to_int(b: Builder, x: Value, dtype: DType) -> Value:
    """Widened by its sign, or cut to the low bits."""
    if x.dtype.bits == dtype.bits:
        return Value(x.name, dtype, x.lanes)
    if x.dtype.bits > dtype.bits:
        return b.convert("trunc", x, dtype)
    return b.convert("sext" if x.dtype.kind == "i" else "zext", x, dtype)


def float_to_int(b: Builder, x: Value, dtype: DType) -> Value:
    """Truncation. ``freeze`` makes what LLVM leaves undefined some fixed number."""
    if dtype is u64:
        edge = b.like(x, 2.0**63)
        low = frozen(b, x, i64)
        high = b.binary(
            "xor", frozen(b, b.binary("fsub", x, edge), i64), b.const(i64, -(2**63), x.lanes)
        )
        chosen = b.select(b.compare("fcmp olt", x, edge), low, high)
        return Value(chosen.name, u64, x.lanes)
    wide = dtype if dtype.bits == 64 else i64 if dtype is u32 else i32
    return int_to_int(b, frozen(b, x, wide), dtype)


def frozen(b: Builder, x: Value, dtype: DType) -> Value:
    """Truncation to a signed integer; some fixed number where it does not fit."""
    value = b.convert("fptosi", x, dtype)
    return b.define(dtype, x.lanes, f"freeze {value.typed}")


def bitcast(b: Builder, x: Value, source: DType, dtype: DType, machine: Machine) -> Value:
    """The same bits as another type of the same size."""
    if source is dtype:
        return x
    if source is f16 or source is bf16:
        x = to_memory(b, x, source, machine)
    target = memory(dtype) if dtype is f16 or dtype is bf16 else dtype
    if x.dtype.is_float != target.is_float:
        x = b.convert("bitcast", x, target)
    else:
        x = Value(x.name, target, x.lanes)
    return from_memory(b, x, dtype, machine) if carrier(dtype) is not dtype else x
