"""How often accesses to shared memory wait for a bank, seen by the simulator as it runs PTX.

Shared memory has 32 banks of 4 bytes. Threads of a warp are served together as long as they touch
128 bytes: all of them by accesses of 4 bytes, eight by accesses of 16. Of those, words in the same
bank are served one after another, the same word at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np

from tilewright.ptxsim.gang import Gang
from tilewright.ptxsim.ops import copies, matrix

WARP, BANKS, WORD = 32, 32, 4


@dataclass
class Waits:
    """For each kind of access: how often it was served, and how often it had to be at least."""

    served: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    least: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, kind: str, addresses: Any, lanes: Any, nbytes: int) -> None:
        """Accesses of so many bytes by these threads."""
        together = min(WARP, BANKS * WORD // max(nbytes, WORD))
        addresses, lanes = np.asarray(addresses, np.int64), np.asarray(lanes)
        for group in np.unique(lanes // together):
            first = addresses[lanes // together == group] // WORD
            words = np.unique(first[:, None] + np.arange(max(1, nbytes // WORD)))
            self.served[kind] += int(np.bincount(words % BANKS).max())
            self.least[kind] += -(-len(words) // BANKS)

    def ratio(self, kind: str) -> float:
        """1: nothing waits."""
        return self.served[kind] / self.least[kind]


@contextmanager
def watched() -> Iterator[Waits]:
    """Note what kernels do to shared memory meanwhile."""
    waits = Waits()
    load, store, rows = Gang.load, Gang.store, matrix.row_addresses
    issue = copies.ThreadCopies.issue

    def loading(self: Any, space: str, at: Any, lanes: Any, size: int, count: int = 1) -> Any:
        # The elements of a row of eight that ldmatrix reads are counted as a row.
        if space == "shared" and len(np.unique(lanes)) == len(lanes):
            waits.add("load", at, lanes, size * count)
        return load(self, space, at, lanes, size, count)

    def storing(self: Any, space: str, at: Any, lanes: Any, codes: Any) -> None:
        if space == "shared":
            waits.add("store", at, lanes, codes.nbytes // max(1, len(codes)))
        store(self, space, at, lanes, codes)

    def naming(step: Any, operand: Any, count: int) -> Any:
        at, lanes = rows(step, operand, count)
        waits.add("ldmatrix", at[..., 0].reshape(-1), lanes.reshape(-1, 8)[:, 0], 16)
        return at, lanes

    def copying(self: Any, lanes: Any, near: Any, far: Any, size: int, valid: Any) -> None:
        waits.add("copy", near, lanes, size)
        issue(self, lanes, near, far, size, valid)

    with (mock.patch.object(Gang, "load", loading), mock.patch.object(Gang, "store", storing),
          mock.patch.object(matrix, "row_addresses", naming),
          mock.patch.object(copies.ThreadCopies, "issue", copying)):
        yield waits
