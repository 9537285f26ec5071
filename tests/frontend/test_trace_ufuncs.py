"""Every NumPy ufunc that can be traced, on every pair of element types: NumPy's type and values."""

from __future__ import annotations

import numpy as np
import pytest
from frontend_harness import BF16, DTYPES, agrees, interpret, numpy_result, sample, traced

from tilewright.frontend.elementwise import ROWS, SPECIAL

UFUNCS = sorted({*ROWS, *SPECIAL}, key=lambda u: u.__name__)
UNARY = [u for u in UFUNCS if u.nin == 1]
BINARY = [u for u in UFUNCS if u.nin == 2]
NARROW = {
    "arccosh": (1, 3),
    "arcsin": (-0.9, 0.9),
    "arccos": (-0.9, 0.9),
    "arctanh": (-0.9, 0.9),
    "log1p": (-0.9, 3),
}

NEEDED = """
add subtract multiply divide true_divide floor_divide remainder mod fmod divmod power
float_power negative positive absolute fabs sign maximum minimum fmax fmin rint floor ceil
trunc sqrt square cbrt reciprocal exp exp2 expm1 log log2 log10 log1p logaddexp logaddexp2 sin
cos tan arcsin arccos arctan arctan2 hypot sinh cosh tanh arcsinh arccosh arctanh degrees
radians deg2rad rad2deg equal not_equal less less_equal greater greater_equal logical_and
logical_or logical_xor logical_not bitwise_and bitwise_or bitwise_xor invert left_shift
right_shift bitwise_count isnan isinf isfinite signbit copysign nextafter spacing ldexp modf
heaviside
""".split()


@pytest.mark.parametrize("name", NEEDED)
def test_the_ufunc_can_be_traced(name: str) -> None:
    assert getattr(np, name) in {*ROWS, *SPECIAL}


ONLY_WIDE = (np.nextafter, np.spacing)
"""Ufuncs that are refused for the 16-bit floats: their rounding is that of the wider types."""


def outcome(ufunc: np.ufunc, *args: object) -> bool:
    """True if NumPy has a meaning for these types; then ours must agree, else refuse as well."""
    try:
        result = numpy_result(ufunc, *args)
        if ufunc in ONLY_WIDE and result.dtype.itemsize == 2:
            raise TypeError
    except TypeError:
        with pytest.raises(TypeError):
            interpret(lambda *a: ufunc(*a), *args)
        return False
    return True


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("ufunc", UNARY, ids=lambda u: u.__name__)
def test_unary(ufunc: np.ufunc, dtype: np.dtype) -> None:
    low, high = NARROW.get(ufunc.__name__, (0.1, 3) if "log" in ufunc.__name__ else (-3, 3))
    x = sample((3, 5), dtype, 1, low, high)
    if ufunc is np.reciprocal:
        x = np.where(x == 0, x.dtype.type(1), x)
    if outcome(ufunc, x):
        agrees(lambda a: ufunc(a), x)


PARTNERS = tuple(map(np.dtype, ("?", "i1", "i8", "u1", "u8", "f2", "f4", "f8"))) + (BF16,)


@pytest.mark.parametrize("ufunc", BINARY, ids=lambda u: u.__name__)
def test_binary(ufunc: np.ufunc) -> None:
    positive = ufunc in (np.power, np.float_power, np.left_shift, np.right_shift)
    for i, first in enumerate(PARTNERS):
        for j, second in enumerate(PARTNERS):
            x, y = sample((3, 5), first, i), sample((5,), second, j, 1 if positive else -3)
            if positive:
                x = np.abs(x) if first.kind == "f" else x
            if outcome(ufunc, x, y):
                agrees(lambda a, b: ufunc(a, b), x, y)


