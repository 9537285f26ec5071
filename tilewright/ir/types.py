"""Element types, shapes and tensor types; NumPy 2's promotion and broadcasting as functions."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TypeAlias

import ml_dtypes
import numpy as np

from tilewright.errors import UnsupportedSize
from tilewright.ir.hints import estimate
from tilewright.ir.sizes import Dim, product

Shape: TypeAlias = tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class DType:
    """An element type. ``kind`` is NumPy's letter: b(ool), i(nt), u(nsigned), f(loat)."""

    name: str
    kind: str
    bits: int

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """Copies are the type itself, which is compared by identity."""
        return dtype_of, (self.name,)

    @property
    def numpy(self) -> np.dtype:
        """The NumPy dtype (``ml_dtypes`` supplies bfloat16)."""
        return _NUMPY[self.name]

    @property
    def itemsize(self) -> int:
        """Bytes of one element in memory; a bool takes one."""
        return max(1, self.bits // 8)

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

    @property
    def is_int(self) -> bool:
        """Signed or unsigned integer; bool is not one."""
        return self.kind in "iu"

    def __repr__(self) -> str:
        return self.name


bool_ = DType("bool", "b", 1)
i8, i16, i32, i64 = (DType(f"i{n}", "i", n) for n in (8, 16, 32, 64))
u8, u16, u32, u64 = (DType(f"u{n}", "u", n) for n in (8, 16, 32, 64))
f16, f32, f64 = (DType(f"f{n}", "f", n) for n in (16, 32, 64))
bf16 = DType("bf16", "f", 16)

DTYPES: dict[str, DType] = {
    d.name: d for d in (bool_, i8, i16, i32, i64, u8, u16, u32, u64, f16, bf16, f32, f64)
}
INTS = (i8, i16, i32, i64, u8, u16, u32, u64)
FLOATS = (f16, bf16, f32, f64)

_NUMPY: dict[str, np.dtype] = {
    "bool": np.dtype(np.bool_),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    **{f"{k}{n}": np.dtype(f"{k}{n // 8}") for k in "iu" for n in (8, 16, 32, 64)},
    **{f"f{n}": np.dtype(f"f{n // 8}") for n in (16, 32, 64)},
}
_FROM_NUMPY: dict[np.dtype, DType] = {v: DTYPES[k] for k, v in _NUMPY.items()}


def dtype_of(value: object) -> DType:
    """The DType of a NumPy dtype, scalar type, name or array.

    Raises ``TypeError`` if there is none.
    """
    if isinstance(value, DType):
        return value
    if isinstance(value, str) and value in DTYPES:
        return DTYPES[value]
    found = value if isinstance(value, (np.dtype, type)) else getattr(value, "dtype", value)
    plain = np.dtype(found)  # type: ignore[call-overload]
    try:
        return _FROM_NUMPY[plain.newbyteorder("=")]
    except KeyError:
        raise TypeError(f"no tilewright type for the NumPy dtype {plain}") from None


@functools.lru_cache(maxsize=None)
def promote(*dtypes: DType) -> DType:
    """The common type of arrays of these types under NumPy 2's rules.

    Raises ``TypeError`` where NumPy has none: bfloat16 with float16 or with wide integers.
    """
    return dtype_of(np.result_type(*(d.numpy for d in dtypes)))


def accumulator(dtype: DType) -> DType:
    """The type in which sums over ``dtype`` are kept: f32 for the 16-bit floats, else itself."""
    return f32 if dtype in (f16, bf16) else dtype


@dataclass(frozen=True, slots=True)
class TensorType:
    """An element type and a shape; prints as ``f32[64, 128]``."""

    dtype: DType
    shape: Shape

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> Dim:
        """Number of elements."""
        return size_of(self.shape)

    @property
    def nbytes(self) -> Dim:
        return self.size * self.dtype.itemsize

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(dtype, self.shape)

    def with_shape(self, shape: Shape) -> TensorType:
        return TensorType(self.dtype, shape)

    def __repr__(self) -> str:
        return f"{self.dtype.name}[{', '.join(map(str, self.shape))}]"


def concrete(shape: Shape) -> tuple[int, ...]:
    """The shape as numbers. Raises ``UnsupportedSize`` for one known when the program runs."""
    for d in shape:
        if not isinstance(d, int):
            raise UnsupportedSize(f"the size '{d}' has no number here")
    return shape  # type: ignore[return-value]


def size_of(shape: Shape) -> Dim:
    """Product of the dimensions."""
    return product(shape)


def as_number(dim: Dim) -> int:
    """The size as a number. Raises ``UnsupportedSize`` for one known when the program runs."""
    if not isinstance(dim, int):
        raise UnsupportedSize(f"the size '{dim}' has no number here")
    return dim


def broadcast_shapes(*shapes: Shape) -> Shape:
    """The shape that all of these broadcast to, as NumPy does it. Raises ``ValueError`` if none."""
    rank = max((len(s) for s in shapes), default=0)
    result: list[Dim] = []
    for i in range(-rank, 0):
        sizes = [s[i] for s in shapes if len(s) >= -i]
        wide = [d for d in sizes if d != 1]
        if any(d != wide[0] for d in wide):
            listed = " and ".join(str(s) for s in shapes)
            raise ValueError(f"shapes {listed} do not broadcast: axis {i} has sizes {sizes}")
        result.append(wide[0] if wide else 1)
    return tuple(result)


Block: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]


def reshape_blocks(result: Shape, source: Shape) -> list[Block]:
    """The finest blocks of neighbouring axes (of the result, of the source) that hold the same
    elements of a reshape in the same order."""
    blocks: list[Block] = []
    i = j = 0
    while i < len(result) or j < len(source):
        first_i, first_j = i, j
        left: Dim = 1
        right: Dim = 1
        while i == first_i or j == first_j or left != right:
            if i < len(result) and (j == len(source) or estimate(left) <= estimate(right)):
                left = left * result[i]
                i += 1
            elif j < len(source):
                right = right * source[j]
                j += 1
            else:
                break
        blocks.append((tuple(range(first_i, i)), tuple(range(first_j, j))))
    return blocks
