"""The state of an mbarrier: phases, pending arrivals and bytes, and what must not be done."""

from __future__ import annotations

import pytest

from tilewright.ptxsim import mbarrier
from tilewright.ptxsim.mbarrier import Barrier, Misuse, decode, initialised


def test_a_phase_ends_with_its_last_arrival() -> None:
    barrier = initialised(3)
    assert not barrier.passed(0) and barrier.passed(1)  # the phase before the first is complete
    barrier = barrier.arrive().arrive()
    assert not barrier.passed(0) and barrier.pending == 1
    barrier = barrier.arrive()
    assert barrier == Barrier(3, 3, 0, 1)
    assert barrier.passed(0) and not barrier.passed(1)
    assert barrier.arrive(3).parity == 0


def test_a_phase_waits_for_its_bytes() -> None:
    barrier = initialised(1).expect(96).arrive()
    assert not barrier.passed(0)
    barrier = barrier.complete(64)
    assert not barrier.passed(0) and barrier.bytes == 32
    assert barrier.complete(32) == Barrier(1, 1, 0, 1)


def test_bytes_may_come_before_they_are_expected() -> None:
    barrier = initialised(1).complete(64)
    assert barrier.bytes == -64 and not barrier.passed(0)
    assert barrier.expect(64).arrive().passed(0)


def test_more_bytes_than_expected_never_complete_a_phase() -> None:
    assert not initialised(1).expect(32).arrive().complete(64).passed(0)


def test_who_drops_out_is_not_expected_again() -> None:
    barrier = initialised(2).drop().arrive()
    assert barrier == Barrier(1, 1, 0, 1)
    assert barrier.arrive().parity == 0


def test_a_pending_arrival_can_be_added_to_one_phase() -> None:
    barrier = initialised(1).add_pending().arrive()
    assert barrier.pending == 1
    assert barrier.arrive() == Barrier(1, 1, 0, 1)


@pytest.mark.parametrize("state", [
    initialised(1), initialised(mbarrier.MOST_ARRIVALS).expect(mbarrier.MOST_BYTES),
    initialised(7).arrive(3).complete(mbarrier.MOST_BYTES), Barrier(5, 2, -1, 1),
])
def test_a_word_holds_the_whole_state(state: Barrier) -> None:
    assert state.encode() < 1 << 64
    assert decode(state.encode()) == state
    assert mbarrier.parity_of(state.encode()) == state.parity
    assert mbarrier.pending_of(state.encode()) == state.pending


@pytest.mark.parametrize("misuse, message", [
    (lambda: initialised(0), "for 0 arrivals"),
    (lambda: initialised(1 << 20), "for 1048576 arrivals"),
    (lambda: initialised(2).arrive(3), "3 arrivals where 2 of 2 are pending"),
    (lambda: initialised(2).arrive(0), "0 arrivals"),
    (lambda: initialised(2).arrive_without_completion(2), "noComplete"),
    (lambda: initialised(1).expect(1 << 20), "bytes pending"),
    (lambda: initialised(1).drop(2), "2 participants leave"),
    (lambda: Barrier(1, mbarrier.MOST_ARRIVALS).add_pending(), "pending"),
    (lambda: decode(0), "no mbarrier was initialised"),
    (lambda: decode((1 << 64) - 1), "no mbarrier was initialised"),
])
def test_misuse_is_named(misuse, message: str) -> None:
    with pytest.raises(Misuse, match=message):
        misuse()
