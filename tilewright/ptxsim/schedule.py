"""Which threads run next: all together, or warps in a random order.

In lockstep the threads that are furthest behind run, so that branches come together again where
the text does; barriers hide little of what is wrong in a kernel. With a seed, one warp at a time
runs a random number of instructions: a missing barrier shows in the result.
"""

from __future__ import annotations

import random

import numpy as np

from tilewright.ptxsim.barriers import release_barriers
from tilewright.ptxsim.faults import Deadlock, Fault, UnknownInstruction
from tilewright.ptxsim.gang import BARRIER, COLLECT, DONE, RUN, WARP, Gang, Lanes
from tilewright.ptxsim.step import Step, span_of

FAR = 1 << 60
TURN = 2048
"""Instructions that one group of threads may run while others wait for their turn."""


class Scheduler:
    """Runs a gang to its end. Fault with the place in the text, or Deadlock."""

    def __init__(self, gang: Gang, seed: int | None, limit: int) -> None:
        self.gang, self.limit = gang, limit
        self.random = None if seed is None else random.Random(seed)
        self.step = Step(gang)
        self.seen_progress = -1
        self.executed = 0
        self.turns = 0

    def run(self) -> int:
        """Run until every thread has ended; the number of instructions executed."""
        while True:
            lanes = self._choose()
            if lanes is None:
                break
            self._run_group(lanes)
            if self.executed > self.limit:
                raise Fault(f"the kernel did not end within {self.limit} instructions per group "
                            "of threads", self._place(lanes))
        self._finish()
        return self.executed

    def _finish(self) -> None:
        gang = self.gang
        unread = gang.bulk.unread()
        if unread:
            raise Fault(f"a block ends while {unread[0]} has not read its shared memory: no "
                        "wait_group followed")
        gang.bulk.finish()
        if gang.races is not None:
            gang.races.finish()

    # Choosing.

    def _choose(self) -> Lanes | None:
        """Lanes with the same next instruction, or None at the end."""
        gang = self.gang
        while True:
            gang.changed = False
            running = np.flatnonzero(gang.state == RUN)
            ready = running[~gang.polled[running]]
            if len(ready):
                return self._among(ready)
            if release_barriers(gang):
                continue
            if len(running) and gang.progress != self.seen_progress:
                self.seen_progress = gang.progress
                gang.polled[:] = False
                continue
            if (gang.state == DONE).all():
                return None
            raise Deadlock(self._who_waits())

    def _among(self, ready: Lanes) -> Lanes:
        self.turns += 1
        gang = self.gang
        if self.random is not None:
            warps = np.unique(ready // WARP)
            warp = warps[self.random.randrange(len(warps))]
            ready = ready[ready // WARP == warp]
        counters = gang.pc[ready]
        fair = self.turns % 64 == 0  # now and then those ahead, so that spinning threads let go
        return ready[counters == (counters.max() if fair else counters.min())]

    def _who_waits(self) -> str:
        gang = self.gang
        lines = ["every thread waits for another"]
        for state, what in ((RUN, "polls"), (BARRIER, "waits at a barrier"),
                            (COLLECT, "waits for the other threads of its group")):
            lanes = np.flatnonzero(gang.state == state)
            for pc in np.unique(gang.pc[lanes])[:4]:
                at = lanes[gang.pc[lanes] == pc]
                behind = int(pc) - (state == BARRIER)
                lines.append(f"{len(at)} threads: each {what}, {self._place(at, behind)}")
        return "\n  ".join(lines)

    # Running.

    def _run_group(self, lanes: Lanes) -> None:
        """Run lanes from their common instruction until they part or must let others go."""
        gang, step, code = self.gang, self.step, self.gang.launch.code
        pc = int(gang.pc[lanes[0]])
        limit = self._next_of_others(lanes, pc)
        turn = self.random.randrange(1, 200) if self.random is not None else TURN
        at = span_of(lanes)
        while True:
            instruction, meaning = code[pc]
            gang.pc[at], gang.now = pc + 1, pc
            step.instruction, step.lanes, step.at = instruction, lanes, at
            self.executed += 1
            turn -= 1
            if instruction.guard is not None:
                holds = step.read(instruction.guard, "pred")
                if not holds.all():
                    step.take(lanes[holds])
            if len(step.lanes):
                try:
                    meaning(step)
                except (Fault, ValueError, KeyError) as error:
                    raise _as_fault(error).at(self._place(step.lanes, pc)) from error
            if gang.changed or turn <= 0:
                return
            pc += 1
            if pc >= limit:
                return

    def _next_of_others(self, lanes: Lanes, pc: int) -> int:
        """Where these lanes meet others of their warps that are ahead."""
        gang = self.gang
        if self.random is not None:
            warp = int(lanes[0]) // WARP * WARP
            others = np.arange(warp, min(warp + WARP, gang.size))
        else:
            others = np.arange(gang.size)
        others = others[gang.state[others] != DONE]
        ahead = gang.pc[others]
        ahead = ahead[ahead > pc]
        return int(ahead.min()) if len(ahead) else FAR

    def _place(self, lanes: Lanes, pc: int | None = None) -> str:
        gang = self.gang
        launch = gang.launch
        pc = int(gang.pc[lanes[0]]) if pc is None else pc
        instruction = launch.code[min(pc, len(launch.code) - 1)][0]
        text = launch.lines[instruction.line - 1].strip() if instruction.line else "ret"
        threads = [int(t) for t in gang.thread[lanes[:4]]]
        more = ", ..." if len(lanes) > 4 else ""
        block = gang.blocks[int(gang.block_of[lanes[0]])]
        return (f"kernel {launch.kernel.name}, line {instruction.line}: {text} (block {block}, "
                f"threads {', '.join(map(str, threads))}{more})")


def _as_fault(error: Exception) -> Fault:
    if isinstance(error, Fault):
        return error
    if isinstance(error, KeyError):
        return UnknownInstruction(f"this form is not simulated: {error}")
    return Fault(str(error))
