"""Races are faults in every schedule, whoever comes first; what is ordered is none."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.ptxsim.faults import Race
from tilewright.ptxsim.simulator import Simulator

WAYS = [(seed, copies) for copies in ("eager", "lazy") for seed in (None, 1, 2)]
WORDS = 1024

TEXT = """
.version 8.0
.target sm_90
.address_size 64
.visible .entry k(.param .u64 data, .param .u64 other)
{{
  .shared .align 16 .b32 words[{words}];
  .shared .align 8 .b64 full[2];
  .shared .align 8 .b64 empty[2];
  .reg .pred %p<9>;
  .reg .b16 %h<9>;
  .reg .b32 %t, %b, %own, %next, %far, %r<20>;
  .reg .b64 %g, %o, %d<20>;
  ld.param.u64 %g, [data];
  ld.param.u64 %o, [other];
  mov.u32 %t, %tid.x;
  mov.u32 %b, %ctaid.x;
  mov.u32 %r0, words;
  mad.lo.u32 %own, %t, 4, %r0;
  xor.b32 %r1, %t, 1;
  mad.lo.u32 %next, %r1, 4, %r0;
  xor.b32 %r1, %t, 32;
  mad.lo.u32 %far, %r1, 4, %r0;
  mad.wide.u32 %d0, %t, 4, %g;
{body}
  ret;
}}
"""

STORE, LOAD, LOAD_FAR = (
    "st.shared.u32 [%own], %t;", "ld.shared.u32 %r2, [%next];", "ld.shared.u32 %r2, [%far];")
SHUFFLE = "shfl.sync.bfly.b32 %r3, %r2, 3, 31, -1;"
WARP_SYNC, BARRIER = "bar.warp.sync -1;", "bar.sync 0;"
INIT = """
setp.ne.u32 %p0, %t, 0;
@%p0 bra MADE;
mbarrier.init.shared.b64 [full], {count};
mbarrier.init.shared.b64 [full+8], {count};
mbarrier.init.shared.b64 [empty], {count};
MADE:
bar.sync 0;
setp.lt.u32 %p1, %t, 32;
"""
COPY = "cp.async.ca.shared.global [{to}], [%d0], 4;\ncp.async.commit_group;\n"


ARRIVE = "mbarrier.arrive.shared.b64 %d1, [full];\n"


def hand_over(writer: str = STORE + ARRIVE, wait: str = "full", count: int = 32) -> str:
    """The first warp stores a word per thread, the second reads them once an mbarrier tells."""
    return INIT.format(count=count) + f"""
    @!%p1 bra READER;
    {writer}
    bra END;
    READER:
    mbarrier.try_wait.parity.shared.b64 %p2, [{wait}], 0;
    @!%p2 bra READER;
    {LOAD_FAR}
    mbarrier.arrive.shared.b64 %d1, [empty];
    END:
    """


FREE = "SPIN:\nmbarrier.try_wait.parity.shared.b64 %p2, [empty], 0;\n@!%p2 bra SPIN;\n"
LEADER = "setp.ne.u32 %p3, %t, 0;\n@%p3 bra TOLD;\n" + ARRIVE + "TOLD:"
LAST = "mad.lo.u32 %r4, %t, 4, %r0;\nadd.u32 %r4, %r4, 2048;\n"
AGAIN = "st.shared.u32 [%own], 7;"

# name: (threads, blocks, body)
RACES = {
    "no barrier between write and read": (64, 1, [STORE, LOAD_FAR]),
    "a barrier of a warp between warps": (64, 1, [STORE, WARP_SYNC, LOAD_FAR]),
    "a shuffle between lanes": (32, 1, [STORE, SHUFFLE, LOAD]),
    "a shuffle between lanes of one of two warps": (64, 1, [STORE, SHUFFLE, LOAD]),
    "no barrier between read and write": (64, 1, [STORE, BARRIER, LOAD_FAR, STORE]),
    "no barrier between read and write of lanes": (64, 1, [STORE, WARP_SYNC, LOAD, STORE]),
    "no barrier between an iteration's read and the next one's write": (
        64, 1, ["mov.u32 %r5, 0;", "AGAIN:", STORE, BARRIER, LOAD_FAR, "add.u32 %r5, %r5, 1;",
                "setp.lt.u32 %p0, %r5, 3;", "@%p0 bra AGAIN;"]),
    "two writes": (64, 1, ["st.shared.u32 [words], %t;"]),
    "two writes by two threads": (
        64, 1, ["shr.u32 %r4, %t, 5;", "and.b32 %r5, %t, 31;", "mad.lo.u32 %r5, %r5, 4, %r0;",
                "st.shared.u32 [%r5], %r4;"]),
    "a barrier that one half passes": (
        128, 1, [STORE, "setp.lt.u32 %p0, %t, 64;", "@%p0 bar.sync 1, 64;",
                 "xor.b32 %r1, %t, 64;", "mad.lo.u32 %far, %r1, 4, %r0;", LOAD_FAR]),
    "a named barrier of other warps": (
        128, 1, [STORE, "shr.u32 %r4, %t, 6;", "add.u32 %r4, %r4, 1;", "bar.sync %r4, 64;",
                 "xor.b32 %r1, %t, 64;", "mad.lo.u32 %far, %r1, 4, %r0;", LOAD_FAR]),
    "who arrives does not wait": (
        64, 1, [STORE, "setp.lt.u32 %p0, %t, 32;", "@%p0 bar.arrive 1, 64;",
                "@!%p0 bar.sync 1, 64;", LOAD_FAR]),
    "atomics and a plain read": (
        64, 1, ["st.shared.u32 [%own], 0;", BARRIER, "red.shared.add.u32 [%far], 1;",
                "ld.shared.u32 %r2, [%own];"]),
    "a copy without a wait": (64, 1, [COPY.format(to="%own"), BARRIER, LOAD_FAR]),
    "a copy without a wait, read by its own thread": (
        32, 1, [COPY.format(to="%own"), "ld.shared.u32 %r2, [%own];"]),
    "a wait for all copies but the one": (
        64, 1, [LAST, COPY.format(to="%own"), COPY.format(to="%r4"),
                "cp.async.wait_group 1;", BARRIER, "xor.b32 %r1, %t, 32;",
                "mad.lo.u32 %far, %r1, 4, %r0;", "ld.shared.u32 %r2, [%far+2048];"]),
    "a wait for copies and no barrier": (
        64, 1, [COPY.format(to="%own"), "cp.async.wait_all;", LOAD_FAR]),
    "a copy over what others read": (
        64, 1, [STORE, BARRIER, LOAD_FAR, COPY.format(to="%own"), "cp.async.wait_all;"]),
    "an arrival before the store": (64, 1, [hand_over(ARRIVE + STORE)]),
    "a wait for another stage": (
        64, 1, [hand_over(ARRIVE.replace("full", "full+8") + STORE + ARRIVE, "full+8")]),
    "one lane arrives for its warp": (64, 1, [hand_over(STORE + LEADER, count=1)]),
    "a stage is stored to again too early": (64, 1, [hand_over(STORE + ARRIVE + AGAIN)]),
    "global memory without a barrier": (
        64, 1, ["st.global.u32 [%d0], %t;", "xor.b32 %r1, %t, 32;",
                "mad.wide.u32 %d1, %r1, 4, %g;", "ld.global.u32 %r2, [%d1];"]),
    "global memory, read and then written": (
        64, 1, ["ld.global.u32 %r2, [%d0+4];", "st.global.u32 [%d0], %r2;"]),
    "two blocks write one word": (32, 2, ["add.u32 %r2, %t, %b;", "st.global.u32 [%d0], %r2;"]),
    "blocks write one word": (32, 3, ["add.u32 %r2, %t, %b;", "st.global.u32 [%d0], %r2;"]),
    "a block reads what another writes": (
        32, 2, ["mad.wide.u32 %d1, %b, 128, %d0;", "st.global.u32 [%d1], %t;", BARRIER,
                "ld.global.u32 %r2, [%d0];"]),
}

FINE = {
    "a barrier": (64, 2, [STORE, BARRIER, LOAD_FAR, BARRIER, STORE]),
    "own words": (64, 2, [STORE, "ld.shared.u32 %r2, [%own];", STORE, SHUFFLE, STORE]),
    "a barrier of a warp": (64, 1, [STORE, WARP_SYNC, LOAD, WARP_SYNC, STORE]),
    "barriers of half a warp": (
        32, 1, [STORE, "setp.lt.u32 %p0, %t, 16;", "selp.b32 %r5, 65535, 0xffff0000, %p0;",
                "bar.warp.sync %r5;", LOAD]),
    "bytes of one word": (
        64, 1, ["add.u32 %r4, %r0, %t;", "st.shared.u8 [%r4], %t;", BARRIER,
                "ld.shared.u8 %h0, [%r4+1];"]),
    "all write the same": (64, 2, ["st.shared.u32 [words], 5;", "st.global.u32 [%g], 5;"]),
    "a named barrier": (
        128, 1, [STORE, "shr.u32 %r4, %t, 6;", "add.u32 %r4, %r4, 1;", "bar.sync %r4, 64;",
                 LOAD_FAR]),
    "some arrive, the others wait": (
        64, 1, [STORE, "setp.lt.u32 %p0, %t, 32;", "@%p0 bar.arrive 1, 64;",
                "@!%p0 bar.sync 1, 64;", f"@!%p0 {LOAD_FAR}"]),
    "atomics": (64, 2, [
        "st.shared.u32 [%own], 0;", BARRIER, "red.shared.add.u32 [words], 1;",
        "atom.global.add.u32 %r4, [%g], 1;", BARRIER, "ld.shared.u32 %r2, [words];"]),
    "a loop of cas that begins with a plain read": (
        64, 2, ["ld.global.u32 %r4, [%g];", "atom.global.cas.b32 %r5, [%g], %r4, %t;"]),
    "volatile words": (64, 2, ["st.volatile.shared.u32 [words], %t;",
                               "ld.volatile.shared.u32 %r4, [words];"]),
    "a copy, a wait and a barrier": (
        64, 1, [COPY.format(to="%own"), "cp.async.wait_all;", BARRIER, LOAD_FAR]),
    "an own copy": (
        64, 1, [COPY.format(to="%own"), "cp.async.wait_all;", "ld.shared.u32 %r2, [%own];"]),
    "a wait for the older copies": (
        64, 1, [LAST, COPY.format(to="%own"), COPY.format(to="%r4"),
                "cp.async.wait_group 1;", BARRIER, LOAD_FAR, "cp.async.wait_all;"]),
    "copies that arrive on an mbarrier": (64, 1, [INIT.format(count=64), COPY.format(
        to="%own"), "cp.async.mbarrier.arrive.noinc.shared.b64 [full];", "W:",
        "mbarrier.try_wait.parity.shared.b64 %p2, [full], 0;", "@!%p2 bra W;", LOAD_FAR]),
    "an mbarrier": (64, 1, [hand_over()]),
    "one lane arrives for its warp that met": (
        64, 1, [hand_over(STORE + WARP_SYNC + LEADER, count=1)]),
    "a stage is stored to again": (
        64, 1, [hand_over(STORE + ARRIVE + FREE + AGAIN)]),
    "global memory and a barrier": (
        64, 1, ["st.global.u32 [%d0], %t;", "xor.b32 %r1, %t, 32;",
                "mad.wide.u32 %d1, %r1, 4, %g;", BARRIER, "ld.global.u32 %r2, [%d1];"]),
    "blocks read one word and write their own": (
        32, 3, ["mad.wide.u32 %d1, %b, 128, %d0;", "ld.global.u32 %r2, [%o];",
                "st.global.u32 [%d1], %r2;"]),
}


def run(threads: int, blocks: int, body: list[str], way: tuple[int | None, str]) -> None:
    text = TEXT.format(words=WORDS, body="\n".join(body))
    simulator = Simulator(*way, limit=100_000)
    data = np.zeros(WORDS, np.uint32)
    simulator.run(text, "k", (blocks,), (threads,), [data, np.ones(4, np.uint32)])


@pytest.mark.parametrize("name", list(RACES))
def test_a_race_is_a_fault_in_every_schedule(name: str) -> None:
    for way in WAYS:
        with pytest.raises(Race):
            run(*RACES[name], way)


@pytest.mark.parametrize("name", list(FINE))
def test_what_is_ordered_is_no_race(name: str) -> None:
    for way in WAYS:
        run(*FINE[name], way)


def test_the_message_names_the_word_and_both_accesses() -> None:
    with pytest.raises(Race) as caught:
        run(*RACES["no barrier between write and read"], (None, "eager"))
    assert str(caught.value) == (
        "a race for 0x80 of shared memory: nothing orders two accesses\n"
        "  kernel k\n"
        "  line 25: st.shared.u32 [%own], %t; (block (0, 0, 0), thread 32 writes)\n"
        "  line 26: ld.shared.u32 %r2, [%far]; (block (0, 0, 0), thread 0 reads)")


def test_the_message_names_a_copy_that_nobody_waited_for() -> None:
    with pytest.raises(Race, match="no wait covers a cp.async"):
        run(*RACES["a copy without a wait"], (None, "eager"))


def test_races_can_be_left_alone() -> None:
    text = TEXT.format(words=WORDS, body="\n".join([STORE, LOAD_FAR]))
    Simulator(races=False).run(text, "k", (1,), (64,), [np.zeros(4), np.zeros(4)])


def test_the_next_launch_comes_after_this_one() -> None:
    text = TEXT.format(words=WORDS, body="st.global.u32 [%d0+4], %t;\n")
    back = TEXT.format(words=WORDS, body="ld.global.u32 %r2, [%d0];\n")
    simulator = Simulator()
    at = simulator.memory.allocate(4 * WORDS)
    for program in (text, back):
        simulator.launch(simulator.load(program), "k", (1,), (64,), [at, at])


def test_arguments_that_overlap_race() -> None:
    body = "mad.wide.u32 %d1, %t, 4, %o;\nld.global.u32 %r2, [%d1];\nst.global.u32 [%d0], %r2;"
    text = TEXT.format(words=WORDS, body=body)
    simulator = Simulator()
    at = simulator.memory.allocate(4 * WORDS)
    program = simulator.load(text)
    simulator.launch(program, "k", (1,), (64,), [at, at])
    simulator.launch(program, "k", (1,), (64,), [at, at + 256])
    with pytest.raises(Race):
        simulator.launch(program, "k", (1,), (64,), [at, at + 4])
