"""The thread team: one per process, hired when a parallel program first runs.

Workers are Python threads that stay inside native code, where they hold no interpreter lock: they
spin on their mailbox for some microseconds, then sleep until they are woken. The thread that calls
a program is always thread 0 of it. If the team is taken, because several Python threads call at
once, a caller runs its program alone; results do not depend on the number of threads.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import platform
import sys
import threading
import time
from contextlib import ContextDecorator
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any

from tilewright import config
from tilewright.runtime.cores import available_cores
from tilewright.runtime.machine import LIBRARIES, symbol
from tilewright.runtime.native_team import BOX_WORDS, TEAM, TEAM_WORDS, way_to_wait
from tilewright.runtime.support import support, words

MOST_THREADS = 256
SPINS = 2000
"""Looks at a word before a thread sleeps or yields: some tens of microseconds."""

_chosen: ContextVar[int] = ContextVar("tilewright_threads", default=0)


class Team:
    """The block of words that callers and workers share, and the workers' Python threads."""

    def __init__(self) -> None:
        self.block = words(TEAM_WORDS)
        self.boxes = words(MOST_THREADS * BOX_WORDS, align=128)
        self.address = self.block.ctypes.data
        self.workers: list[threading.Thread] = []
        self.hiring, self.claims = threading.Lock(), threading.Lock()
        self.claimed: set[int] = set()
        self.sleepers = _Sleepers()
        self.closed = False
        self.blocks = 0
        self._reset()

    def _reset(self) -> None:
        """No workers, nobody inside: the state at the start, and in the child of a fork."""
        self.block[:] = 0
        self.boxes[:] = 0
        self.block[TEAM["BOXES"]] = self.boxes.ctypes.data
        self.block[TEAM["SPINS"]] = SPINS
        way = way_to_wait(sys.platform, platform.machine())
        wait, wake = _system_functions(way) or self.sleepers.functions()
        self.block[TEAM["WAIT"]], self.block[TEAM["WAKE"]] = wait, wake
        self.block[TEAM["YIELD"]] = symbol(("sched_yield", "SwitchToThread"), LIBRARIES)

    def ensure(self, threads: int) -> None:
        """Hire workers until ``threads`` threads, the caller included, can run a program."""
        if self.closed or len(self.workers) >= min(threads, MOST_THREADS) - 1:
            return
        with self.hiring:
            support()
            for tid in range(len(self.workers) + 1, min(threads, MOST_THREADS)):
                worker = threading.Thread(
                    target=self._work, name=f"tilewright-{tid}", daemon=True,
                    args=(tid, int(self.boxes[(tid - 1) * BOX_WORDS])),
                )
                try:
                    worker.start()
                except RuntimeError:  # no more threads, or the interpreter is going down
                    return
                self.workers.append(worker)
                self.block[TEAM["WORKERS"]] = len(self.workers)

    def _work(self, tid: int, seen: int) -> None:
        # An interrupt during ``start`` leaves a thread that is not in the list: the place is filled
        # once more then, and only the first to come may take it.
        with self.claims:
            if tid in self.claimed:
                return
            self.claimed.add(tid)
        box = self.boxes[(tid - 1) * BOX_WORDS:].ctypes.data
        support().worker(self.address, box, tid, seen)

    def close(self, patience: float = 2.0) -> None:
        """Send the workers home and wait until they are gone. Programs run alone from then on."""
        self.closed = True
        self.block[TEAM["THREADS"]] = 1
        if not self.workers:
            return
        end = time.monotonic() + patience
        while not support().dismiss(self.address):
            if time.monotonic() > end:
                return
            time.sleep(0.001)
        for worker in self.workers:
            worker.join(max(0.0, end - time.monotonic()))
        self.workers.clear()

    def after_fork(self) -> None:
        """Only the forking thread exists in the child: start anew."""
        self.workers = []
        self.hiring, self.claims = threading.Lock(), threading.Lock()
        self.claimed = set()
        self.sleepers = _Sleepers()
        self._reset()


class _Sleepers:
    """Sleeping and waking through Python, for systems whose own way is not known."""

    def __init__(self) -> None:
        self.events: dict[int, threading.Event] = {}
        self.kept: tuple[Any, ...] = ()

    def functions(self) -> tuple[int, int]:
        """Addresses of ``wait(place, old)`` and ``wake(place)``."""
        wait = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(self.wait)
        wake = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.wake)
        self.kept = (wait, wake)
        first, second = (ctypes.cast(f, ctypes.c_void_p).value or 0 for f in self.kept)
        return first, second

    def wait(self, place: int, old: int) -> None:
        event = self.events.setdefault(place, threading.Event())
        event.clear()
        if ctypes.c_int64.from_address(place).value == old:
            event.wait()

    def wake(self, place: int) -> None:
        self.events.setdefault(place, threading.Event()).set()


def _system_functions(way: str) -> tuple[int, int] | None:
    names = {
        "linux": ("syscall", "syscall"), "darwin": ("__ulock_wait", "__ulock_wake"),
        "win32": ("WaitOnAddress", "WakeByAddressSingle"),
    }
    if way not in names:
        return None
    wait, wake = (symbol((name,), LIBRARIES) for name in names[way])
    return wait, wake


_team: Team | None = None
_making = threading.Lock()


def team() -> Team:
    """The process's team; it has no workers before :func:`threads_now` hires them."""
    global _team
    if _team is None:
        with _making:
            if _team is None:
                _team = Team()
                atexit.register(_team.close)
    return _team


def _after_fork() -> None:
    global _making
    _making = threading.Lock()
    if _team is not None:
        _team.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def threads_in_force() -> int:
    """The number of threads for a program that is called here and now; hires nobody."""
    return _chosen.get() or config.get("num_threads") or _default()


def threads_now() -> int:
    """The number of threads in force, with the team ready to run on them.

    Leaves the number where native calls find it, unless a :class:`threads` block is open somewhere:
    then every call has to ask, because the answer depends on who asks.
    """
    here, count = team(), min(threads_in_force(), MOST_THREADS)
    here.ensure(count)
    if not here.closed:
        here.block[TEAM["THREADS"]] = 0 if here.blocks else count
    return count


class threads(ContextDecorator):  # noqa: N801 - reads as a verb: with tw.threads(2)
    """Run the programs called in a ``with`` block, or in a decorated function, on ``n`` threads.

    ``threads(1)`` uses no thread but the caller's. Blocks nest, and hold for the current thread or
    asynchronous task only. Raises ``ValueError`` for n < 1, ``TypeError`` for what is no int.
    """

    def __init__(self, n: int) -> None:
        if isinstance(n, bool) or not isinstance(n, int):
            raise TypeError(f"threads: expected an int, got {n!r}")
        if n < 1:
            raise ValueError(f"threads: expected at least 1, got {n}")
        self.n = n
        self.tokens: list[Token[int]] = []

    def _recreate_cm(self) -> threads:
        return threads(self.n)

    def __enter__(self) -> threads:
        here = team()
        here.blocks += 1
        if not here.closed:
            here.block[TEAM["THREADS"]] = 0
        self.tokens.append(_chosen.set(self.n))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _chosen.reset(self.tokens.pop())
        team().blocks -= 1


_cores = 0


def _default() -> int:
    global _cores
    if not _cores:
        _cores = available_cores()
    return _cores
