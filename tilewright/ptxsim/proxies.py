"""What the asynchronous proxy does not see yet: stores to shared memory that no fence followed.

Threads store to shared memory through the generic proxy; wgmma and bulk copies read it through
the asynchronous one. A fence.proxy.async must stand between on the way from the store to the
read: after the store in the storing thread, or after a barrier that both have passed in whoever
reads. Source: PTX ISA, "Proxies" and "Causality order".
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SEEN, ANYBODY = -1, -2


class Unfenced:
    """Per byte of shared memory: whose fence the asynchronous proxy waits for.

    A thread; ANYBODY's, once a barrier has ordered the store before all threads; or SEEN, none.
    """

    def __init__(self, size: int) -> None:
        self.writer = np.full(size, SEEN, np.int32)

    def stored(self, addresses: NDArray[Any], size: int, threads: NDArray[Any]) -> None:
        """Threads stored `size` bytes at each of the addresses, one address per thread."""
        at = np.asarray(addresses, np.int64)[:, None] + np.arange(size)
        self.writer[at] = np.asarray(threads, np.int32)[:, None]

    def fence(self, threads: NDArray[Any]) -> None:
        """fence.proxy.async by threads: covers their own stores and those before a barrier."""
        waiting = self.writer != SEEN
        covered = waiting & ((self.writer == ANYBODY) | np.isin(self.writer, threads))
        self.writer[covered] = SEEN

    def synchronised(self, threads: NDArray[Any]) -> None:
        """A barrier among threads: what they stored, any of them can fence now."""
        self.writer[np.isin(self.writer, threads)] = ANYBODY

    def overwritten(self, addresses: NDArray[Any], size: int) -> None:
        """The asynchronous proxy itself wrote here."""
        self.writer[np.asarray(addresses, np.int64).reshape(-1)[:, None] + np.arange(size)] = SEEN

    def first_unseen(self, addresses: NDArray[Any], size: int) -> int | None:
        """The first of the bytes at these addresses that the asynchronous proxy does not see."""
        at = np.asarray(addresses, np.int64).reshape(-1)[:, None] + np.arange(size)
        unseen = self.writer[at] != SEEN
        return int(at[unseen][0]) if unseen.any() else None
