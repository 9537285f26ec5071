"""Tensor maps: how TMA sees a tensor in global memory, as the 128 bytes a kernel takes.

`encode` takes the arguments of cuTensorMapEncodeTiled and checks what the CUDA driver API
documents of them. The real record is opaque; this one is the simulator's own, with a mark in
front, so that bytes of another origin are refused.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from tilewright.errors import UserError

SIZE = 128
MARK = b"twtmap1\0"
MOST_DIMENSIONS = 5
RECORD = struct.Struct("<8s6BxxQ5Q4Q")
BOXES = struct.Struct("<5H5B")
assert RECORD.size + BOXES.size <= SIZE


class DataType(IntEnum):
    """CUtensorMapDataType: what an element is."""

    UINT8 = 0
    UINT16 = 1
    UINT32 = 2
    INT32 = 3
    UINT64 = 4
    INT64 = 5
    FLOAT16 = 6
    FLOAT32 = 7
    FLOAT64 = 8
    BFLOAT16 = 9
    FLOAT32_FTZ = 10
    TFLOAT32 = 11
    TFLOAT32_FTZ = 12

    @property
    def size(self) -> int:
        """Bytes per element."""
        return (1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4)[self]

    @property
    def floating(self) -> bool:
        """Whether elements are floating-point numbers."""
        return self >= DataType.FLOAT16


class Interleave(IntEnum):
    """CUtensorMapInterleave."""

    NONE = 0
    B16 = 1
    B32 = 2


class Swizzle(IntEnum):
    """CUtensorMapSwizzle."""

    NONE = 0
    B32 = 1
    B64 = 2
    B128 = 3

    @property
    def span(self) -> int:
        """The bytes within which pieces of 16 bytes are exchanged; 0 if none are."""
        return (0, 32, 64, 128)[self]


class L2Promotion(IntEnum):
    """CUtensorMapL2promotion: of no consequence here."""

    NONE = 0
    B64 = 1
    B128 = 2
    B256 = 3


class OutOfBoundsFill(IntEnum):
    """CUtensorMapFloatOOBfill: what elements outside of the tensor read as."""

    ZERO = 0
    NAN = 1


@dataclass(frozen=True)
class TensorMap:
    """What a record says. The first dimension is the innermost, whose stride is one element."""

    data_type: DataType
    address: int
    dims: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]
    element_strides: tuple[int, ...]
    interleave: Interleave = Interleave.NONE
    swizzle: Swizzle = Swizzle.NONE
    l2_promotion: L2Promotion = L2Promotion.NONE
    fill: OutOfBoundsFill = OutOfBoundsFill.ZERO

    @property
    def rank(self) -> int:
        """The number of dimensions."""
        return len(self.dims)

    @property
    def tile(self) -> tuple[int, ...]:
        """Elements per dimension of a tile in shared memory: the box, thinned by its strides."""
        return tuple(-(-b // s) for b, s in zip(self.box, self.element_strides, strict=True))

    @property
    def tile_bytes(self) -> int:
        """Bytes of a tile: what a copy adds to an mbarrier, out of bounds or not."""
        total = self.data_type.size
        for size in self.tile:
            total *= size
        return total


def encode(
    data_type: DataType, address: int, dims: Sequence[int], strides: Sequence[int],
    box: Sequence[int], element_strides: Sequence[int] | None = None,
    interleave: Interleave = Interleave.NONE, swizzle: Swizzle = Swizzle.NONE,
    l2_promotion: L2Promotion = L2Promotion.NONE,
    fill: OutOfBoundsFill = OutOfBoundsFill.ZERO,
) -> bytes:
    """The 128 bytes of a tensor map, from the arguments of cuTensorMapEncodeTiled.

    `dims`, `box` and `element_strides` (default: ones) count elements, innermost first; `strides`
    are the bytes from one index to the next of every dimension but the innermost. UserError names
    the argument that breaks a rule of the CUDA driver API.
    """
    rank = len(dims)
    if element_strides is None:
        element_strides = (1,) * rank
    steps = list(element_strides)
    if steps and interleave is Interleave.NONE:
        steps[0] = 1  # ignored without interleaving
    tensor = TensorMap(
        DataType(data_type), address, tuple(dims), tuple(strides), tuple(box), tuple(steps),
        Interleave(interleave), Swizzle(swizzle), L2Promotion(l2_promotion),
        OutOfBoundsFill(fill),
    )
    return record(tensor)


def _check_lengths(
    rank: int, strides: Sequence[int], box: Sequence[int], element_strides: Sequence[int]
) -> None:
    _require(1 <= rank <= MOST_DIMENSIONS, "dims", "1 to 5 dimensions", rank)
    _require(len(strides) == rank - 1, "strides", f"{rank - 1} strides in bytes, none for the "
             "innermost dimension", len(strides))
    _require(len(box) == rank, "box", f"{rank} sizes", len(box))
    _require(len(element_strides) == rank, "element_strides", f"{rank} strides",
             len(element_strides))


def check(tensor: TensorMap) -> None:
    """UserError if a tensor map breaks a documented rule of cuTensorMapEncodeTiled."""
    _check_lengths(tensor.rank, tensor.strides, tensor.box, tensor.element_strides)
    interleave = tensor.interleave
    grain = 32 if interleave is Interleave.B32 else 16
    _require(interleave is Interleave.NONE or tensor.rank >= 3, "interleave",
             "none for fewer than 3 dimensions", interleave.name)
    _require(tensor.address % grain == 0, "address", f"a multiple of {grain}",
             f"{tensor.address:#x}")
    for size in tensor.dims:
        _require(0 < size <= 1 << 32, "dims", "1 to 2**32 elements", size)
    for stride in tensor.strides:
        _require(stride % grain == 0, "strides", f"multiples of {grain} bytes", stride)
        _require(0 < stride < 1 << 40, "strides", "positive and less than 2**40 bytes", stride)
    for size in tensor.box:
        _require(0 < size <= 256, "box", "1 to 256 elements", size)
    for step in tensor.element_strides:
        _require(0 < step <= 8, "element_strides", "1 to 8", step)
    inner = tensor.box[0] * tensor.data_type.size
    span = tensor.swizzle.span
    if interleave is Interleave.NONE:
        _require(inner % 16 == 0, "box", "a multiple of 16 bytes in the innermost dimension",
                 f"{inner} bytes")
        _require(not span or inner <= span, "box", f"at most {span} bytes in the innermost "
                 f"dimension, the span of the swizzle", f"{inner} bytes")
    if interleave is Interleave.B32:
        _require(tensor.swizzle is Swizzle.B32, "swizzle", "B32, as the interleaving",
                 tensor.swizzle.name)
    _require(tensor.fill is OutOfBoundsFill.ZERO or tensor.data_type.floating, "fill",
             "zero for elements that are integers", tensor.fill.name)


def _require(holds: bool, argument: str, expected: str, got: object) -> None:
    if not holds:
        raise UserError(f"tensor map: bad {argument}", expected=expected, got=str(got))


def record(tensor: TensorMap) -> bytes:
    """The 128 bytes of a tensor map. UserError as :func:`check` raises it."""
    check(tensor)

    def padded(values: tuple[int, ...], length: int) -> tuple[int, ...]:
        return values + (0,) * (length - len(values))

    head = RECORD.pack(
        MARK, tensor.rank, tensor.data_type, tensor.interleave, tensor.swizzle,
        tensor.l2_promotion, tensor.fill, tensor.address, *padded(tensor.dims, 5),
        *padded(tensor.strides, 4),
    )
    boxes = BOXES.pack(*padded(tensor.box, 5), *padded(tensor.element_strides, 5))
    return (head + boxes).ljust(SIZE, b"\0")


def decode(record: bytes) -> TensorMap:
    """The tensor map in 128 bytes that `encode` made; ValueError if it made them not."""
    if len(record) != SIZE or record[: len(MARK)] != MARK:
        raise ValueError("these bytes are no tensor map of the simulator")
    _, rank, data_type, interleave, swizzle, l2, fill, address, *sizes = RECORD.unpack_from(record)
    boxes = BOXES.unpack_from(record, RECORD.size)
    return TensorMap(
        DataType(data_type), address, tuple(sizes[:rank]), tuple(sizes[5 : 4 + rank]),
        tuple(boxes[:rank]), tuple(boxes[5 : 5 + rank]), Interleave(interleave),
        Swizzle(swizzle), L2Promotion(l2), OutOfBoundsFill(fill),
    )
