"""The state of blocks that run together: a lane per thread, registers as arrays over lanes.

Blocks lie one after another, each padded to whole warps or warpgroups; lanes of the padding are
done from the start. Shared memory of all blocks is one array; addresses are relative to a block's
part of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tilewright.ptxsim.bulk import BulkCopies
from tilewright.ptxsim.faults import Fault
from tilewright.ptxsim.memory import LOCAL_WINDOW, SHARED_WINDOW, WINDOW_SIZE, Memory, Span, check
from tilewright.ptxsim.proxies import Unfenced
from tilewright.ptxsim.races import Races, Watched
from tilewright.ptxsim.scalars import CODES, POISON
from tilewright.ptxsim.syntax import Instruction, Kernel
from tilewright.ptxsim.table import Meaning

Lanes = NDArray[np.int64]
Addresses = NDArray[Any]
State = TypeVar("State")
Dim = tuple[int, int, int]

WARP, WARPGROUP = 32, 128
MOST = 1 << 62
RUN, BARRIER, COLLECT, DONE = range(4)
SHARED_POISON = 0xFF
"""What shared memory holds at first: NaN in every float format."""


@dataclass(frozen=True)
class Launch:
    """All that the blocks of one launch share."""

    kernel: Kernel  # with the functions that it calls, which are also given by name
    functions: dict[str, Kernel]
    code: list[tuple[Instruction, Meaning]]
    lines: list[str]
    memory: Memory
    symbols: dict[str, int]
    grid: Dim
    block: Dim
    shared_size: int
    dynamic_size: int
    local_size: int
    lazy: bool
    asynchronous: bool  # whether the kernel has instructions of the asynchronous proxy
    watched: Watched | None  # what is watched for races

    @property
    def threads(self) -> int:
        """Threads per block."""
        return self.block[0] * self.block[1] * self.block[2]


class Gang:
    """Some blocks of a launch and everything that belongs to them alone."""

    def __init__(self, launch: Launch, blocks: list[Dim]) -> None:
        self.launch, self.blocks = launch, blocks
        unit = WARPGROUP if launch.asynchronous else WARP
        self.width = -(-launch.threads // unit) * unit
        self.size = self.width * len(blocks)
        lane = np.arange(self.size)
        self.thread, self.block_of = lane % self.width, lane // self.width
        self.pc = np.full(self.size, launch.kernel.start)
        self.state = np.where(self.thread < launch.threads, RUN, DONE).astype(np.int8)
        self.changed = True  # whether states or counters moved since the scheduler looked
        self.polled = np.zeros(self.size, np.bool_)
        self.progress = 0
        self.registers: dict[str, NDArray[Any]] = {}
        self.pending: dict[str, NDArray[np.bool_]] = {}  # accumulators under way, by lane
        self.specials: dict[str, NDArray[Any]] = {}
        self.shared_stride = -(-max(launch.shared_size, 1) // 1024) * 1024
        self.shared = np.full(self.shared_stride * len(blocks), SHARED_POISON, np.uint8)
        self.shared_start = self.block_of * self.shared_stride
        self.local = np.full(self.size * launch.local_size, 0xA5, np.uint8)
        self.barriers: dict[tuple[int, int], Any] = {}
        self.bulk = BulkCopies(launch.lazy)
        self._owned: dict[Any, Any] = {}
        self.unfenced = Unfenced(self.shared.size) if launch.asynchronous else None
        self.now = 0  # the instruction that is executed
        self.races = None if launch.watched is None else Races(self, launch.watched)

    def own(self, kind: Callable[[Gang], State]) -> State:
        """What a family of instructions keeps per gang: made by `kind(gang)` at its first use."""
        if kind not in self._owned:
            self._owned[kind] = kind(self)
        found: State = self._owned[kind]
        return found

    # Registers.

    def register(self, name: str) -> NDArray[Any]:
        """The array of a register: booleans of a predicate, else codes of its width."""
        found = self.registers.get(name)
        if found is None:
            kind = self.launch.kernel.type_of(name)
            if kind == "pred":
                found = np.zeros(self.size, np.bool_)
            else:
                size = max(2, int(kind.lstrip("busf")) // 8) if "x2" not in kind else 4
                found = np.full(self.size, POISON[size], CODES[size])
            self.registers[name] = found
        return found

    def special(self, name: str) -> NDArray[Any]:
        """The array of a register that the machine sets. Fault if it is not simulated."""
        if name not in self.specials:
            self.specials[name] = self._special(name)
        return self.specials[name]

    def _special(self, name: str) -> NDArray[Any]:
        base, _, axis = name[1:].partition(".")
        i = "xyz".find(axis) if axis else 0
        bx, by, _ = self.launch.block
        tid = (self.thread % bx, self.thread // bx % by, self.thread // (bx * by))
        ones = np.ones(self.size, np.int64)
        ctaid = np.array(self.blocks, np.int64)[self.block_of]
        mask = np.int64(1) << (self.thread % WARP)
        values = {
            "tid": tid[i], "ntid": ones * self.launch.block[i], "ctaid": ctaid[:, i],
            "nctaid": ones * self.launch.grid[i], "laneid": self.thread % WARP,
            "warpid": self.thread // WARP, "nwarpid": ones * (self.width // WARP),
            "smid": ones * 0, "nsmid": ones, "gridid": ones * 0,
            "clusterid": ctaid[:, i], "nclusterid": ones * self.launch.grid[i],
            "cluster_ctaid": ones * 0, "cluster_nctaid": ones, "cluster_ctarank": ones * 0,
            "cluster_nctarank": ones, "is_explicit_cluster": ones,
            "lanemask_eq": mask, "lanemask_lt": mask - 1, "lanemask_le": 2 * mask - 1,
            "lanemask_gt": 0xFFFFFFFF ^ (2 * mask - 1), "lanemask_ge": 0xFFFFFFFF ^ (mask - 1),
            "clock": ones * 0, "clock_hi": ones * 0, "clock64": ones * 0, "globaltimer": ones * 0,
            "dynamic_smem_size": ones * self.launch.dynamic_size,
            "total_smem_size": ones * self.launch.shared_size,
        }
        if base not in values:
            raise Fault(f"the register {name} is not simulated")
        return values[base]

    # Memory.

    def located(
        self, space: str, addresses: Addresses, lanes: Lanes, size: int, count: int = 1
    ) -> tuple[NDArray[Any], NDArray[np.int64], Span | None]:
        """The codes of `size` bytes of a space, where among them addresses of `count` lie, and
        their span.

        No span: of local memory, and of global addresses in several allocations.
        """
        if space == "shared":
            return self.shared.view(CODES[size]), *self.shared_found(addresses, lanes, size, count)
        if space == "local":
            return self.local.view(CODES[size]), self._local_places(addresses, lanes, size), None
        memory = self.launch.memory
        return memory.bytes.view(CODES[size]), *memory.found(addresses, size, count)

    def load(
        self, space: str, addresses: Addresses, lanes: Lanes, size: int, count: int = 1
    ) -> NDArray[Any]:
        """`count` codes of `size` bytes at the address of each lane; "" is the generic space.

        [lanes] of one code, [lanes, count] of several.
        """
        if space == "":
            return self._generic(addresses, lanes, size, count, None)
        array, places, span = self.located(space, addresses, lanes, size, count)
        if self.races is not None:
            self.races.noted(space, places, span, size, size * count, lanes)
        return np.asarray(array[places if count == 1 else places[:, None] + np.arange(count)])

    def store(self, space: str, addresses: Addresses, lanes: Lanes, codes: NDArray[Any]) -> None:
        """Store codes of their own size, [lanes] or [lanes, count], at the address of each lane."""
        size, count = codes.dtype.itemsize, codes.shape[1] if codes.ndim > 1 else 1
        if space == "":
            self._generic(addresses, lanes, size, count, codes)
            return
        array, places, span = self.located(space, addresses, lanes, size, count)
        at = places if codes.ndim == 1 else places[:, None] + np.arange(count)
        if self.races is None or space == "local":
            array[at] = codes
        else:
            changes = array[at] != codes
            array[at] = codes
            clashes = array[at] != codes
            if codes.ndim > 1:
                changes, clashes = changes.any(1), clashes.any(1)
            changes = changes | clashes if clashes.any() else changes & first_of_each(places)
            self.races.noted(space, places, span, size, size * count, lanes, changes)
        if space == "shared":
            self.stored_to_shared(places * size, size * count, lanes)

    def stored_to_shared(self, at: NDArray[np.int64], size: int, lanes: Lanes) -> None:
        """Threads stored to shared memory: the asynchronous proxy does not see it yet."""
        if self.unfenced is not None:
            self.unfenced.stored(at, size, lanes)

    def shared_places(
        self, addresses: Addresses, lanes: Lanes, size: int, count: int = 1
    ) -> NDArray[np.int64]:
        """Indices of elements of `size` bytes in the shared memory of all blocks."""
        return self.shared_found(addresses, lanes, size, count)[0]

    def shared_found(
        self, addresses: Addresses, lanes: Lanes, size: int, count: int = 1
    ) -> tuple[NDArray[np.int64], Span]:
        """The same and their span.

        Faults: `count` elements that are not all in the block's part of it, or not aligned to
        their bytes together.
        """
        at, whole = addresses.astype(np.int64), size * count
        span = Span(0, int(at.min(initial=MOST)), int(at.max(initial=0)))
        if span.low < 0 or span.high + whole > self.launch.shared_size:
            inside = (at >= 0) & (at + whole <= self.launch.shared_size)
            check(inside, at, f"is outside of the {self.launch.shared_size} bytes of shared memory",
                  whole)
        if int(np.bitwise_or.reduce(at)) & (whole - 1):
            check(at % whole == 0, at, "of shared memory is not aligned", whole)
        if len(self.blocks) > 1:
            at += self.shared_start[lanes]
        return at >> (size.bit_length() - 1), span

    def shared_base(self, lane: int) -> int:
        """Where the shared memory of a lane's block starts in that of all blocks."""
        return int(self.block_of[lane]) * self.shared_stride

    def _local_places(self, addresses: Addresses, lanes: Lanes, size: int) -> NDArray[np.int64]:
        at = addresses.astype(np.int64)
        if at.size and (int(at.min()) < 0 or int(at.max()) + size > self.launch.local_size):
            inside = (at >= 0) & (at + size <= self.launch.local_size)
            check(inside, at, "is outside of local memory", size)
        if int(np.bitwise_or.reduce(at)) & (size - 1):
            check(at % size == 0, at, "of local memory is not aligned", size)
        at += lanes * self.launch.local_size
        return at >> (size.bit_length() - 1)

    def space_of(self, addresses: Addresses) -> NDArray[Any]:
        """Of generic addresses: 0 global, 1 shared, 2 local."""
        at = addresses.astype(np.uint64)
        shared = at - np.uint64(SHARED_WINDOW) < np.uint64(WINDOW_SIZE)
        local = at - np.uint64(LOCAL_WINDOW) < np.uint64(WINDOW_SIZE)
        return np.asarray(shared + 2 * local)

    def _generic(
        self, addresses: Addresses, lanes: Lanes, size: int, count: int,
        codes: NDArray[Any] | None,
    ) -> NDArray[Any]:
        at = addresses.astype(np.uint64)
        if int(at.max(initial=0)) < SHARED_WINDOW:  # the common case
            if codes is None:
                return self.load("global", at, lanes, size, count)
            self.store("global", at, lanes, codes)
            return codes
        spaces = self.space_of(at)
        result = np.zeros((len(lanes), count) if count > 1 else len(lanes), CODES[size])
        for number, space in enumerate(("global", "shared", "local")):
            chosen = spaces == number
            if not chosen.any():
                continue
            inside = (at if number == 0 else at & np.uint64(WINDOW_SIZE - 1))[chosen]
            if codes is None:
                result[chosen] = self.load(space, inside, lanes[chosen], size, count)
            else:
                self.store(space, inside, lanes[chosen], codes[chosen])
        return result

    # Threads.

    def live(self, lanes: Lanes) -> NDArray[np.bool_]:
        """Which lanes have not ended."""
        return np.asarray(self.state[lanes] != DONE)

    def set_state(self, lanes: Lanes, state: int) -> None:
        """Block, wake or end lanes."""
        self.state[lanes] = state
        self.changed = True

    def poll(self, lanes: Lanes) -> None:
        """These lanes looked for something that has not come: others go first."""
        self.polled[lanes] = True
        self.changed = True

    def advance(self) -> None:
        """Something happened that polling lanes may wait for."""
        self.progress += 1


def first_of_each(places: NDArray[np.int64]) -> NDArray[np.bool_] | np.bool_:
    """A mask of the first of those lanes that have the same place; of all if none have."""
    ordered = np.sort(places)
    if not (ordered[1:] == ordered[:-1]).any():
        return np.True_
    first = np.zeros(len(places), np.bool_)
    first[np.unique(places, return_index=True)[1]] = True
    return first
