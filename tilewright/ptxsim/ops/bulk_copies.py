"""Bulk copies: cp.async.bulk and cp.async.bulk.tensor, their groups, and the proxy fence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright.ptxsim import tensormap
from tilewright.ptxsim.bulk import Transfer
from tilewright.ptxsim.faults import Fault, UnknownInstruction
from tilewright.ptxsim.gang import Gang
from tilewright.ptxsim.memory import WINDOW_SIZE, Span
from tilewright.ptxsim.ops.mbarriers import change, places
from tilewright.ptxsim.ops.movement import ATOMIC
from tilewright.ptxsim.scalars import CODES, KINDS
from tilewright.ptxsim.step import Step
from tilewright.ptxsim.syntax import Address, Operand
from tilewright.ptxsim.table import op
from tilewright.ptxsim.tensormap import DataType, TensorMap
from tilewright.ptxsim.tiles import Tile, tile_of

GRAIN = 16
"""Addresses and sizes of bulk copies are multiples of it, in bytes."""

ELEMENT_KINDS = {
    DataType.UINT8: "u8", DataType.UINT16: "u16", DataType.UINT32: "u32", DataType.INT32: "s32",
    DataType.UINT64: "u64", DataType.INT64: "s64", DataType.FLOAT16: "f16",
    DataType.FLOAT32: "f32", DataType.FLOAT64: "f64", DataType.BFLOAT16: "bf16",
}


class BlockShared:
    """The shared memory of one block as the asynchronous proxy sees it."""

    def __init__(self, gang: Gang, lane: int, what: str) -> None:
        self.gang, self.what, self.lane = gang, what, lane
        self.base = gang.shared_base(lane)

    def read(self, at: NDArray[Any], size: int) -> NDArray[Any]:
        """Codes at addresses of the block. Fault if a store to them was not fenced."""
        places_ = self._places(at, size)
        unfenced = self.gang.unfenced
        if unfenced is not None:
            unseen = unfenced.first_unseen(places_, size)
            if unseen is not None:
                raise Fault(
                    f"{self.what} reads shared address {unseen - self.base:#x}, which a thread "
                    "stored to: no fence.proxy.async and barrier stand between"
                )
        return np.asarray(self.gang.shared.view(CODES[size])[places_ // size])

    def write(self, at: NDArray[Any], codes: NDArray[Any]) -> None:
        """Codes to addresses of the block."""
        size = codes.dtype.itemsize
        places_ = self._places(at, size)
        self.gang.shared.view(codes.dtype)[places_ // size] = codes
        if self.gang.unfenced is not None:
            self.gang.unfenced.overwritten(places_, size)

    def copy_begins(self, at: NDArray[Any], size: int, barrier: int) -> Callable[[], None]:
        """Watch a copy to here that an mbarrier counts; what to do when its bytes have come."""
        races = self.gang.races
        if races is None:
            return lambda: None
        key = f"a copy that the mbarrier at {8 * barrier - self.base:#x} counts"
        told = races.copy_began(self.lane, key, self._places(at, size), size)
        return lambda: races.order.come(barrier, told)

    def reading_begins(self, at: NDArray[Any], size: int) -> Any:
        """Watch a copy from here that the thread will wait for; the row that the wait tells."""
        races = self.gang.races
        if races is None:
            return None
        key = f"a copy out of lane {self.lane}"
        return races.reading_began(np.array([self.lane]), key, self._places(at, size), size)

    def products_read(self, at: NDArray[Any], size: int, lanes: NDArray[np.int64]) -> Any:
        """Watch products that read here, begun by warps with these lanes; the row of a wait."""
        races = self.gang.races
        return None if races is None else races.reading_began(
            lanes, f"the wgmma of the warpgroup of lane {self.lane}", self._places(at, size), size)

    def poison(self, at: NDArray[Any], size: int) -> None:
        """What a copy that has not come will overwrite."""
        self.write(at, np.full(len(at), (1 << 8 * size) - 1, CODES[size]))

    def _places(self, at: NDArray[Any], size: int) -> NDArray[np.int64]:
        if at.size and not (at.min() >= 0 and at.max() + size <= self.gang.launch.shared_size):
            raise Fault(f"{self.what} goes beyond the {self.gang.launch.shared_size} bytes of "
                        "shared memory")
        return np.asarray(at + self.base, np.int64)


def scalar(step: Step, operand: Operand, i: int, kind: str) -> int:
    """The value of an operand in the i-th lane."""
    return int(step.values(operand, kind)[i])


def reduction(step: Step) -> str | None:
    """The operation of cp.reduce; None of a copy."""
    if step.parts[1] != "reduce":
        return None
    return next(p for p in step.parts if p in ATOMIC)


# Tensors.


def tensor_of(step: Step, address: Address, i: int) -> TensorMap:
    """The tensor map at the base of an address."""
    at = int(step.addresses(address)[i])
    if at % 64:
        raise Fault(f"the tensor map at {at:#x} is not aligned to 64 bytes")
    return tensormap.decode(step.gang.launch.memory.get(at, tensormap.SIZE).tobytes())


def tile(step: Step, address: Operand, shared: int, i: int) -> tuple[TensorMap, Tile]:
    """The tensor map and the tile that [map, {coordinates}] means in the i-th lane."""
    if not isinstance(address, Address) or address.coordinates is None:
        raise Fault(f"{step.instruction.name}: no coordinates")
    if "tile" not in step.parts and any(p.startswith("im2col") for p in step.parts):
        raise UnknownInstruction(f"{step.instruction.name} is not simulated")
    tensor = tensor_of(step, address, i)
    rank = next(int(p[0]) for p in step.parts if p in ("1d", "2d", "3d", "4d", "5d"))
    if rank != tensor.rank:
        raise Fault(f"{step.instruction.name} of a tensor map with {tensor.rank} dimensions")
    at = [scalar(step, c, i, "s32") for c in address.coordinates]
    return tensor, tile_of(tensor, at, shared)


def load_tile(step: Step, i: int) -> None:
    """A tile from global to shared memory; an mbarrier counts its bytes."""
    gang, lane = step.gang, int(step.lanes[i])
    shared = int(step.shared_addresses(step.operands[0])[i]) % WINDOW_SIZE
    tensor, box = tile(step, step.operands[1], shared, i)
    barrier = places(step, step.operands[2])[i]
    _check_multicast(step, i)
    near = BlockShared(gang, lane, step.instruction.name)

    def read() -> NDArray[Any]:
        fill = np.frombuffer(box.fill, CODES[box.size])[0]
        codes = np.full(len(box.far), fill, CODES[box.size])
        codes[box.inside] = gang.launch.memory.load(box.far[box.inside], box.size)
        return codes

    def write(codes: NDArray[Any]) -> None:
        near.write(box.near, codes)
        come()
        change(gang, barrier, lambda b: b.complete(tensor.tile_bytes))
        gang.advance()

    far = gang.launch.memory.found(box.far[box.inside], box.size)
    watch_far(gang, lane, *far, box.size)
    come = near.copy_begins(box.near, box.size, barrier)
    if gang.launch.lazy:
        near.poison(box.near, box.size)
    gang.bulk.count_at_barrier(barrier, Transfer(read, write, step.instruction.name))
    gang.advance()


def _check_multicast(step: Step, i: int) -> None:
    if "multicast::cluster" in step.parts and scalar(step, step.operands[3], i, "b16") != 1:
        raise Fault(f"{step.instruction.name}: a cluster of one block has rank 0 alone")


def store_tile(step: Step, i: int) -> None:
    """A tile from shared to global memory, stored or joined with what is there."""
    gang, lane = step.gang, int(step.lanes[i])
    shared = int(step.shared_addresses(step.operands[1])[i]) % WINDOW_SIZE
    tensor, box = tile(step, step.operands[0], shared, i)
    near = BlockShared(gang, lane, step.instruction.name)
    kind, name = ELEMENT_KINDS[tensor.data_type], reduction(step)

    def write(codes: NDArray[Any]) -> None:
        far = box.far[box.inside]
        store_global(gang, far, codes[box.inside], kind, name)

    watch_far(gang, lane, *gang.launch.memory.found(box.far[box.inside], box.size), box.size, True)
    transfer = Transfer(lambda: near.read(box.near, box.size), write, step.instruction.name,
                        told=near.reading_begins(box.near, box.size))
    if not gang.launch.lazy or gang.unfenced is not None:
        near.read(box.near, box.size)  # what is not fenced at issue is wrong at once
    gang.bulk.put_in_group(lane, transfer)


def watch_far(
    gang: Gang, lane: int, places: NDArray[np.int64], span: Span | None, size: int,
    store: bool = False,
) -> None:
    """Watch what a copy does to elements of global memory, on behalf of the thread that began it.

    Additions and their kin are atomic: their instructions are strong.
    """
    if gang.races is not None and len(places):
        changes = np.ones(len(places), np.bool_) if store else None
        lanes = np.full(len(places), lane)
        gang.races.noted("global", places, span, size, size, lanes, changes)


def store_global(
    gang: Gang, far: NDArray[Any], codes: NDArray[Any], kind: str, name: str | None
) -> None:
    """Elements to global memory, stored or joined by an operation."""
    if name is not None:
        dtype = KINDS[kind]
        old = gang.launch.memory.load(far, codes.dtype.itemsize)
        joined = np.asarray(ATOMIC[name](old.view(dtype), codes.view(dtype))).astype(dtype)
        codes = np.ascontiguousarray(joined).view(codes.dtype)
    gang.launch.memory.store(far, codes)
    gang.advance()


@op("cp.async.bulk.tensor")
def tensor_copy(step: Step) -> None:
    """Tiles by every lane that executes."""
    to_shared = step.parts[5].startswith("shared")
    for i in range(step.count):
        (load_tile if to_shared else store_tile)(step, i)


@op("cp.reduce.async.bulk.tensor")
def tensor_reduce(step: Step) -> None:
    """Tiles joined with a tensor."""
    for i in range(step.count):
        store_tile(step, i)


# Plain ranges of bytes.


def checked_range(step: Step, i: int, *addresses: Any) -> int:
    """The size of a plain copy. Fault if it or an address is no multiple of 16."""
    size = scalar(step, step.operands[2], i, "b32")
    if size % GRAIN or not size or any(int(a[i]) % GRAIN for a in addresses):
        raise Fault(f"{step.instruction.name}: addresses and size must be multiples of {GRAIN}")
    return size


def load_range(step: Step, i: int) -> None:
    """Bytes from global (or shared) to shared memory; an mbarrier counts them."""
    gang, lane = step.gang, int(step.lanes[i])
    targets, sources = step.shared_addresses(step.operands[0]), step.addresses(step.operands[1])
    size = checked_range(step, i, targets, sources)
    barrier = places(step, step.operands[3])[i]
    near = BlockShared(gang, lane, step.instruction.name)
    target = int(targets[i]) + np.arange(size, dtype=np.int64)
    start, from_shared = int(sources[i]), step.parts[4] == "shared::cta"

    def read() -> NDArray[Any]:
        if from_shared:
            return near.read(start % WINDOW_SIZE + np.arange(size, dtype=np.int64), 1)
        return gang.launch.memory.get(start, size)

    def write(codes: NDArray[Any]) -> None:
        near.write(target, codes)
        come()
        change(gang, barrier, lambda b: b.complete(size))
        gang.advance()

    if not from_shared:
        rows = np.arange(start, start + size, GRAIN)
        watch_far(gang, lane, *gang.launch.memory.found(rows, GRAIN), GRAIN)
    come = near.copy_begins(target, 1, barrier)
    if gang.launch.lazy:
        near.poison(target, 1)
    gang.bulk.count_at_barrier(barrier, Transfer(read, write, step.instruction.name))
    gang.advance()


def store_range(step: Step, i: int) -> None:
    """Bytes from shared to global memory, stored or joined with what is there."""
    gang, lane = step.gang, int(step.lanes[i])
    targets, sources = step.addresses(step.operands[0]), step.shared_addresses(step.operands[1])
    size = checked_range(step, i, targets, sources)
    name = reduction(step)
    kind = next((p for p in reversed(step.parts) if p in KINDS), "b8") if name else "b8"
    width = KINDS[kind].itemsize
    steps = width * np.arange(size // width, dtype=np.int64)
    source, target = int(sources[i]) + steps, int(targets[i]) + steps
    near = BlockShared(gang, lane, step.instruction.name)
    near.read(source, width)
    watch_far(gang, lane, *gang.launch.memory.found(target, width), width, True)
    transfer = Transfer(
        lambda: near.read(source, width),
        lambda codes: store_global(gang, target, codes, kind, name), step.instruction.name,
        told=near.reading_begins(source, width),
    )
    gang.bulk.put_in_group(lane, transfer)


@op("cp.async.bulk")
def range_copy(step: Step) -> None:
    """Plain copies by every lane that executes."""
    to_shared = step.parts[3].startswith("shared")
    for i in range(step.count):
        (load_range if to_shared else store_range)(step, i)


@op("cp.reduce.async.bulk")
def range_reduce(step: Step) -> None:
    """Plain ranges joined with global memory."""
    if step.parts[4] != "global":
        raise UnknownInstruction(f"{step.instruction.name} is not simulated")
    for i in range(step.count):
        store_range(step, i)


# Groups and the fence.


@op("cp.async.bulk.commit_group")
def commit_group(step: Step) -> None:
    """End a group, empty or not."""
    step.gang.bulk.commit(step.lanes.tolist())


@op("cp.async.bulk.wait_group")
def wait_group(step: Step) -> None:
    """Wait until only so many of the youngest groups are under way, or have yet to read."""
    most, races = step.uniform(step.operands[0], "b32"), step.gang.races
    for lane in step.lanes.tolist():
        for transfer in step.gang.bulk.wait([lane], most, "read" in step.parts):
            if races is not None and transfer.told is not None:
                races.order.acquire(np.array([lane]), transfer.told)


@op("fence.proxy.async")
def fence_proxy_async(step: Step) -> None:
    """What these threads stored becomes visible to the asynchronous proxy."""
    if step.gang.unfenced is not None and step.parts[-1] != "global":
        step.gang.unfenced.fence(step.lanes)


