"""Laws of elementwise ops. They hold bit for bit on floats, NaN, infinities and -0 included.

Two exceptions round differently, by less than the ops themselves may err: ``pow-cube`` and
``pow-fourth``. Missing on purpose for floats: x * 0, x - x, x + 0.0 (-0), reassociation.
"""

from __future__ import annotations

import numpy as np

from tilewright.compiler.rules.law import law, number, power_of_two, sample
from tilewright.ir.attrs import CastAttrs
from tilewright.ir.build import cast, concat, pad
from tilewright.ir.graph import Node, apply, full, full_value, make
from tilewright.ir.rewrite import Match, Rules, any_op, const, fold, hole, op, rule
from tilewright.ir.types import (
    FLOATS,
    INTS,
    DType,
    bf16,
    bool_,
    f16,
    f32,
    f64,
    i8,
    i32,
    i64,
    u8,
    u16,
)

x, y, z = hole("x"), hole("y"), hole("z")
n, k = hole("n", INTS), hole("k", INTS)
r, s = hole("r", FLOATS), hole("s", FLOATS)
p, q = hole("p", (bool_,)), hole("q", (bool_,))
c, d = const("c"), const("d")
i, j = const("i", INTS), const("j", INTS)
UNSIGNED = tuple(t for t in INTS if t.kind == "u")
SIGNED = (*FLOATS, *(t for t in INTS if t.kind == "i"))
# A chain of products must end on the type's own rounding, which the 16-bit floats have per step.
WIDE = (*INTS, f32, f64)
MANTISSA = {f16: 11, bf16: 8, f32: 24, f64: 53}
"""Bits of an integer that a float holds exactly."""
RANGE = {f16: 0, bf16: 1, f32: 1, f64: 2}
"""Which floats reach at least as far as others."""


def holds(wide: DType, narrow: DType) -> bool:
    """Whether every value of ``narrow`` is one of ``wide``."""
    if wide is narrow or narrow is bool_:
        return True
    if wide is bool_:
        return False
    if narrow.is_float:
        return wide.is_float and MANTISSA[wide] >= MANTISSA[narrow] and RANGE[wide] >= RANGE[narrow]
    bits = narrow.bits - (narrow.kind == "i")
    if wide.is_float:
        return MANTISSA[wide] >= bits
    return wide.bits - (wide.kind == "i") >= bits and (wide.kind == "i" or narrow.kind == "u")


def drops_cast(m: Match) -> bool:
    """Whether the first of two casts changes nothing: it is exact, and so is what follows."""
    start, middle, end = m["x"].dtype, m.attrs["a"].dtype, m.attrs["b"].dtype
    # Beyond its range, a cast from float to int gives another number than one from int to int.
    return holds(middle, start) and not (middle.is_float and end.is_int and not holds(end, start))


def casts() -> list[Node]:
    """Chains of casts, exact ones and others."""
    chains = ((i8, i32, f32), (f16, f32, f64), (bool_, f32, i8), (i32, f64, i32), (u8, f16, f32),
              (bf16, f32, bf16), (i8, f32, i8), (u8, u16, i64), (f32, f64, bool_))
    return [cast(make("cast", (sample(7, dtype=a),), CastAttrs(b)), e) for a, b, e in chains]


def powers() -> list[Node]:
    """Powers with constant exponents."""
    return [
        apply("pow", sample(9, dtype=t), number(e, 9, dtype=t))
        for t in (f32, f64, i32) for e in (0, 1, 2, 3, 4)
    ]


def by_shift(name: str, m: Match) -> Node:
    """An integer op on a power of two as a shift by its logarithm."""
    exponent = int(m.value("i")).bit_length() - 1
    return apply(name, m["n"], full(m["n"].type, exponent))


def into_choice(m: Match) -> Node | None:
    """An op on a choice between constants, as a choice between other constants."""
    choice = next(n for n in m.root.inputs if n.op.name == "where")
    others = [n for n in m.root.inputs if n is not choice]
    if any(n.op.name != "full" for n in (*others, *choice.inputs[1:])):
        return None
    both = [
        fold(make(m.root.op, [value if n is choice else n for n in m.root.inputs], m.root.attrs))
        for value in choice.inputs[1:]
    ]
    known = [n for n in both if n is not None]
    return make("where", (choice.inputs[0], *known)) if len(known) == len(both) else None


def choices() -> list[Node]:
    """Ops on a choice between constants."""
    one = apply("where", sample(5, dtype=bool_), number(0.5, 5), number(-0.0, 5))
    return [-one, one * 4.0, 4.0 - one, apply("exp", one), cast(one, i32), apply("gt", one, 0.0)]


def reciprocal(m: Match) -> Node | None:
    """x / 2**k as x * 2**-k, which is the same number rounded once, if 2**-k is exact."""
    inverse = full(m["c"].type, 1.0 / float(m.value("c")))
    back = float(full_value(inverse))
    exact = back != 0 and np.isfinite(back) and back * float(m.value("c")) == 1.0
    return m["r"] * inverse if exact else None


