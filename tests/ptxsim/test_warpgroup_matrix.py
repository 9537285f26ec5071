"""wgmma as a function of registers and shared memory, against plain matrix products."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.ptxsim import descriptor, fragments
from tilewright.ptxsim.descriptor import Descriptor
from tilewright.ptxsim.formats import FORMATS, decode, encode, pack
from tilewright.ptxsim.fragments import Shape
from tilewright.ptxsim.warp_matrix import NotSimulated
from tilewright.ptxsim.warpgroup_matrix import wgmma


class Shared:
    """64 KiB in which matrices are placed by descriptor."""

    def __init__(self) -> None:
        self.bytes = np.zeros(1 << 16, np.uint8)

    def read(self, at: np.ndarray, size: int) -> np.ndarray:
        return self.bytes[at[..., None] + np.arange(size)].view(f"u{size}")[..., 0]

    def place(self, codes: np.ndarray, where: Descriptor, mn_major: bool) -> None:
        size = codes.dtype.itemsize
        at = descriptor.addresses(where, *codes.shape, size, mn_major)
        self.bytes[at[..., None] + np.arange(size)] = codes[..., None].view(np.uint8).reshape(
            *codes.shape, size
        )


def random_numbers(shape: tuple, name: str) -> np.ndarray:
    rng = np.random.default_rng(5)
    low = 0 if name == "u8" else -4
    return rng.integers(low, 5, shape) / (1 if FORMATS[name].integer else 2)


@pytest.mark.parametrize("types", [
    "m64n24k16.f32.bf16.bf16", "m64n8k16.f16.f16.f16", "m64n16k8.f32.tf32.tf32",
    "m64n16k32.f32.e4m3.e5m2", "m64n32k32.s32.s8.u8", "m64n32k32.satfinite.s32.u8.s8",
])
@pytest.mark.parametrize("span", [0, 32, 128])
def test_each_warp_has_its_rows(types: str, span: int) -> None:
    form = wgmma(("wgmma", "mma_async", "sync", "aligned", *types.split(".")))
    memory = Shared()
    a = random_numbers((64, form.k), form.a_format.name)
    b = random_numbers((form.n, form.k), form.b_format.name)
    d = random_numbers((64, form.n), "bf16") * 4
    width = max(span, 16) * 8
    at_a, at_b = Descriptor(0, 128, width + (span == 0) * 128, span), Descriptor(
        32768, 128, width + (span == 0) * 128, span)
    memory.place(encode(a, form.a_format), at_a, False)
    memory.place(encode(b, form.b_format), at_b, False)
    layout = fragments.wgmma_accumulator(form.n)
    numbers_b = form.b_in_shared(at_b, False, memory.read)
    assert np.array_equal(numbers_b, b)
    for warp in range(4):
        rows = slice(16 * warp, 16 * warp + 16)
        held = pack(layout.to_threads(encode(d[rows], form.d_format)), form.d_format)
        numbers_a = form.a_in_shared(at_a, warp, False, memory.read)
        for scale in (False, True):
            got = form.multiply(numbers_a, numbers_b, held, scale)
            got = layout.to_matrix(
                got if form.d_format.bits == 32 else got.view(np.uint16)
            )
            expected = a[rows] @ b.T + scale * d[rows]
            assert np.array_equal(decode(got, form.d_format), expected)


def test_operands_across_lie_in_atoms_of_64_lines() -> None:
    """CUTLASS's Layout_MN_SW128_Atom of 16 bits: 64 lines, one beside the other, for each of 8 k.

    The leading offset leads to the next 64 lines, the stride offset to the next 8 of k.
    """
    form = wgmma(("wgmma", "mma_async", "sync", "aligned", *"m64n192k16.f32.bf16.bf16".split(".")))
    rng, leading, stride = np.random.default_rng(6), 6144, 2048
    for lines in (64, form.n):
        memory, numbers = Shared(), rng.integers(-8, 9, (lines, form.k)).astype(float)
        where = Descriptor(3072, leading, stride, 128)
        for line in range(lines):
            for k in range(form.k):
                at = 3072 + line // 64 * leading + k // 8 * stride + k % 8 * 128 + line % 64 * 2
                at ^= (at >> 7 & 7) << 4
                code = encode(numbers[line, k], form.a_format)
                memory.bytes[at:at + 2] = np.atleast_1d(code).view(np.uint8)
        if lines == form.n:
            assert np.array_equal(form.b_in_shared(where, True, memory.read), numbers)
            continue
        got = [form.a_in_shared(where, warp, True, memory.read) for warp in range(4)]
        assert np.array_equal(np.concatenate(got), numbers)
        along = [form.a_in_shared(where, warp, False, memory.read) for warp in range(4)]
        assert not np.array_equal(np.concatenate(along), numbers)


@pytest.mark.parametrize("types", ["m64n16k16.f32.f16.f16", "m64n16k8.f32.tf32.tf32",
                                   "m64n16k32.s32.s8.s8"])
def test_a_can_be_in_registers(types: str) -> None:
    form = wgmma(("wgmma", "mma_async", "sync", "aligned", *types.split(".")))
    a = random_numbers((16, form.k), form.a_format.name)
    layout = fragments.multiplicand("a", Shape(16, 8, form.k), form.a_format)
    registers = pack(layout.to_threads(encode(a, form.a_format)), form.a_format)
    assert registers.shape == (32, 4)
    assert np.array_equal(form.a_in_registers(registers), a)


@pytest.mark.parametrize("types", [
    "m64n12k16.f32.bf16.bf16", "m64n264k16.f32.bf16.bf16", "m64n16k8.f32.bf16.bf16",
    "m64n16k16.f16.bf16.bf16", "m64n16k16.f32.bf16.f16", "m128n16k16.f32.bf16.bf16",
    "m64n16k16.f32.bf16",
])
def test_forms_that_ptx_has_not_are_refused(types: str) -> None:
    with pytest.raises(NotSimulated):
        wgmma(("wgmma", "mma_async", "sync", "aligned", *types.split(".")))
