"""Functions and jumps by tables: kernels of data/calls.cu, and PTX by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.ptxsim.faults import Fault, UnknownInstruction
from tilewright.ptxsim.simulator import Simulator

RNG = np.random.default_rng(5)


def test_functions_call_functions_in_branches(simulator: Simulator, cuda) -> None:
    pairs, out = RNG.standard_normal((80, 2), np.float32), np.zeros((80, 3), np.float32)
    visits = np.zeros(1, np.int32)
    simulator.run(cuda("calls"), "called", (2,), (40,), [pairs, out, visits])
    t = np.arange(80)
    swapped = t % 3 != 0
    assert np.array_equal(out[:, :2], np.where(swapped[:, None], pairs[:, ::-1], pairs))
    digits = np.array([len(str(i * 100)) if i else 0 for i in t])
    assert np.array_equal(out[:, 2], np.where(swapped, -t, t) + t % 2 * digits)
    assert visits[0] == sum(len(str(i)) for i in t[swapped])


def test_a_barrier_and_shuffles_inside_of_a_function(simulator: Simulator, cuda) -> None:
    values, out = RNG.integers(-99, 99, 64).astype(np.int32), np.zeros(64, np.int32)
    simulator.run(cuda("calls"), "sums", (1,), (64,), [values, out])
    assert (out == values[:32].sum() - 3 * values[32:].sum()).all()


JUMP = """
.version 8.0
.target sm_80
.address_size 64
.visible .entry k(.param .u64 out)
{
  .reg .b32 %r<9>;
  .reg .b64 %d<9>;
  ld.param.u64 %d0, [out];
  mov.u32 %r0, %tid.x;
  mad.wide.u32 %d1, %r0, 4, %d0;
  rem.u32 %r1, %r0, MODULUS;
  Labels: .branchtargets ONE, TWO, ONE, THREE;
  brx.idx %r1, Labels;
ONE:
  mov.u32 %r2, 1;
  bra END;
TWO:
  mov.u32 %r2, 2;
  bra END;
THREE:
  mov.u32 %r2, 3;
END:
  st.global.u32 [%d1], %r2;
  ret;
}
"""


def test_a_jump_by_a_table(simulator: Simulator) -> None:
    out = np.zeros(64, np.uint32)
    simulator.run(JUMP.replace("MODULUS", "4"), "k", (1,), (64,), [out])
    assert np.array_equal(out, np.tile([1, 2, 1, 3], 16))


def test_a_jump_beyond_the_table_is_a_fault() -> None:
    with pytest.raises(Fault, match="label 4 of 4"):
        Simulator().run(JUMP.replace("MODULUS", "5"), "k", (1,), (64,), [np.zeros(64, np.uint32)])


RECURSIVE = """
.version 8.0
.target sm_80
.address_size 64
.func one() { call.uni two; ret; }
.func two() { call.uni BACK; ret; }
.extern .func (.param .b32 r) vprintf(.param .b64 a, .param .b64 b);
.visible .entry k() { call.uni one, (); ret; }
"""


@pytest.mark.parametrize("target, message", [
    ("one", "one calls two calls one: recursion is not simulated"),
    ("vprintf", "two calls vprintf, which has no body"),
])
def test_calls_that_are_not_simulated(target: str, message: str) -> None:
    with pytest.raises(UnknownInstruction, match=message):
        Simulator().run(RECURSIVE.replace("BACK", target), "k", (1,), (32,), [])
