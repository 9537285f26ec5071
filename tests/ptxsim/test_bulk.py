"""Bulk copies under way and the fence between the proxies, by themselves."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.ptxsim.bulk import BulkCopies, Transfer
from tilewright.ptxsim.proxies import Unfenced


class Cells:
    """A source and a target, so that the time of a read and of a write can be seen."""

    def __init__(self) -> None:
        self.source, self.target = np.array([1]), np.array([0])

    def transfer(self) -> Transfer:
        return Transfer(lambda: self.source.copy(), self.write, "a copy")

    def write(self, data: np.ndarray) -> None:
        self.target[:] = data


@pytest.fixture
def cells() -> Cells:
    return Cells()


def test_an_eager_copy_happens_at_once(cells: Cells) -> None:
    BulkCopies(lazy=False).put_in_group(0, cells.transfer())
    assert cells.target == 1


def test_a_lazy_copy_reads_at_its_wait(cells: Cells) -> None:
    copies = BulkCopies(lazy=True)
    copies.put_in_group(7, cells.transfer())
    copies.commit([7])
    cells.source[:] = 2
    copies.wait([7], 1, reads=True)
    cells.source[:] = 3
    copies.wait([7], 0, reads=True)
    cells.source[:] = 4
    assert cells.target == 0 and copies.unread() == []
    copies.wait([7], 0, reads=False)
    assert cells.target == 3


def test_a_wait_leaves_the_youngest_groups(cells: Cells) -> None:
    copies = BulkCopies(lazy=True)
    old, young = cells, Cells()
    for one in (old, young):
        copies.put_in_group(0, one.transfer())
        copies.commit([0])
    copies.wait([1], 0, reads=False)
    assert old.target == 0
    copies.wait([0], 1, reads=False)
    assert (old.target, young.target) == (1, 0)
    copies.wait([0], 1, reads=False)
    assert young.target == 0
    assert copies.unread() == ["a copy"]
    copies.finish()
    assert young.target == 1


def test_a_copy_that_was_not_committed_is_not_waited_for(cells: Cells) -> None:
    copies = BulkCopies(lazy=True)
    copies.put_in_group(0, cells.transfer())
    copies.wait([0], 0, reads=False)
    assert cells.target == 0


def test_a_copy_comes_when_somebody_waits_at_its_barrier(cells: Cells) -> None:
    copies = BulkCopies(lazy=True)
    copies.count_at_barrier(64, cells.transfer())
    copies.deliver(72)
    assert cells.target == 0
    copies.deliver(64)
    assert cells.target == 1


def test_a_fence_covers_the_stores_of_its_thread() -> None:
    unfenced = Unfenced(64)
    unfenced.stored(np.array([0, 8]), 4, np.array([3, 5]))
    unfenced.fence(np.array([3]))
    assert unfenced.first_unseen(np.array([0]), 8) is None
    assert unfenced.first_unseen(np.array([0, 8]), 4) == 8


def test_a_fence_behind_a_barrier_covers_the_stores_before_it() -> None:
    unfenced = Unfenced(64)
    unfenced.stored(np.array([0, 8]), 4, np.array([3, 5]))
    unfenced.synchronised(np.array([0, 5]))
    unfenced.stored(np.array([16]), 4, np.array([5]))
    unfenced.fence(np.array([0]))
    assert unfenced.first_unseen(np.array([8]), 4) is None
    assert unfenced.first_unseen(np.array([0]), 4) == 0
    assert unfenced.first_unseen(np.array([16]), 4) == 16


def test_what_the_asynchronous_proxy_wrote_it_sees() -> None:
    unfenced = Unfenced(64)
    unfenced.stored(np.array([0]), 8, np.array([3]))
    unfenced.overwritten(np.array([0, 2, 4]), 2)
    assert unfenced.first_unseen(np.array([0]), 8) == 6
