"""Which way a contraction is multiplied on a GPU, and in which blocks: the least time by a model.

Times are clocks of a multiprocessor. The numbers are the rates of the data sheets, and what such
blocks are known to reach of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tilewright.compiler.schedules.contraction_shape import Roles
from tilewright.compiler.schedules.gpu.contraction_engines import Engine, Ffma, Shape
from tilewright.compiler.schedules.gpu.contraction_sides import Side
from tilewright.compiler.schedules.gpu.contraction_volta import Volta
from tilewright.compiler.schedules.gpu.contraction_warps import LINE, Mma, Tf32, Wgmma
from tilewright.compiler.target import Gpu, Target
from tilewright.ir.hints import estimate
from tilewright.ir.sizes import ceil_div
from tilewright.ir.types import bf16, f16, f32

FFMA = (
    Shape(32, 32, 8, 16, 16, 1.0), Shape(32, 16, 8, 16, 8, 0.95), Shape(16, 32, 8, 8, 16, 0.95),
    Shape(16, 16, 8, 8, 8, 0.9), Shape(8, 8, 8, 8, 8, 0.5), Shape(4, 8, 8, 4, 8, 0.4),
)
"""In accesses instead of elements along m and n."""

MMA = (
    Shape(128, 128, 32, 2, 2, 0.9), Shape(128, 64, 32, 2, 2, 0.75), Shape(64, 128, 32, 2, 2, 0.75),
    Shape(64, 64, 32, 2, 2, 0.6), Shape(32, 64, 32, 2, 2, 0.45), Shape(64, 32, 32, 2, 2, 0.45),
    Shape(32, 32, 32, 2, 2, 0.3), Shape(16, 64, 32, 1, 4, 0.3),
)
VOLTA = (
    Shape(128, 128, 32, 2, 2, 0.8), Shape(64, 64, 32, 2, 2, 0.6), Shape(32, 32, 32, 2, 2, 0.3),
)
WGMMA = (
    Shape(128, 256, 64, 2, 1, 0.65), Shape(128, 128, 64, 2, 1, 0.6), Shape(64, 256, 64, 1, 1, 0.55),
    Shape(64, 128, 64, 1, 1, 0.5), Shape(64, 64, 64, 1, 1, 0.35),
)
RATE = {Ffma: 128, Volta: 512, Tf32: 512, Mma: 1024, Wgmma: 2048}
"""Products a clock; those of FMAs in f32, those of wgmma in 16 bits."""

BUSY = 256
"""Resident threads that keep a multiprocessor busy."""

BOXES = 0.8
"""What is left of the time if another warpgroup has tiles copied."""

LOADED = 0.7
"""What is left of the rate if operands come by way of registers."""

AGAIN = 4000
"""Clocks that another launch takes."""

SPLITS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Choice:
    """A way to multiply.

    stages  tiles in shared memory; 0: two, by way of registers
    splits  blocks that share a sum
    boxes   a warpgroup of its own has tiles copied as boxes of matrices
    """

    engine: Engine
    sides: tuple[Side, Side]
    stages: int
    splits: int
    boxes: bool = False


def choose(
    roles: Roles, wide: tuple[Side, Side], narrow: tuple[Side, Side], target: Target
) -> Choice:
    """The quickest way; ``wide`` operands have the type of the sums, ``narrow`` ones their own."""
    gpu = target.gpu
    assert gpu is not None
    boxes = all(side.matrix is not None and whole(side) for side in narrow)
    options: list[tuple[float, int, Choice]] = []
    for engine, sides, stages in candidates(wide, narrow, gpu, target.tf32):
        for splits in SPLITS:
            if splits > 1 and splits * 8 * engine.shape.depth > estimate(roles.depth):
                continue
            own = boxes and splits == 1 and isinstance(engine, Wgmma)
            clocks = time(roles, engine, stages, splits, gpu) * (BOXES if own else 1)
            options.append((clocks, len(options), Choice(engine, sides, stages, splits, own)))
    return min(options, key=lambda option: option[:2])[2]


def whole(side: Side) -> bool:
    """Whether zeros follow the last contracted elements of its matrix, or no tile crosses them."""
    if side.matrix is None:
        return False
    behind = side.matrix.columns if side.unit == "k" else side.matrix.rows
    tile = LINE // side.dtype.itemsize
    return side.depth == behind or (isinstance(side.depth, int) and side.depth % tile == 0)


def candidates(
    wide: tuple[Side, Side], narrow: tuple[Side, Side], gpu: Gpu, tf32: bool
) -> Iterator[tuple[Engine, tuple[Side, Side], int]]:
    """Engines that the architecture has for these types, their operands and their stages."""
    lhs, rhs = narrow
    dtype = lhs.dtype
    if dtype in (bf16, f16):
        copies = gpu.sm >= 80 and lhs.plain and rhs.plain
        if gpu.tier == "wgmma" and copies:
            for shape in WGMMA:
                yield Wgmma(shape, lhs, rhs, dtype), narrow, 4
        if gpu.sm >= 80 or (gpu.sm >= 75 and dtype is f16):
            for shape in MMA:
                engine = Mma(shape, lhs, rhs, dtype, gpu.sm >= 80)
                yield engine, narrow, stages_of(engine, gpu) if copies else 0
            return
        if gpu.sm >= 70 and dtype is f16:
            for shape in VOLTA:
                yield Volta(shape, lhs, rhs), narrow, 0
            return
    lhs, rhs = wide
    if tf32 and gpu.sm >= 80 and lhs.dtype.name == "f32":
        copies = lhs.plain and rhs.plain
        if gpu.tier == "wgmma" and copies and lhs.unit == rhs.unit == "k":
            for shape in WGMMA:
                yield Wgmma(halved(shape), lhs, rhs, f32), wide, 4
        for shape in MMA:
            rounded = Tf32(halved(shape), lhs, rhs)
            yield rounded, wide, stages_of(rounded, gpu) if copies else 0
        return
    for shape in FFMA:
        width = min(4, 16 // lhs.dtype.itemsize)
        sized = replace(shape, m=shape.m * width, n=shape.n * width)
        yield Ffma(sized, lhs, rhs, lhs.dtype), wide, 0


def halved(shape: Shape) -> Shape:
    """As many bytes of elements twice as large."""
    return replace(shape, depth=shape.depth // 2)


def bytes_of(engine: Engine, stages: int) -> int:
    """Shared memory of a block."""
    return max(2, stages) * (engine.lhs.size + engine.rhs.size) * engine.dtype.itemsize


def resident(engine: Engine, stages: int, gpu: Gpu) -> int:
    """Blocks that a multiprocessor holds at once."""
    # Sums, and about as many registers as fragments and addresses take.
    registers = engine.count * max(1, engine.sums.itemsize // 4) + 64
    return max(1, min(
        gpu.threads // engine.threads, gpu.registers // (registers * engine.threads),
        gpu.shared_all // (bytes_of(engine, stages) + 1024)))


def stages_of(engine: Engine, gpu: Gpu) -> int:
    """As many stages as leave room for two blocks."""
    return 4 if resident(engine, 4, gpu) >= 2 else 3


def rate_of(engine: Engine, stages: int) -> float:
    """Products a clock, of the types that the engine has."""
    found = RATE[type(engine)]
    if isinstance(engine, Ffma):
        return found * 4 / engine.sums.itemsize
    if isinstance(engine, Wgmma):
        return found * 2 / engine.dtype.itemsize
    return found if stages else found * LOADED


def time(roles: Roles, engine: Engine, stages: int, splits: int, gpu: Gpu) -> float:
    """Clocks that the contraction takes."""
    shape = engine.shape
    if bytes_of(engine, stages) > gpu.shared_most:
        return float("inf")
    m, n, depth = estimate(roles.m), estimate(roles.n), estimate(roles.depth)
    batch = estimate(roles.batch_size)
    blocks = batch * ceil_div(m, shape.m) * ceil_div(n, shape.n) * splits
    each = ceil_div(blocks, gpu.multiprocessors)
    at_once = min(each, resident(engine, stages, gpu)) * engine.threads
    tiles = ceil_div(ceil_div(depth, shape.depth), splits) + 2
    rate = rate_of(engine, stages) * shape.gain * min(1.0, at_once / BUSY)
    found = each * tiles * shape.m * shape.n * shape.depth / rate
    if splits > 1:
        # 16 bytes a clock to and from memory.
        found += AGAIN + (splits + 1) * batch * m * n * 4 / 16 / gpu.multiprocessors
    return found