def no_minus_zero(node: Node, depth: int = 12) -> bool:
    """Whether no element can be -0.0: 0.0 was added to it, or its square taken."""
    name = node.op.name
    if name == "full":
        return full_value(node) != 0 or not np.signbit(full_value(node))
    if name == "add":
        return any(n.op.name == "full" and no_minus_zero(n) for n in node.inputs)
    if node.op.kind == "view" and depth:
        return all(no_minus_zero(n, depth - 1) for n in node.inputs)
    return name == "mul" and node.inputs[0] is node.inputs[1]


def with_zero_added() -> list[Node]:
    """Sums with 0.0 of what cannot be -0.0."""
    one = sample(5) + 0.0
    return [one + 0.0, pad(one, (1,), (0,), (1,)) + 0.0, sample(5) * sample(5) + 0.0,
            concat([one, sample(2) + 1.5], 0) + 0.0]


CONSTANTS = Rules(
    rule("fold", any_op("elementwise", only="full"), lambda m: fold(m.root),
         examples=lambda: [number(2.5, 3) + number(4.0, 3)]),
    law("const-right", op("add", c, x), lambda m: m["x"] + m["c"],
        when=lambda m: m.root.inputs[0] is m["c"] and m["x"].op.name != "full"),
    law("const-right-mul", op("mul", c, x), lambda m: m["x"] * m["c"],
        when=lambda m: m.root.inputs[0] is m["c"] and m["x"].op.name != "full"),
    rule("sub-const", op("sub", x, c), x + (-c)),
)

SUMS = Rules(
    rule("add-zero", hole("n", (bool_, *INTS)) + 0, n),
    rule("add-minus-zero", r + -0.0, r),
    rule("add-zero-again", r + 0.0, r, when=lambda m: no_minus_zero(m["r"]),
         examples=with_zero_added),
    rule("sub-self", n - n, 0),
    rule("zero-sub", 0 - n, -n),
    rule("minus-zero-sub", op("sub", -0.0, r), -r),
    rule("neg-neg", op("neg", -x), x),
    rule("neg-sub", -(n - k), k - n),
    rule("add-neg", x + (-y), x - y),
    rule("sub-neg", x - (-y), x + y),
    rule("add-add", (n + i) + j, n + (i + j)),
)

PRODUCTS = Rules(
    rule("mul-one", x * 1, x),
    rule("mul-zero", hole("n", (bool_, *INTS)) * 0, 0),
    rule("mul-minus-one", hole("x", (*FLOATS, *INTS)) * c, -hole("x"),
         when=lambda m: m["x"].dtype.kind != "u" and m.value("c") == -1,
         examples=lambda: [sample(5) * -1.0, sample(5, dtype=i32) * -1]),
    rule("neg-mul-neg", (-x) * (-y), x * y),
    rule("neg-mul-const", (-x) * c, x * -c),
    rule("neg-of-mul-const", -(x * c), x * -c),
    rule("mul-mul", (n * i) * j, n * (i * j)),
    rule("abs-mul-abs", op("abs", x) * op("abs", x), x * x),
    rule("div-one", r / 1, r),
    rule("div-minus-one", r / -1, -r),
    rule("neg-div-neg", (-r) / (-s), r / s),
    law("div-power", op("div", r, c), reciprocal, when=lambda m: power_of_two(m["c"]),
        examples=lambda: [sample(5) / 4.0, sample(5) / -0.125, sample(5, dtype=f16) / 2.0**15]),
    rule("floordiv-one", op("floordiv", n, 1), n),
    law("mul-shift", op("mul", n, i), lambda m: by_shift("shl", m),
        when=lambda m: power_of_two(m["i"]),
        examples=lambda: [sample(5, dtype=i32) * 8, sample(5, dtype=u8) * 128]),
    law("floordiv-shift", op("floordiv", n, i), lambda m: by_shift("shr", m),
        when=lambda m: power_of_two(m["i"]),
        examples=lambda: [apply("floordiv", sample(5, dtype=t), 8) for t in (i32, u8)]),
    rule("mod-one", op("mod", n, 1), 0),
    law("mod-mask", op("mod", n, i), lambda m: m["n"] & full(m["n"].type, int(m.value("i")) - 1),
        when=lambda m: power_of_two(m["i"]),
        examples=lambda: [apply("mod", sample(5, dtype=t), 8) for t in (i32, u8)]),
)

POWERS = Rules(
    rule("pow-zero", op("pow", x, 0), 1, examples=powers),
    rule("pow-one", op("pow", x, 1), x, examples=powers),
    rule("pow-two", op("pow", x, 2), x * x, examples=powers),
    rule("pow-cube", op("pow", hole("x", WIDE), 3), x * x * x, examples=powers),
    rule("pow-fourth", op("pow", hole("x", WIDE), 4), (x * x) * (x * x), examples=powers),
    rule("pow-minus-one", op("pow", r, -1), op("div", 1, r),
         examples=lambda: [apply("pow", sample(5), -1.0)]),
    # The power of -0 is 0 and that of minus infinity is infinity; the roots are -0 and NaN.
    law("pow-half", op("pow", r, 0.5),
        lambda m: apply("where", apply("eq", m["r"], -np.inf), np.inf,
                        apply("sqrt", m["r"] + full(m["r"].type, 0.0))),
        examples=lambda: [apply("pow", sample(5), 0.5)]),
)

