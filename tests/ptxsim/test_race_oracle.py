"""Random straight programs: a race is found in every schedule exactly if the definition has one.

All threads of a block run the same list of accesses and barriers, each with words of its own. The
definition: a clock per thread, what each knows of the others as a matrix, every pair of accesses.
"""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.ptxsim.faults import Race
from tilewright.ptxsim.simulator import Simulator

THREADS, WORDS = 96, 112

HEAD = """
.version 8.0
.target sm_90
.address_size 64
.visible .entry k(.param .u64 table, .param .u64 memory)
{
  .shared .align 16 .b32 words[512];
  .reg .pred %p<9>;
  .reg .b32 %t, %r<20>, %mask;
  .reg .b64 %g, %m, %d<20>;
  ld.param.u64 %g, [table];
  ld.param.u64 %m, [memory];
  mov.u32 %t, %tid.x;
  mad.wide.u32 %g, %t, 4, %g;
  and.b32 %r9, %t, 16;
  setp.eq.u32 %p0, %r9, 0;
  selp.b32 %mask, 0xffff, 0xffff0000, %p0;
  setp.lt.u32 %p1, %t, 64;
"""
ACCESSES = {
    "store": "add.u32 %r5, %t, NUMBER;\nst.SPACE.u32 [AT], %r5;", "load": "ld.SPACE.u32 %r6, [AT];",
    "add": "red.SPACE.add.u32 [AT], 1;",
}
MEETINGS = {
    "block": "bar.sync 0;", "warps": "bar.warp.sync -1;", "halves": "bar.warp.sync %mask;",
    "two": "@%p1 bar.sync 1, 64;",
}
GROUPS = {
    "block": [range(THREADS)], "warps": [range(i, i + 32) for i in range(0, THREADS, 32)],
    "halves": [range(i, i + 16) for i in range(0, THREADS, 16)], "two": [range(64)],
}


def program(rng: np.random.Generator, spread: int) -> tuple[list[str], np.ndarray]:
    """Names of accesses and meetings, and the word of each thread for each of them."""
    length = int(rng.integers(4, 9))
    names = rng.choice([*ACCESSES, *MEETINGS], length, p=[.24, .24, .06, .1, .13, .13, .1]).tolist()
    own = np.arange(THREADS)
    words = np.zeros((length, THREADS), np.int64)
    for row in words:
        kind = rng.integers(4)
        row[:] = own if kind < 2 else own ^ int(rng.choice([1, 2, 16])) if kind == 2 else own // 2
        far = rng.random(THREADS) < spread / THREADS
        row[far] = rng.integers(0, WORDS, far.sum())
    return names, words


def races(names: list[str], words: np.ndarray) -> bool:
    """Whether two accesses of a word by different threads are not ordered, by the definition."""
    clock = np.zeros(THREADS, np.int64)
    known = np.full((THREADS, THREADS), -1)  # known[t, u]: the clock of u that t knows of
    seen: list[tuple[str, np.ndarray, np.ndarray]] = []
    for name, row in zip(names, words, strict=True):
        if name in MEETINGS:
            for group in map(list, GROUPS[name]):
                known[group, group] = clock[group]
                known[group] = known[group].max(0)
                clock[group] += 1
            continue
        seen.append((name, row, clock.copy()))
        for other, before, at in seen:
            if (other, name) in (("load", "load"), ("add", "add")):
                continue
            same = before[None, :] == row[:, None]  # [now, before]
            ordered = (at[None, :] <= known) | np.eye(THREADS, dtype=bool)
            if (same & ~ordered).any():
                return True
    return False


def text(names: list[str], space: str) -> str:
    lines = [HEAD, "mov.u32 %r0, words;"]
    for i, name in enumerate(names):
        if name in MEETINGS:
            lines.append(MEETINGS[name])
            continue
        lines.append(f"ld.global.nc.u32 %r1, [%g+{4 * THREADS * i}];")
        lines.append("mad.lo.u32 %r2, %r1, 4, %r0;\nmad.wide.u32 %d2, %r1, 4, %m;")
        at = "%r2" if space == "shared" else "%d2"
        access = ACCESSES[name].replace("AT", at).replace("SPACE", space)
        lines.append(access.replace("NUMBER", str(1000 * (i + 1))))
    return "\n".join([*lines, "ret;\n}\n"])


def found(names: list[str], words: np.ndarray, space: str, seed: int | None) -> bool:
    simulator = Simulator(seed)
    arrays = [words.astype(np.uint32), np.zeros(512, np.uint32)]
    try:
        simulator.run(text(names, space), "k", (1,), (THREADS,), arrays)
    except Race:
        return True
    return False


@pytest.mark.parametrize("space", ["shared", "global"])
@pytest.mark.parametrize("seed", range(40))
def test_races_are_those_of_the_definition(seed: int, space: str) -> None:
    names, words = program(np.random.default_rng(seed), seed % 3)
    expected = races(names, words)
    for schedule in (None, 1):
        assert found(names, words, space, schedule) == expected, (names, schedule)
