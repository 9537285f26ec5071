"""Memory for results, arenas and scratch: taken back when the last array on it dies, then reused.

Fresh pages cost many times what the work on them costs, so blocks are kept, up to a bound, by size
class. Large blocks ask for huge pages.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np

from tilewright.runtime.machine import LIBRARIES, symbol
from tilewright.runtime.native_pool import POOL, POOL_WORDS
from tilewright.runtime.support import support, words

MOST_KEPT = 4 << 30


class Pool:
    """Blocks of 64-byte aligned memory."""

    def __init__(self, limit: int) -> None:
        self.block = words(POOL_WORDS)
        self.address = self.block.ctypes.data
        # Reentrant: a collection in the middle of ``take`` may end the life of an array.
        self.lock = threading.RLock()
        self.native = support()
        windows = sys.platform == "win32"
        self.block[POOL["LIMIT"]] = limit
        for place, names in {
            "ALLOCATE": ("_aligned_malloc",) if windows else ("posix_memalign",),
            "FREE": ("_aligned_free",) if windows else ("free",),
            "ADVISE": ("madvise",) if sys.platform == "linux" else (),
        }.items():
            self.block[POOL[place]] = symbol(names, LIBRARIES)

    @property
    def kept(self) -> int:
        """Bytes of the blocks that wait to be used again."""
        return int(self.block[POOL["KEPT"]])

    @property
    def fresh(self) -> int:
        """How many blocks came from the operating system."""
        return int(self.block[POOL["FRESH"]])

    @property
    def reused(self) -> int:
        """How many blocks were used again."""
        return int(self.block[POOL["REUSED"]])

    def take(self, bytes: int) -> int:
        """The address of at least so many bytes, contents undefined. Raises ``MemoryError``."""
        with self.lock:
            address = self.native.take(self.address, bytes)
        if not address:
            raise MemoryError(f"no memory for {bytes} bytes")
        return int(address)

    def give(self, address: int) -> None:
        """Take back what :meth:`take` returned."""
        with self.lock:
            self.native.give(address)

    def trim(self) -> None:
        """Return every block that waits to the operating system."""
        with self.lock:
            self.native.trim(self.address, 1 << 62)

    def array(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array in pooled memory, contents undefined."""
        flat = np.asarray(_Owner(self, max(1, int(np.prod(shape)) * dtype.itemsize)))
        size = int(np.prod(shape)) * dtype.itemsize
        return flat[:size].view(dtype).reshape(shape)


class _Owner:
    """Owns a block and shows it to NumPy; the arrays made from it keep it alive."""

    __slots__ = ("pool", "address", "__array_interface__")

    def __init__(self, pool: Pool, bytes: int) -> None:
        self.pool = pool
        self.address = pool.take(bytes)
        self.__array_interface__ = {
            "version": 3, "shape": (bytes,), "typestr": "|u1", "data": (self.address, False),
        }

    def __del__(self) -> None:
        self.pool.give(self.address)


_pool: Pool | None = None
_making = threading.Lock()


def pool() -> Pool:
    """The process's pool. It keeps at most an eighth of the memory, and at most ``MOST_KEPT``."""
    global _pool
    if _pool is None:
        with _making:
            if _pool is None:
                _pool = Pool(min(MOST_KEPT, physical_memory() // 8))
    return _pool


def _after_fork() -> None:
    # Another thread of the parent may have held a lock; the blocks themselves are in order.
    global _making
    _making = threading.Lock()
    if _pool is not None:
        _pool.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def physical_memory(root: Path = Path("/")) -> int:
    """Bytes of memory that this process may count on; 4 GiB where that is not known."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        total = 4 << 30
    for name in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = (root / name).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            total = min(total, int(text))
    return total


TRIM_AFTER = 10.0
"""Seconds between two times that the C library's heap is gone through."""

_trimmed = float("-inf")


def give_back() -> None:
    """Return freed memory that the C library keeps, and garbage, to the operating system.

    A compiler frees a great many small blocks, which would count as this process' memory for ever.
    Nothing happens where the C library cannot, or did so a moment ago.
    """
    global _trimmed
    now = time.monotonic()
    if now - _trimmed < TRIM_AFTER:
        return
    _trimmed = now
    gc.collect()  # a compiler's objects point at each other
    if _trim():
        ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_size_t)(_trim())(0)


@functools.cache
def _trim() -> int:
    return symbol(("malloc_trim",), LIBRARIES) if sys.platform == "linux" else 0


def address_of(array: np.ndarray) -> int:
    """Where an array's memory starts."""
    return int(array.__array_interface__["data"][0])
