"""Matrix descriptors of wgmma against the canonical layouts that CUTLASS documents."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tilewright.ptxsim import descriptor
from tilewright.ptxsim.descriptor import Descriptor


def offset(shape, stride, index: int) -> int:
    """What a layout of CuTe, nested shapes and strides, maps an index of one mode to."""
    if not isinstance(shape, tuple):
        return index * stride
    total = 0
    for size, step in zip(shape, stride, strict=True):
        total += index % size * step
        index //= size
    return total


def canonical(span: int, mn_major: bool, per: int, leading: int, stride: int):
    """The layout ((lines), (k)) : (strides) in elements, `per` elements being 16 bytes (T).

    From the comments of CUTLASS's GMMA descriptors, e.g. for K-major without a swizzle
    ((8, m), (T, 2)) : ((1T, SBO), (1, LBO)) and for MN-major with one of 128 bytes
    ((T, 8, m), (8, k)) : ((1, T, LBO), (8T, SBO)).
    """
    wide = span // 16
    many = 32
    if mn_major:
        if span == 0:
            return ((per, 1, many), (8, 2)), ((1, per, stride), (per, leading))
        return ((per, wide, many), (8, 2)), ((1, per, leading), (wide * per, stride))
    if span == 0:
        return ((8, many), (per, 2)), ((per, stride), (1, leading))
    return ((8, many), (per, 2)), ((wide * per, stride), (1, per))


def swizzle(address: int, span: int) -> int:
    """Swizzle<B, 4, 3>: bits 4.. of an address xor its bits 7.., B of them."""
    count = {0: 0, 32: 1, 64: 2, 128: 3}[span]
    return address ^ ((address >> 7) & ((1 << count) - 1)) << 4


@pytest.mark.parametrize("span, mn_major, size", [
    *itertools.product((0, 32, 64, 128), (False,), (1, 2, 4)),
    *itertools.product((0, 32, 64, 128), (True,), (2,)),
])
def test_addresses_are_those_of_the_canonical_layouts(
    span: int, mn_major: bool, size: int
) -> None:
    lines, k, start = 128, 32 // size, 5 * 1024 + (32 if span > 32 and not mn_major else 0)
    leading, stride = 4096 + 16 * 8, 2048
    got = descriptor.addresses(Descriptor(start, leading, stride, span), lines, k, size, mn_major)
    shapes, strides = canonical(span, mn_major, 16 // size, leading // size, stride // size)
    for line, depth in itertools.product(range(lines), range(k)):
        plain = offset(shapes[0], strides[0], line) + offset(shapes[1], strides[1], depth)
        assert got[line, depth] == swizzle(start + plain * size, span), (line, depth)


def test_bits_are_those_of_the_manual() -> None:
    found = descriptor.decode((0x4000 >> 4) | 1 << 16 | (1024 >> 4) << 32 | 1 << 62)
    assert found == Descriptor(start=0x4000, leading=16, stride=1024, span=128, base_offset=0)
    for mode, span in ((0, 0), (1, 128), (2, 64), (3, 32)):
        bits = mode << 62 | 5 << 49 | (512 >> 4) << 32 | (4096 >> 4) << 16 | 0x3FFF
        assert descriptor.decode(bits) == Descriptor(0x3FFF0, 4096, 512, span, 5)
        assert descriptor.decode(bits).encode() == bits


def test_a_base_offset_counts_lines_from_the_start_of_the_pattern() -> None:
    aligned = descriptor.addresses(Descriptor(8192, 0, 1024, 128), 16, 16, 2, False)
    moved = descriptor.addresses(Descriptor(8192 + 384, 0, 1024, 128, 3), 16, 16, 2, False)
    assert np.array_equal(moved, aligned + 384)
    assert not np.array_equal(
        descriptor.addresses(Descriptor(8192 + 384, 0, 1024, 128), 16, 16, 2, False), moved
    )
