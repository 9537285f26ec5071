"""Matrix descriptors: the 64 bits that tell wgmma where an operand lies in shared memory.

An operand of `lines` (M of A, N of B) times k elements, k elements being 32 bytes, consists of core
matrices of 8 times 16 bytes. Either the 16 bytes run along K (K-major) or along the lines
(MN-major, 16-bit types only). Where the next core matrix lies say two offsets:

| layout             | leading offset              | stride offset                |
|--------------------|-----------------------------|------------------------------|
| K-major, plain     | the next 16 bytes of K      | the next 8 lines             |
| K-major, swizzled  | not used                    | the next 8 lines             |
| MN-major, plain    | the next 8 of K             | the next 16 bytes of lines   |
| MN-major, swizzled | the next span of lines      | the next 8 of K              |

Source: PTX ISA, "Matrix descriptor format" and "Strides"; the canonical layouts that CUTLASS
documents beside its descriptor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright.ptxsim.swizzle import swizzled

SPAN_OF_MODE = {0: 0, 1: 128, 2: 64, 3: 32}
MODE_OF_SPAN = {span: mode for mode, span in SPAN_OF_MODE.items()}
REACH = 1 << 18
"""Bytes that a field of 14 bits, counting 16 bytes, reaches."""


@dataclass(frozen=True)
class Descriptor:
    """A decoded descriptor: a shared address and offsets in bytes, the span of the swizzle."""

    start: int
    leading: int
    stride: int
    span: int = 0
    base_offset: int = 0

    def encode(self) -> int:
        """The 64 bits."""
        fields = (self.start, self.leading, self.stride)
        start, leading, stride = ((value % REACH) >> 4 for value in fields)
        mode = MODE_OF_SPAN[self.span]
        return start | leading << 16 | stride << 32 | self.base_offset << 49 | mode << 62


def decode(bits: int) -> Descriptor:
    """A descriptor from its 64 bits."""
    return Descriptor(
        start=(bits & 0x3FFF) << 4, leading=(bits >> 16 & 0x3FFF) << 4,
        stride=(bits >> 32 & 0x3FFF) << 4, span=SPAN_OF_MODE[bits >> 62 & 3],
        base_offset=bits >> 49 & 7,
    )


def addresses(
    descriptor: Descriptor, lines: int, k: int, size: int, mn_major: bool
) -> NDArray[Any]:
    """The shared addresses [lines, k] of an operand's elements of `size` bytes each."""
    line, depth = np.arange(lines)[:, None], np.arange(k)[None, :]
    per = 16 // size  # elements in 16 bytes
    span, leading, stride = descriptor.span, descriptor.leading, descriptor.stride
    if not mn_major:
        within = depth % per * size
        if span == 0:
            offset = line // 8 * stride + line % 8 * 16 + depth // per * leading + within
        else:
            offset = line // 8 * stride + line % 8 * span + depth * size
    elif span == 0:
        offset = line // per * stride + line % per * size + depth // 8 * leading + depth % 8 * 16
    else:
        wide = span // size  # lines in a span
        offset = line // wide * leading + line % wide * size + depth // 8 * stride
        offset = offset + depth % 8 * span
    return swizzled(descriptor.start + offset, span, descriptor.base_offset)
