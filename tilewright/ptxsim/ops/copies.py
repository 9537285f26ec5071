"""cp.async: copies of 4 to 16 bytes per thread from global to shared memory, in groups.

Eager ones happen at issue. Lazy ones poison their target and happen in the wait that covers them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright.ptxsim.faults import Fault
from tilewright.ptxsim.gang import SHARED_POISON, Gang, Lanes
from tilewright.ptxsim.step import Step
from tilewright.ptxsim.table import op


@dataclass
class Issue:
    """One cp.async of some lanes: `groups` are the lanes' groups, `order` its place in time."""

    lanes: Lanes
    near: NDArray[np.int64]
    far: NDArray[Any]
    size: int
    valid: NDArray[Any]
    groups: NDArray[np.int64]
    order: int


class ThreadCopies:
    """The cp.async of a gang that are not complete, and the groups of its lanes."""

    def __init__(self, gang: Gang) -> None:
        self.gang = gang
        self.pending: list[Issue] = []
        self.committed = np.zeros(gang.size, np.int64)
        self.issued = 0

    def issue(self, lanes: Lanes, near: Any, far: Any, size: int, valid: Any) -> None:
        """Start copies of `size` bytes to places in shared memory, zeros beyond `valid`."""
        self.issued += 1
        issue = Issue(lanes, near, far, size, valid, self.committed[lanes].copy(), self.issued)
        if not self.gang.launch.lazy:
            self._perform(issue, np.ones(len(lanes), np.bool_))
            return
        self.gang.shared[near[:, None] + np.arange(size)] = SHARED_POISON
        self.pending.append(issue)

    def commit(self, lanes: Lanes) -> None:
        """The copies issued since the last commit become a group."""
        self.committed[lanes] += 1

    def wait(self, lanes: Lanes, most: int | None) -> None:
        """Complete all groups of these lanes but the youngest `most`; None: all copies."""
        waits = np.zeros(self.gang.size, np.bool_)
        waits[lanes] = True
        done = np.full(self.gang.size, np.iinfo(np.int64).max) if most is None else (
            self.committed - most)
        self._complete(lambda i: waits[i.lanes] & (i.groups < done[i.lanes]))

    def complete_upto(self, lane: int, issued: int) -> None:
        """Complete those of a lane's copies that are among the first `issued` of all."""
        self._complete(lambda i: (i.lanes == lane) & (i.order <= issued))

    def _complete(self, chosen: Any) -> None:
        left = []
        for issue in self.pending:
            now = chosen(issue)
            if now.any():
                self._perform(issue, now)
            if not now.all():
                left.append(self._kept(issue, ~now))
        self.pending = left

    def _kept(self, issue: Issue, keep: NDArray[np.bool_]) -> Issue:
        return Issue(issue.lanes[keep], issue.near[keep], issue.far[keep], issue.size,
                     issue.valid[keep], issue.groups[keep], issue.order)

    def _perform(self, issue: Issue, now: NDArray[np.bool_]) -> None:
        near, far, valid = issue.near[now], issue.far[now], issue.valid[now]
        gang = self.gang
        for offset in range(issue.size):
            read = valid > offset
            at = near + offset
            gang.shared[at[~read]] = 0
            if read.any():
                codes = gang.load("global", far[read] + np.uint64(offset), issue.lanes[now][read],
                                  1)
                gang.shared[at[read]] = codes
        gang.stored_to_shared(near, issue.size, issue.lanes[now])


@op("cp.async.ca", "cp.async.cg")
def cp_async(step: Step) -> None:
    """Copy 4, 8 or 16 bytes; with a source size, the rest are zeros."""
    size = step.uniform(step.operands[2], "b32")
    if size not in ((16,) if "cg" in step.parts else (4, 8, 16)):
        raise Fault(f"{step.instruction.name} of {size} bytes")
    valid = np.full(step.count, size)
    has_policy = "L2::cache_hint" in step.parts
    if len(step.operands) > 3 + has_policy:
        valid = step.values(step.operands[3], "b32").astype(np.int64)
        if (valid > size).any():
            raise Fault(f"{step.instruction.name} reads {int(valid.max())} bytes of {size}")
    near, far = step.shared_addresses(step.operands[0]), step.addresses(step.operands[1])
    if (near % size).any() or (far % np.uint64(size)).any():
        raise Fault(f"{step.instruction.name}: an address is not aligned to {size} bytes")
    ends = step.gang.shared_places(near + size - 1, step.lanes, 1)
    step.gang.own(ThreadCopies).issue(step.lanes, ends - (size - 1), far, size, valid)


@op("cp.async.commit_group")
def commit_group(step: Step) -> None:
    """End a group, empty or not."""
    step.gang.own(ThreadCopies).commit(step.lanes)


@op("cp.async.wait_group")
def wait_group(step: Step) -> None:
    """Wait until only so many of the youngest groups are under way."""
    step.gang.own(ThreadCopies).wait(step.lanes, step.uniform(step.operands[0], "b32"))


@op("cp.async.wait_all")
def wait_all(step: Step) -> None:
    """Wait for all copies, committed or not."""
    step.gang.own(ThreadCopies).wait(step.lanes, None)
