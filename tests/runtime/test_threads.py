"""The thread team: any number of threads, any number of callers, fork, exit."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from runtime_programs import HALF, MANY, adder, counter, reverser, scribbler

from tilewright import config
from tilewright.runtime.native_team import BOX, BOX_WORDS, TEAM
from tilewright.runtime.threads import team, threads, threads_in_force, threads_now

X = np.arange(64, dtype=np.float32)
Y = np.linspace(-1, 1, 64, dtype=np.float32)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
def test_any_number_of_threads(n: int) -> None:
    with threads(n):
        run, result = reverser(), (X + Y)[::-1]
        for _ in range(200):
            np.testing.assert_array_equal(run([X, Y])[0], result)
        assert counter()([])[0] == n


@pytest.mark.parametrize("n", [1, 2, 4])
def test_every_thread_has_scratch_of_its_own(n: int) -> None:
    run = scribbler()
    with threads(n):
        assert all(run([])[0] == 0 for _ in range(50))


def test_a_small_program_runs_on_the_calling_thread() -> None:
    with threads(4):
        assert counter(flops=0)([])[0] == 1


def test_python_path_uses_the_team_too() -> None:
    with threads(3):
        assert counter()._call_slowly()[0] == 3
        np.testing.assert_array_equal(reverser()._call_slowly(X, Y)[0], (X + Y)[::-1])


def test_sleeping_workers_wake_up() -> None:
    run, pause = reverser(), threading.Event()
    with threads(2):
        for _ in range(20):
            pause.wait(0.002)
            np.testing.assert_array_equal(run([X, Y])[0], (X + Y)[::-1])


SHORT = 10**6
"""Flops of a program that is worth a team, but not worth waiting for workers to wake up."""


def test_a_short_program_does_not_wait_for_sleeping_workers() -> None:
    run, long, pause = counter(SHORT), counter(), threading.Event()
    assert (run.work.mode, long.work.mode) == (2, 3)
    asleep = team().boxes.reshape(-1, BOX_WORDS)[:, BOX["SLEEPS"]]
    with threads(3):
        for call in (run, run._call_slowly):
            assert long([])[0] == 3
            while not asleep[:2].all():
                pause.wait(0.001)
            assert (call([]) if call is run else call())[0] == 1
    assert long([])[0] == threads_in_force()


def test_short_programs_one_after_another() -> None:
    run = reverser(SHORT)
    with threads(3):
        for _ in range(2000):
            np.testing.assert_array_equal(run([X, Y])[0], (X + Y)[::-1])


def test_many_callers_at_once() -> None:
    run = reverser()

    def many(seed: int) -> bool:
        x = np.random.default_rng(seed).random(64, dtype=np.float32)
        return all(np.array_equal(run([x, Y])[0], (x + Y)[::-1]) for _ in range(300))

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(many, range(12)))
    assert team().block[TEAM["LOCK"]] == 0


def test_a_caller_runs_alone_while_the_team_is_taken() -> None:
    run, block = counter(), team().block
    with threads(2):
        assert run([])[0] == 2
        block[TEAM["LOCK"]] = 1
        try:
            assert run([])[0] == 1
        finally:
            block[TEAM["LOCK"]] = 0
        assert run([])[0] == 2


def test_blocks_nest_and_end() -> None:
    run, outside = counter(), threads_in_force()
    with threads(3):
        assert run([])[0] == 3
        with threads(1):
            assert run([])[0] == 1
        assert run([])[0] == 3
    assert threads_in_force() == outside
    assert run([])[0] == outside


def test_one_block_object_may_be_entered_again() -> None:
    block = threads(2)
    with block, block:
        assert threads_in_force() == 2
    with block:
        assert threads_in_force() == 2


def test_as_decorator() -> None:
    run = counter()

    @threads(3)
    def inside() -> float:
        return float(run([])[0])

    assert inside() == inside() == 3


def test_a_block_holds_for_its_thread_only() -> None:
    run, seen = counter(), []
    with threads(3):
        other = threading.Thread(target=lambda: seen.append(float(run([])[0])))
        other.start()
        other.join()
        assert run([])[0] == 3
    assert seen == [threads_in_force()]


def test_a_block_holds_for_its_task_only() -> None:
    async def one(n: int) -> int:
        with threads(n):
            await asyncio.sleep(0)
            return threads_now()

    async def both() -> list[int]:
        return list(await asyncio.gather(one(2), one(3)))

    assert asyncio.run(both()) == [2, 3]


def test_the_switch_sets_the_default() -> None:
    with config.override(num_threads=5):
        assert threads_in_force() == 5


@pytest.mark.parametrize("n, error", [(0, ValueError), (-1, ValueError), (1.5, TypeError),
                                      (True, TypeError), ("2", TypeError)])
def test_a_wrong_number_of_threads(n: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="^threads: expected "):
        threads(n)


def run_python(code: str, **environment: str) -> str:
    """What a fresh interpreter prints. Fails if it hangs, crashes or complains."""
    prelude = (
        "import numpy as np\nfrom runtime_programs import *\n"
        "from tilewright.runtime.threads import *\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", prelude + textwrap.dedent(code)],
        capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


ONES = "x = np.ones(64, np.float32)\n"


def test_environment_variable() -> None:
    assert run_python("print(counter()([])[0])", TILEWRIGHT_NUM_THREADS="3") == "3.0\n"


def test_one_thread_starts_no_thread() -> None:
    code = "import threading; counter()([]); print(threading.active_count())"
    assert run_python(code, TILEWRIGHT_NUM_THREADS="1") == "1\n"


@pytest.mark.parametrize("pause", ["", "import time; time.sleep(0.05)"], ids=["spinning", "asleep"])
def test_exit_with_workers(pause: str) -> None:
    code = ONES + f"""
