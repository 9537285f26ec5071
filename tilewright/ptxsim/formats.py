"""The number formats of matrix operands: what the bits of an operand element mean.

Elements travel as unsigned codes; `decode` turns them into the exact number (float64, or int64 of
an integer format), `encode` rounds a number to the nearest code, ties to even.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Codes = NDArray[Any]
Numbers = NDArray[Any]

TF32_MASK = np.uint32(0xFFFFE000)
"""Of a tf32 operand the instruction reads the sign, the exponent and the upper 10 bits."""


@dataclass(frozen=True)
class Format:
    """One element type of PTX: its name, its width, and the NumPy type that has its values.

    `numpy` is the type that an element's code is viewed as; formats narrower than a byte have
    none and are integers of `bits` bits, signed or not.
    """

    name: str
    bits: int
    numpy: Any = None
    signed: bool = False

    @property
    def integer(self) -> bool:
        return self.name[0] in "su" or self.name == "b1"

    @property
    def code_type(self) -> Any:
        """The unsigned NumPy type that holds one code."""
        return np.dtype(f"u{max(self.bits, 8) // 8}")


FORMATS = {
    f.name: f
    for f in (
        Format("f64", 64, np.float64),
        Format("f32", 32, np.float32),
        Format("tf32", 32, np.float32),
        Format("f16", 16, np.float16),
        Format("bf16", 16, ml_dtypes.bfloat16),
        Format("e4m3", 8, ml_dtypes.float8_e4m3fn),
        Format("e5m2", 8, ml_dtypes.float8_e5m2),
        Format("s32", 32, np.int32, signed=True),
        Format("s8", 8, np.int8, signed=True),
        Format("u8", 8, np.uint8),
        Format("s4", 4, signed=True),
        Format("u4", 4),
        Format("b1", 1),
    )
}


def decode(codes: Codes, format: Format) -> Numbers:
    """The numbers that codes stand for, exactly, as float64 or int64."""
    if format.name == "tf32":
        codes = codes.astype(np.uint32) & TF32_MASK
    if format.numpy is None:
        numbers = codes.astype(np.int64)
        top = 1 << (format.bits - 1)
        return (numbers ^ top) - top if format.signed else numbers
    numbers = np.ascontiguousarray(codes, format.code_type).view(format.numpy)
    with np.errstate(invalid="ignore"):  # a signalling NaN is a NaN
        return numbers.astype(np.int64 if format.integer else np.float64)


def encode(numbers: Numbers, format: Format) -> Codes:
    """The codes nearest to numbers, ties to even; floats beyond the largest become infinite.

    Integers must be in range: whoever wraps or saturates does it before.
    """
    if format.numpy is None:
        return (numbers & ((1 << format.bits) - 1)).astype(np.uint8)
    with np.errstate(over="ignore", invalid="ignore"):
        return numbers.astype(format.numpy).view(format.code_type)


def unpack(registers: Codes, format: Format) -> Codes:
    """The codes in 32-bit (f64: 64-bit) registers, lowest bits first.

    `registers` is [..., r]; the result [..., r * elements per register].
    """
    if format.bits >= 32:
        return registers
    words = np.ascontiguousarray(registers, np.uint32)
    if format.bits >= 8:
        return words.view(format.code_type)
    shifts = np.arange(0, 32, format.bits, dtype=np.uint32)
    codes = (words[..., None] >> shifts) & np.uint32((1 << format.bits) - 1)
    return codes.reshape(*words.shape[:-1], -1).astype(np.uint8)


def pack(codes: Codes, format: Format) -> Codes:
    """The 32-bit registers that hold codes: the inverse of `unpack`."""
    if format.bits >= 32:
        return codes
    if format.bits >= 8:
        return np.ascontiguousarray(codes, format.code_type).view(np.uint32)
    per = 32 // format.bits
    groups = codes.reshape(*codes.shape[:-1], -1, per).astype(np.uint32)
    shifts = np.arange(0, 32, format.bits, dtype=np.uint32)
    return np.bitwise_or.reduce(groups << shifts, axis=-1)
