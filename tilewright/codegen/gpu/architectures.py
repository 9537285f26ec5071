"""Architectures of NVIDIA GPUs as data, and targets made of them.

The numbers are those of the CUDA C++ Programming Guide, "Compute Capabilities"; which version of
PTX knows an architecture is in the PTX ISA, "Release Notes". Counts of multiprocessors and bytes of
L2 differ between chips of one architecture: these are a common chip's, for when there is no device
to ask.
"""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.compiler.target import Gpu, Target
from tilewright.errors import UserError

TRIPLE = "nvptx64-nvidia-cuda"

NEWEST_PTX = 90
"""The newest version that LLVM writes."""

KIB = 1 << 10


@dataclass(frozen=True)
class Architecture:
    """A compute capability.

    sm               80 for 8.0
    ptx              the first PTX that knows it: 70 for version 7.0
    shared_all       KiB of shared memory of a multiprocessor
    shared_most      KiB of it that one block may ask for
    threads, blocks  resident on a multiprocessor, at most
    multiprocessors  of a common chip
    l2               KiB of L2 cache of that chip
    suffix           ``a``: with instructions that no other architecture has
    """

    sm: int
    ptx: int
    shared_all: int
    shared_most: int
    threads: int
    blocks: int
    multiprocessors: int
    l2: int
    suffix: str = ""

    @property
    def name(self) -> str:
        return f"sm_{self.sm}{self.suffix}"

    @property
    def tier(self) -> str:
        """The best way to multiply matrices, of :data:`TIERS`."""
        return next(tier for tier, least in TIERS if within(self, least))

    @property
    def registers(self) -> int:
        """32-bit registers of a multiprocessor."""
        return 1 << 16


def within(architecture: Architecture, least: str) -> bool:
    """Whether an architecture has what ``least`` has: it is the same, or newer.

    A name with the suffix ``a`` stands for itself alone.
    """
    if least.endswith("a"):
        return architecture.name == least
    return architecture.sm >= int(least.removeprefix("sm_"))


TIERS = (
    ("wgmma", "sm_90a"), ("async", "sm_80"), ("mma", "sm_75"), ("wmma", "sm_70"),
    ("ffma", "sm_50"),
)
"""Ways to multiply matrices, the best first, with the least architecture: TMA and wgmma; cp.async,
ldmatrix and mma; ldmatrix and mma; wmma; FMA in f32 alone."""

ARCHITECTURES: dict[str, Architecture] = {a.name: a for a in (
    Architecture(50, 40, 64, 48, 2048, 32, 5, 2048),
    Architecture(52, 41, 96, 48, 2048, 32, 16, 2048),
    Architecture(53, 42, 64, 48, 2048, 32, 2, 256),
    Architecture(60, 50, 64, 48, 2048, 32, 56, 4096),
    Architecture(61, 50, 96, 48, 2048, 32, 20, 2048),
    Architecture(62, 50, 64, 48, 2048, 32, 2, 512),
    Architecture(70, 60, 96, 96, 2048, 32, 80, 6144),
    Architecture(72, 61, 96, 96, 2048, 32, 8, 512),
    Architecture(75, 63, 64, 64, 1024, 16, 40, 4096),
    Architecture(80, 70, 164, 163, 2048, 32, 108, 40960),
    Architecture(86, 71, 100, 99, 1536, 16, 82, 6144),
    Architecture(87, 74, 164, 163, 1536, 16, 16, 4096),
    Architecture(89, 78, 100, 99, 1536, 24, 128, 73728),
    Architecture(90, 78, 228, 227, 2048, 32, 132, 51200),
    Architecture(90, 80, 228, 227, 2048, 32, 132, 51200, "a"),
    Architecture(100, 86, 228, 227, 2048, 32, 148, 129024),
    Architecture(103, 88, 228, 227, 2048, 32, 148, 129024),
    Architecture(120, 87, 100, 99, 1536, 24, 170, 98304),
    Architecture(121, 88, 100, 99, 1536, 24, 48, 24576),
)}

