"""Memory of a device: given back when nobody holds it any more, and then used again.

To ask a driver for memory takes longer than most kernels, and to return it waits for all of them.
So blocks are kept by size: what was in use at a time at most, and a bound more. Work on a device is
done in the order of the calls, and so a block may be handed out again while work that was asked for
before still uses it.
"""

from __future__ import annotations

import gc
from collections import deque

from tilewright.compiler.cost import scaled
from tilewright.errors import OutOfMemory
from tilewright.runtime.gpu.driver import Driver

SPARE, SPARE_EXACT = 1 << 30, 64 << 20
"""Bytes that may be held beyond the most that was in use; less where every access is checked."""

POISON = 0xA5
"""What memory without contents holds where every access is checked."""

SMALLEST = 512
STEPS = 8
"""Sizes of blocks between a power of two and the next."""


class Block:
    """Memory of a device's own, from :meth:`DeviceMemory.take`."""

    __slots__ = ("memory", "address", "size")

    def __init__(self, memory: DeviceMemory, address: int, size: int) -> None:
        self.memory, self.address, self.size = memory, address, size

    def __del__(self) -> None:
        self.memory.give(self.address, self.size)


class DeviceMemory:
    """The blocks of a device, and what is to be known of them.

    used, peak     bytes of the blocks in use now, and at most so far
    kept           bytes of the blocks that wait to be used again
    fresh, reused  how many blocks came from the driver, and how many were used again
    """

    def __init__(self, driver: Driver, spare: int | None = None) -> None:
        self.driver = driver
        self.spare = (SPARE_EXACT if driver.exact else SPARE) if spare is None else spare
        self.peak = self.fresh = self.reused = 0
        self._used = self._kept = 0
        self._waiting: dict[int, list[int]] = {}
        # Blocks die on any thread, in the middle of anything: they are only noted then.
        self._returned: deque[tuple[int, int]] = deque()

    @property
    def used(self) -> int:
        with self.driver.lock:
            self._collect()
            return self._used

    @property
    def kept(self) -> int:
        with self.driver.lock:
            self._collect()
            return self._kept

    def __repr__(self) -> str:
        return (
            f"<memory of {self.driver.name}: {self.used} bytes used, at most {self.peak}, "
            f"{self.kept} kept; {self.fresh} blocks fresh, {self.reused} reused>")

    def take(self, nbytes: int) -> Block:
        """A block of at least so many bytes, contents undefined.

        Raises ``OutOfMemory`` if the device has none, not even without the blocks that are kept.
        """
        size = max(nbytes, 1) if self.driver.exact else size_class(nbytes)
        with self.driver.lock:
            self._collect()
            waiting = self._waiting.get(size)
            if waiting:
                address = waiting.pop()
                self._kept -= size
                self.reused += 1
                if self.driver.exact:
                    self.driver.fill(address, POISON, size)
            else:
                address = self._allocate(size, nbytes)
                self.fresh += 1
            self._used += size
            self.peak = max(self.peak, self._used)
            return Block(self, address, size)

    def give(self, address: int, size: int) -> None:
        """Take back what :meth:`take` gave; any thread may say so, at any time."""
        self._returned.append((address, size))

    def trim(self) -> None:
        """Return every block that waits to the driver."""
        with self.driver.lock:
            self._collect()
            self._shrink(0)

    def _allocate(self, size: int, nbytes: int) -> int:
        try:
            return self.driver.allocate(size)
        except OutOfMemory:
            gc.collect()  # arrays in cycles
            self.trim()
        try:
            return self.driver.allocate(size)
        except OutOfMemory as error:
            more, used = scaled(nbytes, "B"), scaled(self._used, "B")
            raise OutOfMemory(
                error.what, expected=error.expected,
                got=f"{more} more; arrays and programs use {used}",
                hint="let go of arrays that are not needed (del x), donate those that a call "
                     "replaces (donate_argnames), or run on less at a time",
            ) from None

    def _collect(self) -> None:
        """What was given back waits to be used again, as far as the bound allows."""
        while self._returned:
            address, size = self._returned.popleft()
            self._used -= size
            self._kept += size
            self._waiting.setdefault(size, []).append(address)
        most = self.peak - self._used + self.spare
        if self._kept > most:
            self._shrink(most)

    def _shrink(self, most: int) -> None:
        """Free blocks, those of the largest size first, until at most so many bytes wait."""
        for size in sorted(self._waiting, reverse=True):
            waiting = self._waiting[size]
            while waiting and self._kept > most:
                self.driver.free(waiting.pop(0))
                self._kept -= size
            if not waiting:
                del self._waiting[size]


def size_class(nbytes: int) -> int:
    """The size of the blocks that serve so many bytes: an eighth more than those, at most."""
    if nbytes <= SMALLEST:
        return SMALLEST
    step = max(SMALLEST, (1 << (nbytes - 1).bit_length()) // (2 * STEPS))
    return -(-nbytes // step) * step
