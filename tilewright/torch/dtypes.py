"""Element types, layouts and sizes: PyTorch's words and ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from tilewright.errors import UnsupportedSize
from tilewright.ir.sizes import Dim, Size
from tilewright.ir.types import (
    DType,
    TensorType,
    bf16,
    bool_,
    f16,
    f32,
    f64,
    i8,
    i16,
    i32,
    i64,
    u8,
    u16,
    u32,
    u64,
)
from tilewright.torch.symbols import size_of

OURS: dict[torch.dtype, DType] = {
    torch.bool: bool_, torch.uint8: u8, torch.uint16: u16, torch.uint32: u32, torch.uint64: u64,
    torch.int8: i8, torch.int16: i16, torch.int32: i32, torch.int64: i64,
    torch.float16: f16, torch.bfloat16: bf16, torch.float32: f32, torch.float64: f64,
}
THEIRS: dict[DType, torch.dtype] = {ours: theirs for theirs, ours in OURS.items()}

PARTS: dict[torch.dtype, DType] = {
    torch.complex32: f16, torch.complex64: f32, torch.complex128: f64,
}
"""By complex type, the type of its real and imaginary parts."""

Sizes = Mapping[Any, Dim]
"""By sympy symbol: the numbers of one specialisation, or the names that our sizes have."""


def number_of(value: Any, sizes: Sizes) -> Any:
    """A size, stride or scalar that tracing left symbolic, as the number that it is here."""
    if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
        if any(isinstance(size, Size) for size in sizes.values()):
            if isinstance(value, torch.SymBool):
                raise UnsupportedSize(f"the number {value}, which follows from named sizes")
            return size_of(value.node.expr, sizes)
        found = value.node.expr.xreplace(sizes)
        if isinstance(value, torch.SymBool):
            return bool(found)
        return int(found) if isinstance(value, torch.SymInt) else float(found)
    return value


def numbers_of(values: Any, sizes: Sizes) -> tuple[Any, ...]:
    """The shape or strides of a tensor as numbers."""
    return tuple(number_of(v, sizes) for v in values)


def tensor_type(value: torch.Tensor, sizes: Sizes) -> TensorType:
    """Our type of a tensor. Raises ``KeyError`` for an element type that we do not have."""
    return TensorType(OURS[value.dtype], numbers_of(value.shape, sizes))


def why_not(value: Any) -> str | None:
    """Why a value of the traced program cannot live in a compiled part; None if it can."""
    if isinstance(value, tuple | list):
        return next((reason for v in value if (reason := why_not(v))), None)
    if not isinstance(value, torch.Tensor):
        return None
    if value.dtype not in OURS and value.dtype not in PARTS:
        return f"the element type {value.dtype}"
    if value.layout is not torch.strided:
        return f"the layout {value.layout}"
    if value.device.type != "cpu":
        return f"the device {value.device}"
    if value.is_quantized:
        return "a quantised tensor"
    return None

TOKEN = torch.empty(0)
"""Stands for a token of effects. Made here: while a program is converted, new tensors are fake."""
