"""Tensor maps: the record, the rules of cuTensorMapEncodeTiled, and which bytes a box is."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.errors import UserError
from tilewright.ptxsim import tensormap, tiles
from tilewright.ptxsim.tensormap import DataType, Interleave, OutOfBoundsFill, Swizzle

GOOD = {
    "data_type": DataType.BFLOAT16, "address": 0x1000, "dims": (100, 30), "strides": (208,),
    "box": (64, 16), "element_strides": (1, 1), "swizzle": Swizzle.B128,
}


def test_a_record_is_decoded_to_what_was_encoded() -> None:
    record = tensormap.encode(
        DataType.FLOAT32, 0x7FFF_1230, (1 << 32, 7, 5, 3, 2), (1 << 36, 48, 64, 80),
        (4, 256, 3, 2, 1), (1, 8, 1, 2, 3), swizzle=Swizzle.B32, fill=OutOfBoundsFill.NAN,
    )
    assert len(record) == 128
    tensor = tensormap.decode(record)
    assert (tensor.data_type, tensor.address) == (DataType.FLOAT32, 0x7FFF_1230)
    assert tensor.dims == (1 << 32, 7, 5, 3, 2)
    assert tensor.strides == (1 << 36, 48, 64, 80)
    assert tensor.box == (4, 256, 3, 2, 1)
    assert tensor.element_strides == (1, 8, 1, 2, 3)
    assert (tensor.swizzle, tensor.fill) == (Swizzle.B32, OutOfBoundsFill.NAN)
    assert tensor.tile == (4, 32, 3, 1, 1)
    assert tensor.tile_bytes == 4 * 4 * 32 * 3


def test_bytes_of_another_origin_are_refused() -> None:
    with pytest.raises(ValueError, match="no tensor map of the simulator"):
        tensormap.decode(bytes(128))


@pytest.mark.parametrize("change, argument", [
    ({"dims": ()}, "dims"),
    ({"dims": (1,) * 6}, "dims"),
    ({"dims": (0, 30)}, "dims"),
    ({"dims": ((1 << 32) + 1, 30)}, "dims"),
    ({"strides": (208, 16)}, "strides"),
    ({"strides": (200,)}, "strides"),
    ({"strides": (1 << 40,)}, "strides"),
    ({"strides": (0,)}, "strides"),
    ({"address": 0x1008}, "address"),
    ({"box": (64,)}, "box"),
    ({"box": (64, 257)}, "box"),
    ({"box": (0, 16)}, "box"),
    ({"box": (60, 16)}, "box"),
    ({"box": (128, 16)}, "box"),
    ({"box": (64, 16), "swizzle": Swizzle.B64}, "box"),
    ({"box": (32, 16), "swizzle": Swizzle.B32}, "box"),
    ({"element_strides": (1, 9)}, "element_strides"),
    ({"element_strides": (1, 0)}, "element_strides"),
    ({"element_strides": (1,)}, "element_strides"),
    ({"interleave": Interleave.B16}, "interleave"),
    ({"data_type": DataType.UINT16, "fill": OutOfBoundsFill.NAN}, "fill"),
    ({"interleave": Interleave.B32, "dims": (32, 8, 8), "strides": (64, 640), "box": (16, 8, 8),
      "element_strides": (1, 1, 1)}, "swizzle"),
    ({"interleave": Interleave.B32, "dims": (32, 8, 8), "strides": (48, 640), "box": (16, 8, 8),
      "element_strides": (1, 1, 1), "swizzle": Swizzle.B32}, "strides"),
])
def test_rules_of_the_driver(change: dict, argument: str) -> None:
    tensormap.encode(**GOOD)
    with pytest.raises(UserError, match=f"tensor map: bad {argument}\n"):
        tensormap.encode(**{**GOOD, **change})


def decoded(**change: object) -> tensormap.TensorMap:
    return tensormap.decode(tensormap.encode(**{**GOOD, **change}))


def copied(tensor: tensormap.TensorMap, source: np.ndarray, coordinates: tuple, at: int = 0):
    """Shared memory (bytes) after the copy of a tile from `source`, whose bytes are memory."""
    tile = tiles.tile_of(tensor, coordinates, at)
    near = np.zeros(at + tensor.tile_bytes, np.uint8)
    memory = source.reshape(-1).view(np.uint8)
    for far, inside, place in zip(tile.far, tile.inside, tile.near, strict=True):
        start = int(far) - tensor.address
        bytes_ = memory[start : start + tile.size].tobytes() if inside else tile.fill
        near[place : place + tile.size] = np.frombuffer(bytes_, np.uint8)
    return near


def test_a_box_of_three_dimensions_with_edges_and_strides() -> None:
    source = np.arange(4 * 6 * 8, dtype=np.float32).reshape(4, 6, 8)
    tensor = decoded(
        data_type=DataType.FLOAT32, dims=(7, 6, 4), strides=(32, 192), box=(4, 5, 2),
        element_strides=(1, 2, 1), swizzle=Swizzle.NONE,
    )
    got = copied(tensor, source, (5, -2, 3)).view(np.float32).reshape(2, 3, 4)
    expected = np.zeros((2, 3, 4), np.float32)
    for z in range(2):
        for y in range(3):
            for x in range(4):
                at = (3 + z, -2 + 2 * y, 5 + x)
                if all(0 <= i < n for i, n in zip(at, (4, 6, 7), strict=True)):
                    expected[z, y, x] = source[at]
    assert np.array_equal(got, expected)
    assert expected.any()


def test_outside_can_be_nan() -> None:
    source = np.ones((4, 16), np.float16)
    tensor = decoded(
        data_type=DataType.FLOAT16, dims=(16, 4), strides=(32,), box=(8, 2),
        swizzle=Swizzle.NONE, fill=OutOfBoundsFill.NAN,
    )
    got = copied(tensor, source, (12, 3)).view(np.float16).reshape(2, 8)
    assert np.array_equal(got[0, :4], [1, 1, 1, 1])
    assert np.isnan(got[0, 4:]).all() and np.isnan(got[1]).all()


# CUDA C++ programming guide, "The swizzle modes": of a tile whose rows are as wide as the span, the
# 16-byte piece x of row y lies at piece [f(x, y)] of that row.
PIECES = {
    Swizzle.B128: lambda x, y: (y % 8) ^ x,
    Swizzle.B64: lambda x, y: ((y // 2) % 4) ^ x,
    Swizzle.B32: lambda x, y: ((y // 4) % 2) ^ x,
}


@pytest.mark.parametrize("swizzle", list(PIECES), ids=lambda s: s.name)
def test_swizzles_are_those_of_the_programming_guide(swizzle: Swizzle) -> None:
    pieces, rows = swizzle.span // 16, 32
    source = np.arange(rows * pieces * 4, dtype=np.uint32).reshape(rows, pieces, 4)
    tensor = decoded(
        data_type=DataType.UINT32, dims=(pieces * 4, rows), strides=(pieces * 16,),
        box=(pieces * 4, rows), swizzle=swizzle,
    )
    got = copied(tensor, source, (0, 0), at=1024)[1024:].view(np.uint32)
    got = got.reshape(rows, pieces, 4)
    for y in range(rows):
        for x in range(pieces):
            assert np.array_equal(got[y, PIECES[swizzle](x, y)], source[y, x])


def test_a_swizzle_acts_on_addresses() -> None:
    # The guide: in a tile that is aligned to 128 bytes only, rows count from the address / 128.
    source = np.arange(8 * 8 * 4, dtype=np.uint32).reshape(8, 8, 4)
    tensor = decoded(
        data_type=DataType.UINT32, dims=(32, 8), strides=(128,), box=(32, 8),
        swizzle=Swizzle.B128,
    )
    got = copied(tensor, source, (0, 0), at=3 * 128)[3 * 128 :].view(np.uint32).reshape(8, 8, 4)
    for y in range(8):
        for x in range(8):
            assert np.array_equal(got[y, ((y + 3) % 8) ^ x], source[y, x])


@pytest.mark.parametrize("change, at, message", [
    ({}, 64, "not aligned to 128"),
    ({"box": (32, 16)}, 0, "as wide as the swizzle"),
    ({"data_type": DataType.TFLOAT32, "box": (32, 16)}, 0, "TFLOAT32"),
    ({"dims": (100, 30, 2), "strides": (224, 6720), "box": (16, 16, 1),
      "element_strides": (1, 1, 1), "interleave": Interleave.B16}, 0, "interleaved"),
])
def test_what_is_not_simulated_is_refused(change: dict, at: int, message: str) -> None:
    tensor = decoded(**change)
    with pytest.raises(tiles.Untold, match=message):
        tiles.tile_of(tensor, (0,) * tensor.rank, at)
