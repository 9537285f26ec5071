"""Global memory: allocations at made-up addresses, every access checked.

Addresses never lie next to each other's end: what runs over an allocation is caught. Constants,
kernel parameters and what `cvta` makes of them lie here too. Shared and local memory have windows
of generic addresses of their own.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilewright.ptxsim.faults import Fault
from tilewright.ptxsim.scalars import CODES

FIRST = 1 << 33
GAP = 512
SHARED_WINDOW, LOCAL_WINDOW = 1 << 56, 1 << 57
WINDOW_SIZE = 1 << 40


class Span(NamedTuple):
    """Where accesses lie: the allocation that has all, the least and the greatest address."""

    start: int
    low: int
    high: int


class Memory:
    """Bytes by address. Fault on an access that is not inside one allocation, or misaligned."""

    def __init__(self) -> None:
        self.bytes = np.zeros(1 << 16, np.uint8)
        self.starts: list[int] = []
        self.sizes: dict[int, int] = {}
        self.end = FIRST
        self._table: tuple[NDArray[Any], NDArray[Any]] | None = None

    def allocate(self, size: int) -> int:
        """The address of `size` new bytes, which hold poison; a multiple of 512."""
        start = self.end
        self.end = after(start, size)
        need = self.end - FIRST
        if need > self.bytes.size:
            grown = np.zeros(max(need, 2 * self.bytes.size), np.uint8)
            grown[: self.bytes.size] = self.bytes
            self.bytes = grown
        self.bytes[start - FIRST : self.end - FIRST] = 0xA5
        self.starts.append(start)
        self.sizes[start] = size
        self._table = None
        return start

    def free(self, address: int) -> None:
        """Give an allocation back: further accesses to it are faults."""
        if self.sizes.pop(address, None) is None:
            raise Fault(f"{address:#x} was not allocated")
        self.starts.remove(address)
        last = self.starts[-1] if self.starts else None
        self.end = FIRST if last is None else after(last, self.sizes[last])
        self._table = None

    def put(self, address: int, data: NDArray[Any]) -> None:
        """Copy an array's bytes to an address."""
        raw = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        self._check_range(address, raw.size)
        self.bytes[address - FIRST : address - FIRST + raw.size] = raw

    def get(self, address: int, size: int) -> NDArray[np.uint8]:
        """A copy of `size` bytes at an address."""
        self._check_range(address, size)
        return self.bytes[address - FIRST : address - FIRST + size].copy()

    def _check_range(self, address: int, size: int) -> None:
        i = bisect_right(self.starts, address) - 1
        if i < 0 or address + size > self.starts[i] + self.sizes[self.starts[i]]:
            raise Fault(f"{size} bytes at {address:#x} are not inside one allocation")

    def load(self, addresses: NDArray[Any], size: int) -> NDArray[Any]:
        """The codes of `size` bytes at each address."""
        return self.bytes.view(CODES[size])[self.places(addresses, size)]

    def store(self, addresses: NDArray[Any], codes: NDArray[Any]) -> None:
        """Store codes of their own size, one at each address; of equal addresses the last wins."""
        places = self.places(addresses, codes.dtype.itemsize)
        self.bytes.view(codes.dtype)[places] = codes

    def places(self, addresses: NDArray[Any], size: int, count: int = 1) -> NDArray[np.int64]:
        """Indices into `bytes`, viewed as codes of `size` bytes, of which `count` are accessed."""
        return self.found(addresses, size, count)[0]

    def found(
        self, addresses: NDArray[Any], size: int, count: int = 1
    ) -> tuple[NDArray[np.int64], Span | None]:
        """The places, and their span; None if they are in several allocations.

        Faults: an access that is not inside one allocation, or no multiple of all its bytes.
        """
        whole = size * count
        at = np.asarray(addresses).astype(np.int64)
        if not at.size:
            return at, None
        low, high = int(at.min()), int(at.max())
        start, end = self._around(low)
        if high + whole > end:
            self._check_each(addresses, whole)
            start = None
        span = None if start is None else Span(start, low, high)
        at -= FIRST
        if int(np.bitwise_or.reduce(at)) & (whole - 1):
            wide = np.asarray(addresses).astype(np.uint64)
            check(wide % np.uint64(whole) == 0, wide, "is not aligned", whole)
        return at >> (size.bit_length() - 1), span

    def allocation(self, address: int) -> int | None:
        """The start of the allocation that an address is in."""
        start, end = self._around(address)
        return start if start is not None and address < end else None

    def _around(self, address: int) -> tuple[int | None, int]:
        """The last allocation that starts at or before an address, and its end."""
        i = bisect_right(self.starts, address) - 1
        if i < 0:
            return None, 0
        return self.starts[i], self.starts[i] + self.sizes[self.starts[i]]

    def _check_each(self, addresses: NDArray[Any], size: int) -> None:
        if self._table is None:
            starts = np.array(self.starts, np.uint64)
            ends = np.array([s + self.sizes[s] for s in self.starts], np.uint64)
            self._table = starts, ends
        starts, ends = self._table
        addresses = np.asarray(addresses).astype(np.uint64)
        which = np.searchsorted(starts, addresses, "right")
        inside = which > 0
        if inside.all():
            inside = addresses + np.uint64(size) <= ends[which - 1]
        check(inside, addresses, "is outside of every allocation", size)


def after(start: int, size: int) -> int:
    """The first address for an allocation that follows one of `size` bytes."""
    return -(-(start + size + 1) // GAP) * GAP + GAP


def check(holds: NDArray[Any], addresses: NDArray[Any], what: str, size: int) -> None:
    """Fault that names the first address of which a condition does not hold."""
    if not holds.all():
        worst = int(addresses[~holds][0])
        raise Fault(f"an access of {size} bytes at {worst:#x} {what}")