@pytest.mark.parametrize("number", [2, 1.5, True, np.float32(1.5), np.int8(2)], ids=repr)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_numbers_beside_arrays(dtype: np.dtype, number: object) -> None:
    x = sample((4,), dtype, 3)
    for ufunc in (np.add, np.multiply, np.true_divide, np.maximum, np.less, np.power):
        if not outcome(lambda a, u=ufunc: u(a, number), x):
            continue
        agrees(lambda a, u=ufunc: u(a, number), x)  # compiled in
        agrees(lambda a, b, u=ufunc: u(a, b), x, number)  # an argument
        agrees(lambda a, u=ufunc: u(number, abs(a) + a.dtype.type(1)), x)


def test_python_numbers_stay_python_numbers() -> None:
    x = sample((3,), "f4")

    def update(x, rate, step):
        rate = rate * 0.5 + step  # Python's arithmetic: still weak
        return x * rate, x * (step + 1), -rate * x, x**step

    agrees(update, x, 0.1, 2)
    assert [n.dtype.name for n in traced(update, x, 0.1, 2).graph.outputs] == ["f32"] * 4


def test_a_ufunc_makes_a_python_number_strong() -> None:
    agrees(lambda x, rate: x * np.sqrt(rate), sample((3,), "f4"), 0.25)


def test_integers_outside_their_partner_compare_by_value() -> None:
    x = np.array([0, 5, 255], np.uint8)
    for ufunc in (np.less, np.equal, np.not_equal, np.greater_equal):
        agrees(lambda a, u=ufunc: u(a, 300), x)
        agrees(lambda a, u=ufunc: u(-1, a), x)
        agrees(lambda a, u=ufunc: u(a, 2**70), x)


def test_signed_and_unsigned_compare_by_value() -> None:
    x = np.array([0, 5, 2**64 - 1], np.uint64)
    y = np.array([-1, 5, -1], np.int64)
    for ufunc in (np.less, np.less_equal, np.equal, np.not_equal, np.greater, np.greater_equal):
        agrees(lambda a, b, u=ufunc: u(a, b), x, y)
        agrees(lambda a, b, u=ufunc: u(b, a), x, y)


OPERATORS = {
    "arithmetic": lambda x, y: (
        x + y,
        x - y,
        x * y,
        x / (abs(y) + 1),
        x // 2,
        x % 3,
        -x,
        +x,
        abs(x),
    ),
    "reflected": lambda x, y: (
        1 + x,
        1 - x,
        2 * x,
        2 / (x * x + 1),
        7 // (abs(x) + 1),
        7 % (abs(x) + 1),
    ),
    "comparison": lambda x, y: (x < y, x <= y, x == y, x != y, x > 0, 0 >= x),
    "power": lambda x, y: (abs(x) ** 2, 2.0**y, abs(x) ** 0.5),
    "divmod": lambda x, y: (*divmod(x, 2), *divmod(7, abs(x) + 1)),
    "with lists": lambda x, y: (x + [1, 2, 3, 4, 5], [1] * 5 * x),
    "left array": lambda x, y: np.arange(5.0) - x,
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name: str) -> None:
    agrees(OPERATORS[name], sample((3, 5), "f4", 1), sample((3, 5), "f8", 2))


def test_operators_on_integers() -> None:
    x, y = sample((7,), "i4", 1, -9, 9), sample((7,), "i4", 2, 0, 5)
    agrees(
        lambda x, y: (x & y, x | y, x ^ y, ~x, x << y, x >> y, 1 << y, x // (y + 1), 3 & x), x, y
    )


METHODS = ("outer", "reduce")


def test_ufunc_methods() -> None:
    x, y = sample((4,), "f4", 1), sample((3,), "f4", 2)
    agrees(lambda x, y: np.multiply.outer(x, y), x, y)
    agrees(lambda x, y: np.add.reduce(x), x, y)
    agrees(lambda x, y: np.maximum.reduce(np.add.outer(x, y), axis=1, keepdims=True), x, y)
    agrees(lambda x, y: np.logical_and.reduce(np.add.outer(x, y) > 0, axis=None), x, y)