BITS = Rules(
    rule("and-self", x & x, x),
    rule("or-self", x | x, x),
    rule("xor-self", op("xor", x, x), 0),
    rule("and-zero", x & 0, 0),
    rule("or-zero", x | 0, x),
    rule("xor-zero", op("xor", x, 0), x),
    rule("and-true", p & True, p),
    rule("or-true", p | True, True),
    rule("not-not", ~(~x), x),
    rule("shl-zero", op("shl", n, 0), n),
    rule("shr-zero", op("shr", n, 0), n),
)

COMPARISONS = Rules(
    rule("eq-self", op("eq", hole("n", (bool_, *INTS)), hole("n", (bool_, *INTS))), True),
    rule("ne-self", op("ne", hole("n", (bool_, *INTS)), hole("n", (bool_, *INTS))), False),
    rule("not-eq", ~op("eq", x, y), op("ne", x, y)),
    rule("not-ne", ~op("ne", x, y), op("eq", x, y)),
    rule("not-lt", ~op("lt", n, k), op("ge", n, k)),
    rule("not-le", ~op("le", n, k), op("gt", n, k)),
    rule("not-gt", ~op("gt", n, k), op("le", n, k)),
    rule("not-ge", ~op("ge", n, k), op("lt", n, k)),
    rule("ne-false", op("ne", p, False), p),
    rule("eq-true", op("eq", p, True), p),
    rule("eq-false", op("eq", p, False), ~p),
    rule("ne-true", op("ne", p, True), ~p),
    rule("ne-cast-bool", op("ne", op("cast", p, attrs="a"), 0), p,
         examples=lambda: [apply("ne", cast(sample(5, dtype=bool_), f32), 0)]),
    rule("gt-cast-bool", op("gt", op("cast", p, attrs="a"), 0), p,
         examples=lambda: [apply("gt", cast(sample(5, dtype=bool_), i32), 0)]),
    rule("eq-cast-bool", op("eq", op("cast", p, attrs="a"), 0), ~p,
         examples=lambda: [apply("eq", cast(sample(5, dtype=bool_), f32), 0)]),
    rule("max-self", op("max", x, x), x),
    rule("min-self", op("min", x, x), x),
    rule("max-max", op("max", op("max", x, c), d), op("max", x, op("max", c, d))),
    rule("min-min", op("min", op("min", x, c), d), op("min", x, op("min", c, d))),
)

CHOICES = Rules(
    rule("where-same", op("where", p, x, x), x),
    rule("where-true", op("where", True, x, y), x),
    rule("where-false", op("where", False, x, y), y),
    rule("where-not", op("where", ~p, x, y), op("where", p, y, x)),
    rule("where-where-then", op("where", p, op("where", p, x, y), z), op("where", p, x, z)),
    rule("where-where-else", op("where", p, x, op("where", p, y, z)), op("where", p, x, z)),
    rule("where-truth", op("where", p, True, False), p),
    law("op-choice", any_op("elementwise", reads="where"), into_choice, examples=choices,
        when=lambda m: m.root.op.name != "where"),
    rule("where-untruth", op("where", p, False, True), ~p),
)

CASTS = Rules(
    rule("cast-same", op("cast", x, attrs="a"), x,
         when=lambda m: m["x"].dtype is m.attrs["a"].dtype,
         examples=lambda: [make("cast", (sample(5),), CastAttrs(f32))]),
    rule("cast-cast", op("cast", op("cast", x, attrs="a"), attrs="b"), op("cast", x, attrs="b"),
         when=drops_cast, examples=casts),
    rule("bitcast-same", op("bitcast", x, attrs="a"), x,
         when=lambda m: m["x"].dtype is m.attrs["a"].dtype,
         examples=lambda: [make("bitcast", (sample(5),), CastAttrs(f32))]),
    rule("bitcast-bitcast", op("bitcast", op("bitcast", x, attrs="a"), attrs="b"),
         op("bitcast", x, attrs="b"),
         examples=lambda: [make("bitcast", (make("bitcast", (sample(5),), CastAttrs(i32)),),
                                CastAttrs(f32))]),
    rule("abs-abs", op("abs", op("abs", x)), op("abs", x)),
    rule("abs-neg", op("abs", -hole("x", SIGNED)), op("abs", hole("x", SIGNED))),
    rule("abs-unsigned", op("abs", hole("n", UNSIGNED)), n),
)

ELEMENTWISE = (
    CONSTANTS + SUMS + PRODUCTS + POWERS + BITS + COMPARISONS + CHOICES + CASTS
)
