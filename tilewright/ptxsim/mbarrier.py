"""The state of an mbarrier and what each instruction does to it.

An mbarrier is a 64-bit object in shared memory, opaque to programs. Its content here: whether it
is one at all (a mark that poisoned or overwritten memory does not have), the parity of the current
phase, the arrivals that each phase expects, the arrivals still pending, and the bytes of
asynchronous copies still expected. A phase is complete when both are zero; then the next begins
with all its arrivals pending. Source: PTX ISA, "mbarrier".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

MOST_ARRIVALS = (1 << 20) - 1
MOST_BYTES = (1 << 20) - 1
MARK = 0b10


class Misuse(ValueError):
    """What a program must not do to an mbarrier."""


@dataclass(frozen=True)
class Barrier:
    """A valid mbarrier: arrivals expected per phase and pending, bytes pending, parity."""

    expected: int
    pending: int
    bytes: int = 0
    parity: int = 0

    def encode(self) -> int:
        """The 64-bit word in shared memory; also the state token of this phase."""
        return (
            MARK << 62 | self.parity << 61 | (self.bytes & 0x1FFFFF) << 40
            | self.pending << 20 | self.expected
        )

    def arrive(self, count: int = 1) -> Barrier:
        """`count` arrivals; Misuse if the phase expects fewer."""
        if not 1 <= count <= MOST_ARRIVALS:
            raise Misuse(f"{count} arrivals: 1 to {MOST_ARRIVALS} are possible")
        if count > self.pending:
            raise Misuse(f"{count} arrivals where {self.pending} of {self.expected} are pending")
        return replace(self, pending=self.pending - count)._completed()

    def arrive_without_completion(self, count: int) -> Barrier:
        """`mbarrier.arrive.noComplete`: arrivals that must leave the phase incomplete."""
        if count >= self.pending:
            raise Misuse(f"{count} arrivals with noComplete, but only {self.pending} are pending")
        return self.arrive(count)

    def drop(self, count: int = 1) -> Barrier:
        """`mbarrier.arrive_drop`: arrivals that no later phase expects."""
        if count > self.expected:
            raise Misuse(f"{count} participants leave where {self.expected} take part")
        return replace(self, expected=self.expected - count).arrive(count)

    def add_pending(self) -> Barrier:
        """One more arrival pending in this phase: `cp.async.mbarrier.arrive` without noinc."""
        if self.pending == MOST_ARRIVALS:
            raise Misuse(f"more than {MOST_ARRIVALS} pending arrivals")
        return replace(self, pending=self.pending + 1)

    def expect(self, count: int) -> Barrier:
        """`expect_tx`: so many more bytes belong to this phase."""
        return replace(self, bytes=self._in_range(self.bytes + count))

    def complete(self, count: int) -> Barrier:
        """`complete_tx`: so many bytes have come."""
        return replace(self, bytes=self._in_range(self.bytes - count))._completed()

    def passed(self, parity: int) -> bool:
        """Whether the phase of this parity, current or last, is complete."""
        return self.parity != parity

    def _in_range(self, count: int) -> int:
        if abs(count) > MOST_BYTES:
            raise Misuse(f"{count} bytes pending: at most {MOST_BYTES} are possible")
        return count

    def _completed(self) -> Barrier:
        if self.pending or self.bytes:
            return self
        return Barrier(self.expected, self.expected, 0, 1 - self.parity)


def initialised(count: int) -> Barrier:
    """`mbarrier.init`: phase 0, `count` arrivals expected and pending."""
    if not 1 <= count <= MOST_ARRIVALS:
        raise Misuse(f"an mbarrier for {count} arrivals: 1 to {MOST_ARRIVALS} are possible")
    return Barrier(count, count)


def decode(word: int) -> Barrier:
    """The mbarrier in a word of shared memory; Misuse if none was initialised there."""
    if word >> 62 != MARK:
        raise Misuse(f"no mbarrier was initialised here (the word is {word:#018x})")
    count = word >> 40 & 0x1FFFFF
    if count >> 20:
        count -= 1 << 21
    return Barrier(word & 0xFFFFF, word >> 20 & 0xFFFFF, count, word >> 61 & 1)


def parity_of(token: int) -> int:
    """The parity of the phase that a state token was taken in."""
    return decode(token).parity


def pending_of(token: int) -> int:
    """`mbarrier.pending_count`: the arrivals that were pending when the token was taken."""
    return decode(token).pending
