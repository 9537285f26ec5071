"""Pooled memory: aligned, used again, never shared, bounded."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from runtime_programs import adder

from tilewright.runtime import pool as pool_module
from tilewright.runtime.native_pool import POOL
from tilewright.runtime.pool import Pool, address_of, physical_memory, pool

F32 = np.dtype(np.float32)


@pytest.mark.parametrize(
    "bytes", [0, 1, 63, 320, 321, 1024, 5000, 1 << 20, (1 << 22) + 1, 50_000_001])
def test_blocks_are_aligned_and_large_enough(bytes: int) -> None:
    own = Pool(1 << 30)
    addresses = [own.take(bytes) for _ in range(3)]
    assert all(a % 64 == 0 for a in addresses)
    ordered = sorted(addresses)
    assert all(b - a >= bytes for a, b in zip(ordered, ordered[1:], strict=False))
    for a in addresses:
        own.give(a)
    own.trim()


def test_a_block_given_back_is_used_again() -> None:
    own = Pool(1 << 30)
    first = own.take(5000)
    own.give(first)
    assert own.take(4999) == first
    assert (own.fresh, own.reused) == (1, 1)


@pytest.mark.parametrize("bytes, kept, again", [
    (1 << 20, (1 << 20) + 1, True), (1 << 20, (3 << 19) + 1, True), (1 << 20, (7 << 18) + 1, False),
    ((1 << 20) + 1, 1 << 20, False), (1 << 12, (1 << 12) + 1, False),
])
def test_a_large_block_may_be_somewhat_larger(bytes: int, kept: int, again: bool) -> None:
    own = Pool(1 << 30)
    block = own.take(kept)
    own.give(block)
    assert (own.take(bytes) == block) == again == bool(own.reused)
    assert (own.kept == 0) == again


def test_an_array_gives_its_memory_back_when_its_last_view_dies() -> None:
    own = Pool(1 << 30)
    array = own.array((40, 50), F32)
    start = address_of(array)
    view = array[3:7].T[::-1]
    del array
    gc.collect()
    assert own.kept == 0
    other = own.array((40, 50), F32)
    assert address_of(other) != start
    del view
    assert own.kept > 0
    assert address_of(own.array((40, 50), F32)) == start


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (5,), (7, 11)])
def test_arrays_of_any_shape(shape: tuple[int, ...]) -> None:
    array = pool().array(shape, F32)
    assert (array.shape, array.dtype) == (shape, F32)
    assert array.flags.c_contiguous and array.flags.writeable and array.flags.aligned
    array[...] = 3
    assert (array == 3).all()


def test_the_pool_keeps_no_more_than_its_limit() -> None:
    own = Pool(100_000)
    blocks = [own.take(30_000) for _ in range(10)]
    for block in blocks:
        own.give(block)
    assert 0 < own.kept <= 100_000


def test_room_is_made_at_the_expense_of_what_was_unused_for_longest() -> None:
    own = Pool(100_000)
    for bytes in (30_000, 40_000):
        own.give(own.take(bytes))
    own.give(own.take(50_000))
    kept = own.kept
    own.give(own.take(40_000))
    assert own.reused == 1
    own.give(own.take(30_000))
    assert own.fresh == 4
    assert kept <= 100_000


def test_trim_returns_everything() -> None:
    own = Pool(1 << 30)
    for block in [own.take(1000 * k) for k in range(1, 30)]:
        own.give(block)
    own.trim()
    assert own.kept == 0
    assert not own.block[POOL["HEADS"]:].any()


def test_absurd_sizes_are_refused() -> None:
    with pytest.raises(MemoryError):
        pool().take(1 << 60)
    with pytest.raises(MemoryError):
        pool().take(1 << 45)


def test_results_reuse_memory_and_never_share_it() -> None:
    run = adder((100, 100))
    a = np.ones((100, 100), np.float32)
    for _ in range(3):
        run([a, a])
    fresh = pool().fresh
    for _ in range(100):
        kept, also = run([a, a])[0], run([a, a])[0]
        assert not np.shares_memory(kept, also)
        last = kept[2:5]
        del kept, also
        assert run([a, a])[0].base is not None
        assert (last == 2).all()
    assert pool().fresh <= fresh + 3
    assert address_of(run([a, a])[0]) % 64 == 0


def test_memory_of_a_control_group(tmp_path) -> None:
    assert physical_memory() > 1 << 26
    limit = tmp_path / "sys" / "fs" / "cgroup" / "memory.max"
    limit.parent.mkdir(parents=True)
    limit.write_text("1234567\n")
    assert physical_memory(tmp_path) == 1234567
    limit.write_text("max\n")
    assert physical_memory(tmp_path) == physical_memory(tmp_path / "nowhere")


def test_freed_memory_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    trimmed = []
    monkeypatch.setattr(pool_module, "_trim", lambda: trimmed.append(1) or 0)
    monkeypatch.setattr(pool_module, "_trimmed", -10.0)
    pool_module.give_back()
    pool_module.give_back()  # a moment later
    assert len(trimmed) == 1
