"""The scalar types of PTX as NumPy types, and literals as numbers of a type."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import ml_dtypes
import numpy as np

KINDS: dict[str, np.dtype[Any]] = {
    **{f"{letter}{bits}": np.dtype(f"{kind}{bits // 8}")
       for letter, kind in (("b", "u"), ("u", "u"), ("s", "i")) for bits in (8, 16, 32, 64)},
    "f16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16),
    "f32": np.dtype(np.float32), "tf32": np.dtype(np.float32), "f64": np.dtype(np.float64),
    "f16x2": np.dtype(np.uint32), "bf16x2": np.dtype(np.uint32), "f32x2": np.dtype(np.uint64),
    "pred": np.dtype(np.bool_),
}
"""By the name of a type; packed pairs are words."""

CODES = {size: np.dtype(f"u{size}") for size in (1, 2, 4, 8)}
"""The unsigned type of so many bytes."""

POISON = {1: 0xA5, 2: 0xFFFF, 4: 0xFFFFFFFF, 8: 0xFFFFFFFFFFFFFFFF}
"""What a register holds that was never written: NaN as a float."""


@lru_cache(maxsize=4096)
def kind_of(parts: tuple[str, ...]) -> str:
    """The last type that an instruction names."""
    for part in reversed(parts):
        if part in KINDS:
            return part
    raise KeyError(parts)


@lru_cache(maxsize=4096)
def literal(number: int, float_bits: int, kind: str) -> Any:
    """A literal as a value of a type: a float literal by its bits, an integer modulo its size."""
    dtype = KINDS[kind]
    if float_bits:
        code = np.array(number, CODES[float_bits // 8])
        value = code.view(f"f{float_bits // 8}")
        is_code = dtype.kind == "u" and dtype.itemsize == value.itemsize
        return value.view(dtype)[()] if is_code else value.astype(dtype)[()]
    if dtype.kind == "b":
        return np.bool_(number)
    if dtype.kind not in "ui":
        return np.array(number).astype(dtype)[()]
    code = np.array(number & (1 << 8 * dtype.itemsize) - 1, CODES[dtype.itemsize])
    return code.view(dtype)[()]
