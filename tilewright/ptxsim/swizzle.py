"""The swizzles of shared memory that TMA and wgmma share.

A swizzle of 32, 64 or 128 bytes permutes the 16-byte pieces of each 128-byte line: the lowest one,
two or three bits of the piece's number are xored with those of the line's. It acts on addresses,
so a tile that starts at a multiple of 256, 512 or 1024 bytes sees the pattern from its start.
Source: CUDA driver API, CUtensorMapSwizzle; PTX ISA, "Swizzling modes" and the matrix descriptor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SPANS = (0, 32, 64, 128)
"""The sizes in bytes within which pieces are exchanged; 0 exchanges none."""


def swizzled(addresses: NDArray[Any], span: int, base_offset: int = 0) -> NDArray[Any]:
    """Where the bytes that a plain tile would have at `addresses` lie under a swizzle.

    `base_offset` is the line, counted modulo 8, at which the pattern starts.
    """
    if span == 0:
        return addresses
    mask = span // 16 - 1
    lines = (addresses >> 7) - base_offset
    return np.asarray(addresses ^ ((lines & mask) << 4))
