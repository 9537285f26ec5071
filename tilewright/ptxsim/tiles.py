"""Which bytes a tensor copy moves: the elements of a box, in global and in shared memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilewright.ptxsim.swizzle import swizzled
from tilewright.ptxsim.tensormap import DataType, Interleave, OutOfBoundsFill, TensorMap

Addresses = NDArray[np.int64]

ALIGNMENT = 128
"""Of a tile in shared memory, in bytes."""

NAN_CODES = {
    DataType.FLOAT16: 0x7FFF, DataType.BFLOAT16: 0x7FFF,
    DataType.FLOAT32: 0x7FFFFFFF, DataType.FLOAT64: 0x7FFFFFFFFFFFFFFF,
}


class Untold(ValueError):
    """A copy that is no valid one, or one whose effect no manual tells."""


@dataclass(frozen=True)
class Tile:
    """The elements of a box, innermost dimension first, as one flat list.

    far      their addresses in global memory, meaningful where `inside`
    inside   whether the tensor has them
    near     their addresses in shared memory
    size     bytes per element
    fill     the bytes of an element outside
    """

    far: Addresses
    inside: NDArray[np.bool_]
    near: Addresses
    size: int
    fill: bytes


def tile_of(tensor: TensorMap, coordinates: Sequence[int], shared: int) -> Tile:
    """The tile at `coordinates` (innermost first, may be negative), at `shared` in shared memory.

    Elements follow each other in shared memory without gaps; a swizzle permutes their 16-byte
    pieces by address. Untold: a misaligned tile, or a form that is not simulated.
    """
    _check_simulated(tensor)
    if len(coordinates) != tensor.rank:
        raise Untold(f"{len(coordinates)} coordinates for a tensor of {tensor.rank} dimensions")
    if shared % ALIGNMENT:
        raise Untold(f"the tile at shared address {shared:#x} is not aligned to {ALIGNMENT} bytes")
    far = np.full((1,) * tensor.rank, tensor.address, np.int64)
    inside = np.ones((1,) * tensor.rank, np.bool_)
    size = tensor.data_type.size
    for i, (start, count, step) in enumerate(
        zip(coordinates, tensor.tile, tensor.element_strides, strict=True)
    ):
        axis = [1] * tensor.rank
        axis[tensor.rank - 1 - i] = count
        places = (start + step * np.arange(count, dtype=np.int64)).reshape(axis)
        far = far + places * (size if i == 0 else tensor.strides[i - 1])
        inside = inside & (places >= 0) & (places < tensor.dims[i])
    near = shared + size * np.arange(far.size, dtype=np.int64)
    near = swizzled(near, tensor.swizzle.span)
    return Tile(far.reshape(-1), inside.reshape(-1), near, size, _fill(tensor))


def _check_simulated(tensor: TensorMap) -> None:
    if tensor.interleave is not Interleave.NONE:
        raise Untold(f"interleaved tensor maps ({tensor.interleave.name}) are not simulated")
    if tensor.data_type in (DataType.FLOAT32_FTZ, DataType.TFLOAT32, DataType.TFLOAT32_FTZ):
        raise Untold(f"tensor maps of {tensor.data_type.name}, which change values while they "
                     "copy, are not simulated")
    inner, span = tensor.box[0] * tensor.data_type.size, tensor.swizzle.span
    if span and inner != span:
        raise Untold(f"a box of {inner} bytes under a swizzle of {span}: only boxes as wide as "
                     "the swizzle are simulated")


def _fill(tensor: TensorMap) -> bytes:
    if tensor.fill is OutOfBoundsFill.ZERO:
        return bytes(tensor.data_type.size)
    return NAN_CODES[tensor.data_type].to_bytes(tensor.data_type.size, "little")