with threads(4): print(reverser()([x, x])[0].sum())
{pause}
"""
    assert run_python(code) == "128.0\n"


def test_calls_during_exit_run_alone() -> None:
    code = ONES + """
import atexit
atexit.register(lambda: print(run([])[0]))  # the first to be registered runs last
run = counter()
with threads(3): print(run([])[0])
"""
    assert run_python(code) == "3.0\n1.0\n"


def test_exit_while_a_daemon_thread_calls() -> None:
    code = ONES + """
import threading
run = adder((64, 1024), MANY)
big = np.ones((64, 1024), np.float32)
def forever():
    while True: run([big, big])
for _ in range(2): threading.Thread(target=forever, daemon=True).start()
for _ in range(50): run([big, big])
print("end")
"""
    assert run_python(code, TILEWRIGHT_NUM_THREADS="2") == "end\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_fork() -> None:
    code = ONES + """
import os, threading
run, count = reverser(), counter()
with threads(3):
    assert run([x, x])[0].sum() == 128
    stop = threading.Event()
    def busy():
        while not stop.is_set(): run([x, x])
    other = threading.Thread(target=busy); other.start()
    for _ in range(5):
        child = os.fork()
        if child == 0:
            with threads(3):
                good = run([x, x])[0].sum() == 128 and count([])[0] == 3
            with threads(2):
                good = good and run._call_slowly(x, x)[0].sum() == 128
            os._exit(0 if good else 1)
        print(os.waitpid(child, 0)[1])
    stop.set(); other.join()
    assert run([x, x])[0].sum() == 128
"""
    assert run_python(code) == "0\n" * 5


def test_interrupts_leave_the_team_usable() -> None:
    code = ONES + """
import os, signal, threading, time
run, caught, inside = reverser(), 0, False
me = os.getpid()
done = threading.Event()
def interrupt(*_):
    global inside
    if inside:
        inside = False
        raise KeyboardInterrupt
signal.signal(signal.SIGINT, interrupt)
def poke():
    for _ in range(50):
        time.sleep(0.002)
        os.kill(me, signal.SIGINT)
    done.set()
poker = threading.Thread(target=poke)
poker.start()
while not done.is_set():
    try:
        inside = True
        with threads(1 + caught % 4):
            for _ in range(1000): run([x, x])
    except KeyboardInterrupt:
        caught += 1
poker.join()
assert caught > 10, caught
with threads(4): print(run([x, x])[0].sum(), counter()([])[0])
"""
    if sys.platform == "win32":
        pytest.skip("no such signals here")
    assert run_python(code) == "128.0 4.0\n"


def test_sleeping_through_python() -> None:
    code = ONES + """
import time
from tilewright.runtime import native_team, threads as module
native_team.way_to_wait = module.way_to_wait = lambda system, machine: "python"
run = reverser()
with threads(3):
    for i in range(10):
        assert run([x, x])[0].sum() == 128
        time.sleep(0.01)
print(len(team().sleepers.events))
"""
    assert run_python(code) == "2\n"


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    run = adder((64, 33), MANY)
    a = np.random.default_rng(0).random((64, 33), dtype=np.float32)
    results = []
    for n in (1, 2, 5):
        with threads(n):
            results.append(run([a, a * a])[0].tobytes())
    assert len(set(results)) == 1
    assert HALF.size == 64
