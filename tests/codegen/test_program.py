"""Plans as one native function: slots, order, barriers, shared kernels."""

from __future__ import annotations

import ctypes
import threading

import numpy as np
import pytest
from native import HOST_TIERS, loop, parallel

from tilewright.codegen.cpu import NativeProgram, build, host_target
from tilewright.codegen.cpu.support import barrier
from tilewright.compiler.plan import Launch, Plan, Slot
from tilewright.ir.loops import (
    Buffer,
    Call,
    Check,
    Const,
    Kernel,
    Store,
    Var,
    add,
    compare,
    mul,
    sub,
)
from tilewright.ir.types import TensorType, f32

pytestmark = pytest.mark.parametrize("tier", HOST_TIERS)
N, SHARES = 240, 12
I, P = Var("i"), Var("p")
VECTOR = TensorType(f32, (N,))


def shared(name: str, op: str, mirrored: bool, rounds: int = SHARES) -> Kernel:
    """out[i] = a[i] op b[i], or b read from the other end, in shares of a parallel loop."""
    a, b = (Buffer(n, f32, N, access="in") for n in ("a", "b"))
    out = Buffer("out", f32, N, access="out")
    at = add(mul(P, N // rounds), I)
    other = sub(N - 1, at) if mirrored else at
    body = loop("i", N // rounds, Store(out, at, Call(op, (a[at], b[other]), f32)), width=8)
    return Kernel(name, (a, b, out), (parallel(body, n=rounds),))


def plan_of(*launches: Launch, arena: int = 0, constants: tuple[np.ndarray, ...] = ()) -> Plan:
    return Plan((VECTOR, VECTOR), (VECTOR,), (Slot("output", 0),), constants, launches, arena)


def run(
    program: NativeProgram, arrays: list[np.ndarray], arena: int, threads: int, times: int = 1
) -> int:
    """Run on a team of Python threads inside the native function; the status that is left."""
    memory = np.zeros(arena + 64, np.uint8)
    base = memory.ctypes.data + -memory.ctypes.data % 64
    table = np.array([*(a.ctypes.data for a in arrays), base], np.uintp)
    kinds = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
    function = ctypes.CFUNCTYPE(None, *kinds)(program.address)
    team, scratch = np.zeros(64, np.int64), np.zeros((threads, program.scratch + 64), np.uint8)

    def work(tid: int) -> None:
        for _ in range(times):
            function(table.ctypes.data, tid, threads, scratch[tid].ctypes.data, team.ctypes.data)

    members = [threading.Thread(target=work, args=(tid,)) for tid in range(1, threads)]
    for member in members:
        member.start()
    work(0)
    for member in members:
        member.join()
    return int(team[16])


def vectors(count: int) -> list[np.ndarray]:
    return [np.random.default_rng(k).standard_normal(N).astype(np.float32) for k in range(count)]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_launches_wait_for_each_other(tier: str, threads: int) -> None:
    """The second kernel reads what other threads wrote in the first."""
    x, y, out = vectors(3)
    scale = np.linspace(1, 2, N, dtype=np.float32)
    middle = Slot("arena", 64)
    plan = plan_of(
        Launch(
            shared("product", "mul", False), (Slot("input", 0), Slot("constant", 0), middle), False
        ),
        Launch(shared("mirror", "add", True), (Slot("input", 1), middle, Slot("output", 0)), True),
        arena=64 + 4 * N,
        constants=(scale,),
    )
    program = build(plan, host_target(tier))
    for times in (1, 200):
        out[:] = 0
        assert run(program, [x, y, out, scale], 64 + 4 * N, threads, times) == 0
        np.testing.assert_allclose(out, y + (x * scale)[::-1], rtol=1e-6)


def test_equal_kernels_are_compiled_once(tier: str) -> None:
    slots = (Slot("input", 0), Slot("input", 1), Slot("output", 0))
    target = host_target(tier)
    first = build(plan_of(Launch(shared("one", "sub", True, 6), slots, False)), target)
    second = build(
        plan_of(
            Launch(shared("two", "sub", True, 6), slots, False),
            Launch(shared("three", "sub", True, 6), slots, True),
        ),
        target,
    )
    names = {
        line.split("(")[0]
        for line in second.llvm_text.splitlines()
        if line.startswith("define void @k")
    }
    assert len(names) == 1
    assert len(first.code) == 1 and first.code[0] in second.code
    x, y, out = vectors(3)
    run(second, [x, y, out], 0, 1)
    np.testing.assert_array_equal(out, x - y[::-1])


def test_checks_leave_their_code(tier: str) -> None:
    a, out = Buffer("a", f32, N, access="in"), Buffer("out", f32, N, access="out")
    positive = Call("gt", (a[I], Const(0.0, f32)), compare("gt", I, 0).dtype)
    kernel = Kernel(
        "checked",
        (a, out),
        (parallel(loop("i", N, Check(positive, 9), Store(out, I, a[I]), width=8)),),
    )
    program = build(
        plan_of(Launch(kernel, (Slot("input", 0), Slot("output", 0)), False)), host_target(tier)
    )
    x, y, out_array = vectors(3)
    assert run(program, [np.abs(x) + 1, y, out_array], 0, 1) == 0
    x[17] = np.nan
    assert run(program, [x, y, out_array], 0, 1) == 9


def test_text_and_assembly(tier: str) -> None:
    kernel = shared("shown", "max", False, 4)
    slots = (Slot("input", 0), Slot("input", 1), Slot("output", 0))
    program = build(plan_of(Launch(kernel, slots, False)), host_target(tier))
    assert "define void @tw_program" in program.llvm_text
    assert "tw_program:" in program.asm_text()


def test_barrier_of_other_machines(tier: str) -> None:
    assert "pause" in barrier("x86_64-unknown-linux-gnu")[0]
    assert "aarch64.hint" in barrier("aarch64-apple-darwin")[0]
    assert "call" not in barrier("wasm32-unknown-unknown", native=False)[0]
    assert host_target(tier).name == tier
