"""wgmma as a function of the registers of warps and the bytes of shared memory.

The four warps of a warpgroup execute a wgmma together, but warp w computes rows 16w..16w+15 of D
from those rows of A and all of B: the product of one warp needs no other warp.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from tilewright.ptxsim import descriptor, fragments
from tilewright.ptxsim.descriptor import Descriptor
from tilewright.ptxsim.formats import FORMATS, Codes, Format, Numbers, decode, pack, unpack
from tilewright.ptxsim.fragments import Shape
from tilewright.ptxsim.sums import multiply_add
from tilewright.ptxsim.warp_matrix import NotSimulated

K_BYTES = 32
ROWS = 16
"""Rows of A and D per warp."""

SharedCodes = Callable[[NDArray[np.int64], int], Codes]
"""What reads elements of so many bytes at addresses of shared memory, as codes."""

RESULTS = {
    "f16": ("f16", "f32"), "bf16": ("f32",), "tf32": ("f32",), "e4m3": ("f16", "f32"),
    "e5m2": ("f16", "f32"), "s8": ("s32",), "u8": ("s32",),
}
"""The types of D that wgmma has for a type of A (PTX ISA, wgmma.mma_async)."""


@dataclass(frozen=True)
class WarpgroupForm:
    """One form of wgmma.mma_async."""

    n: int
    k: int
    d_format: Format
    a_format: Format
    b_format: Format
    satfinite: bool

    @property
    def can_transpose(self) -> bool:
        """Whether operands may be MN-major: those of 16 bits."""
        return self.a_format.bits == 16

    def a_in_shared(
        self, where: Descriptor, warp: int, mn_major: bool, read: SharedCodes
    ) -> Numbers:
        """The rows [16, k] of A that a warp of the group needs."""
        at = descriptor.addresses(where, 64, self.k, self.a_format.bits // 8, mn_major)
        return decode(read(at[ROWS * warp : ROWS * (warp + 1)], self.a_format.bits // 8),
                      self.a_format)

    def a_in_registers(self, registers: Codes) -> Numbers:
        """The same of registers [32, 4]."""
        layout = fragments.multiplicand("a", Shape(ROWS, 8, self.k), self.a_format)
        return decode(layout.to_matrix(unpack(registers, self.a_format)), self.a_format)

    def b_in_shared(self, where: Descriptor, mn_major: bool, read: SharedCodes) -> Numbers:
        """B as [n, k]."""
        size = self.b_format.bits // 8
        at = descriptor.addresses(where, self.n, self.k, size, mn_major)
        return decode(read(at, size), self.b_format)

    def multiply(self, a: Numbers, b: Numbers, d: Codes, scale_d: bool) -> Codes:
        """The registers [32, r] of a warp's D = A B^T (+ D if `scale_d`); A is [16, k]."""
        layout = fragments.wgmma_accumulator(self.n)
        start: Numbers = np.zeros((ROWS, self.n), np.int64 if self.d_format.integer else float)
        if scale_d:
            start = decode(layout.to_matrix(unpack(d, self.d_format)), self.d_format)
        result = multiply_add(a, b.T, start, self.d_format, self.satfinite)
        return pack(layout.to_threads(result), self.d_format)


@cache
def wgmma(parts: tuple[str, ...]) -> WarpgroupForm:
    """The form that the dotted parts of a wgmma.mma_async name; NotSimulated if there is none.

    wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16, integers with [.satfinite]
    """
    words = list(parts)
    satfinite = "satfinite" in words
    if satfinite:
        words.remove("satfinite")
    match = re.fullmatch(r"m64n(\d+)k(\d+)", words[4]) if len(words) == 8 else None
    if match is None or not set(words[5:]) <= set(FORMATS):
        raise NotSimulated(f"no form of wgmma: {'.'.join(parts)}")
    n, k = int(match[1]), int(match[2])
    d, a, b = (FORMATS[name] for name in words[5:])
    if n % 8 or not 8 <= n <= 256 or d.name not in RESULTS.get(a.name, ()):
        raise NotSimulated(f"no form of wgmma: {'.'.join(parts)}")
    if a.bits != b.bits or k * a.bits != 8 * K_BYTES or (a.bits > 8 and a is not b):
        raise NotSimulated(f"no form of wgmma: {'.'.join(parts)}")
    return WarpgroupForm(n, k, d, a, b, satfinite)
