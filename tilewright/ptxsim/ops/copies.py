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
    cells: NDArray[np.int64] | None = None  # what is watched for races, [lanes, cells]
    stamps: NDArray[np.int64] | None = None


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
        races = self.gang.races
        if races is not None:
            issue.cells, issue.stamps = races.pending(lanes, near, size)
        if self.gang.launch.lazy:
            self.gang.shared[near[:, None] + np.arange(size)] = SHARED_POISON
        else:
            self._perform(issue, np.ones(len(lanes), np.bool_))
        if self.gang.launch.lazy or races is not None:
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

    def complete_upto(
        self, lane: int, issued: int, stamps: NDArray[np.int64] | None = None
    ) -> None:
        """Complete those of a lane's copies that are among the first `issued` of all.

        stamps  per lane: as of when they are complete, if not as of now
        """
        self._complete(lambda i: (i.lanes == lane) & (i.order <= issued), stamps)

    def _complete(self, chosen: Any, stamps: NDArray[np.int64] | None = None) -> None:
        left = []
        for issue in self.pending:
            now = chosen(issue)
            if now.any():
                if self.gang.launch.lazy:
                    self._perform(issue, now)
                self._end(issue, now, stamps)
            if not now.all():
                left.append(self._kept(issue, ~now))
        self.pending = left

    def _end(
        self, issue: Issue, now: NDArray[np.bool_], stamps: NDArray[np.int64] | None
    ) -> None:
        races = self.gang.races
        if races is not None and issue.cells is not None and issue.stamps is not None:
            at = races.order.stamps if stamps is None else stamps
            races.waited(issue.cells[now], issue.stamps[now], at[issue.lanes[now]])

    def _kept(self, issue: Issue, keep: NDArray[np.bool_]) -> Issue:
        return Issue(issue.lanes[keep], issue.near[keep], issue.far[keep], issue.size,
                     issue.valid[keep], issue.groups[keep], issue.order,
                     None if issue.cells is None else issue.cells[keep],
                     None if issue.stamps is None else issue.stamps[keep])

    def _perform(self, issue: Issue, now: NDArray[np.bool_]) -> None:
        near, far, valid = issue.near[now], issue.far[now], issue.valid[now]
        gang, count = self.gang, issue.size // 4
        at = near[:, None] // 4 + np.arange(count)
        whole = valid == issue.size
        words = np.zeros(at.shape, np.uint32)
        if whole.any():
            words[whole] = gang.load(
                "global", far[whole], issue.lanes[now][whole], 4, count).reshape(-1, count)
        for i in np.flatnonzero(~whole & (valid > 0)).tolist():
            data = gang.launch.memory.get(int(far[i]), int(valid[i]))
            words.view(np.uint8)[i, : valid[i]] = data
        gang.shared.view(np.uint32)[at] = words
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
