"""The memory of a device: blocks used again, their bound, what is done when there is no more."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import numpy as np
import pytest

from tilewright.errors import OutOfMemory
from tilewright.runtime.gpu.memory import SMALLEST, Block, DeviceMemory, size_class
from tilewright.runtime.gpu.sim import SimDriver


def small(nbytes: int) -> SimDriver:
    """A device with so much memory, which hands it out in round sizes."""
    driver = SimDriver(memory=nbytes)
    driver.exact = False
    return driver


def addresses(blocks: Iterable[Block]) -> set[int]:
    return {b.address for b in blocks}


def test_size_classes() -> None:
    sizes = np.unique(np.logspace(0, 34, 2000, base=2).astype(np.int64))
    for n in map(int, sizes):
        size = size_class(n)
        assert size >= n and size_class(size) == size
        assert size == SMALLEST if n <= SMALLEST else size <= max(n + SMALLEST, n * 9 // 8)
    assert len({size_class(int(n)) for n in sizes}) < 34 * 9


def test_a_block_is_used_again() -> None:
    memory = DeviceMemory(small(1 << 20))
    a, b = memory.take(1000), memory.take(1000)
    assert a.address != b.address and memory.used == memory.peak == 2048 and memory.kept == 0
    was = a.address
    del a
    assert (memory.used, memory.kept) == (1024, 1024)
    assert memory.take(900).address == was
    assert (memory.fresh, memory.reused, memory.peak) == (2, 1, 2048)
    assert "2 blocks fresh, 1 reused" in repr(memory)


def test_the_latest_goes_first() -> None:
    """A program that runs again and again finds its memory where it was."""
    memory = DeviceMemory(small(1 << 20))
    first = memory.take(600)
    second = memory.take(600)
    was = second.address
    del first
    del second
    assert memory.take(600).address == was


def test_no_more_is_kept_than_was_ever_in_use_and_a_bound() -> None:
    memory = DeviceMemory(small(1 << 24), spare=4096)
    for size in (1 << 16, 1 << 15, 1 << 14, 1 << 13):
        block = memory.take(size)
        del block
        assert memory.used + memory.kept <= memory.peak + 4096
    assert memory.kept == (1 << 16) - (1 << 16) + (1 << 15) + (1 << 14) + (1 << 13)
    memory.trim()
    assert memory.kept == 0


def test_kept_blocks_go_before_memory_runs_out() -> None:
    driver = small(100_000)
    memory = DeviceMemory(driver)
    blocks = [memory.take(10_000) for _ in range(9)]
    del blocks[1:]
    large = memory.take(60_000)
    assert memory.kept == 0 and memory.used == size_class(10_000) + size_class(60_000)
    del large
    with pytest.raises(OutOfMemory) as raised:
        memory.take(200_000)
    message = str(raised.value)
    assert message.startswith("the memory of sim is used up")
    assert "got:      200.00 kB more; arrays and programs use 10.24 kB" in message
    assert memory.used == size_class(10_000) == 10_240


def test_threads_give_back_at_any_time() -> None:
    memory = DeviceMemory(small(1 << 24))

    def work() -> None:
        for n in range(200):
            blocks = [memory.take(512 + n) for _ in range(3)]
            assert len(addresses(blocks)) == 3

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert memory.used == 0 and memory.fresh + memory.reused == 2400


def test_memory_that_is_used_again_holds_nothing() -> None:
    driver = SimDriver()
    memory = DeviceMemory(driver)
    block = memory.take(100)
    driver.write(block.address, np.ones(100, np.uint8))
    was = block.address
    del block
    again = memory.take(100)
    assert again.address == was
    found = np.empty(100, np.uint8)
    driver.read(was, found)
    assert (found == 0xA5).all()