PTX_OF_DRIVER: dict[int, int] = {
    6000: 40, 6050: 41, 7000: 42, 7050: 43, 8000: 50, 9000: 60, 9010: 61, 9020: 62, 10000: 63,
    10010: 64, 10020: 65, 11000: 70, 11010: 71, 11020: 72, 11030: 73, 11040: 74, 11050: 75,
    11060: 76, 11070: 77, 11080: 78, 12000: 80, 12010: 81, 12020: 82, 12030: 83, 12040: 84,
    12050: 85, 12070: 86, 12080: 87, 12090: 88, 13000: 90,
}
"""The newest PTX that a driver reads, by the CUDA version that cuDriverGetVersion gives."""


def version_text(ptx: int) -> str:
    """``7.8`` for 78."""
    return f"{ptx // 10}.{ptx % 10}"


def ptx_of_driver(version: int) -> int:
    """The newest PTX that both a driver and LLVM know; 0 for a driver older than CUDA 6.

    A driver reads all older versions too, so one that is newer than the table reads its newest.
    """
    return max((ptx for cuda, ptx in PTX_OF_DRIVER.items() if cuda <= version), default=0)


def driver_of_ptx(ptx: int) -> str:
    """The first CUDA version whose driver reads a PTX: ``12.0`` for 80."""
    known = [cuda for cuda, newest in PTX_OF_DRIVER.items() if newest >= ptx]
    if known:
        return cuda_text(min(known))
    return f"newer than {cuda_text(max(PTX_OF_DRIVER))}"


def cuda_text(version: int) -> str:
    """``12.4`` for 12040."""
    return f"{version // 1000}.{version % 1000 // 10}"


def architecture(name: str) -> Architecture:
    """The architecture of a name. Raises ``UserError`` if there is none."""
    if name not in ARCHITECTURES:
        raise UserError(
            f"there is no GPU architecture '{name}'",
            expected=", ".join(ARCHITECTURES),
            got=name,
        )
    return ARCHITECTURES[name]


def of_capability(
    major: int, minor: int, ptx: int = NEWEST_PTX, own: bool = True
) -> Architecture:
    """The best architecture for a device whose driver reads PTX up to ``ptx``.

    A device takes code for its own architecture, with what that alone has if ``own`` says so, and
    for older ones. It is the oldest if the driver knows none. Raises ``UserError`` for a device
    older than sm_50.
    """
    number = 10 * major + minor
    usable = [a for a in ARCHITECTURES.values()
              if not a.suffix and a.sm <= number or own and a.sm == number]
    if not usable:
        raise UserError(
            f"a GPU of compute capability {major}.{minor} is too old",
            expected="5.0 or newer",
            got=f"{major}.{minor}",
        )
    known = [a for a in usable if a.ptx <= ptx] or usable[:1]
    return max(known, key=lambda a: (a.sm, a.suffix))


def gpu_target(
    name: str,
    *,
    ptx: int = NEWEST_PTX,
    multiprocessors: int | None = None,
    l2: int | None = None,
    shared_most: int | None = None,
    device: str = "sim",
) -> Target:
    """The target of an architecture, with what a device says of itself.

    ptx              the newest PTX that the driver reads
    multiprocessors  how many the device has
    l2               its bytes of L2 cache
    shared_most      bytes of shared memory that a block may ask for
    device           what is to run the code

    Raises ``UserError`` for an architecture that is not known, or that the driver does not know.
    """
    a = architecture(name)
    if ptx < a.ptx:
        raise UserError(
            f"the driver is too old for {name}",
            expected=f"one that reads PTX {version_text(a.ptx)} (CUDA {driver_of_ptx(a.ptx)})",
            got=f"PTX {version_text(ptx)}",
        )
    gpu = Gpu(
        a.name, a.sm, a.tier, min(ptx, NEWEST_PTX), multiprocessors or a.multiprocessors,
        shared=48 * KIB, shared_most=shared_most or a.shared_most * KIB,
        shared_all=a.shared_all * KIB, registers=a.registers, threads=a.threads, blocks=a.blocks,
        device=device,
    )
    return Target(
        a.name, vector_bytes=16, registers=gpu.thread_registers, l1=a.shared_all * KIB,
        l2=l2 or a.l2 * KIB, l3=0, triple=TRIPLE, cpu=a.name, features="",
        gpu=gpu,
    )
