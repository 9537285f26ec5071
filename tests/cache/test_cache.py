"""The disk cache: entries survive as they are or not at all, and nothing is ever an error."""

from __future__ import annotations

import multiprocessing
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import tilewright as tw
from tilewright import cache as cache_module
from tilewright import config
from tilewright.cache import CHECKSUM, SUFFIX, Cache, Damaged, Entry, key_of, pack, unpack
from tilewright.codegen.cpu import library
from tilewright.codegen.cpu.library import kernel_key
from tilewright.codegen.cpu.tiers import host_target, x86
from tilewright.compiler.pipeline import compile_graph
from tilewright.errors import CompilerBug

POSIX = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="rights of POSIX files")
ENTRY = Entry({"kind": "kernel", "name": "x", "number": 3}, (b"code", b"", b"\0" * 100))
KEY = "ab" * 20


@pytest.fixture
def store(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "folder", 1 << 20)


def function(x: np.ndarray) -> np.ndarray:
    return np.tanh(x @ x.T).sum(1) * 2.5


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A process that has compiled nothing, with an empty cache; forget() makes it one again."""
    def forget() -> None:
        for name in ("_emitted", "_kernels", "_linked"):
            monkeypatch.setattr(library, name, {})
    forget()
    with config.override(cache=str(tmp_path / "cache")):
        yield forget


def result() -> np.ndarray:
    x = np.linspace(-1, 1, 12 * 7, dtype=np.float32).reshape(12, 7)
    got = tw.jit(function)(x)
    np.testing.assert_allclose(got, function(x), rtol=1e-5)
    return got


def no_assembler(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, a kernel that has to be emitted is a failure."""
    def refuse(*_: object) -> None:
        raise AssertionError("a kernel was emitted")
    monkeypatch.setattr(library, "emitted", refuse)


# --- entries --------------------------------------------------------------------------------


def test_an_entry_comes_back(store: Cache) -> None:
    assert store.load(KEY) is None
    assert store.store(KEY, ENTRY)
    assert store.load(KEY) == ENTRY
    assert [f.key for f in store.files()] == [KEY]


@pytest.mark.parametrize("place", range(0, len(pack(KEY, ENTRY)), 7))
def test_a_changed_byte_is_noticed(place: int) -> None:
    raw = bytearray(pack(KEY, ENTRY))
    raw[place] ^= 0x20
    with pytest.raises(Damaged):
        unpack(KEY, bytes(raw))


@pytest.mark.parametrize("length", [0, 1, 12, 40, 100, len(pack(KEY, ENTRY)) - 1])
def test_a_cut_file_is_noticed(length: int) -> None:
    with pytest.raises(Damaged):
        unpack(KEY, pack(KEY, ENTRY)[:length])


def test_sizes_that_do_not_add_up_are_noticed() -> None:
    body = bytearray(pack(KEY, ENTRY)[:-CHECKSUM])
    body[len(cache_module.MAGIC) + 4] ^= 1
    with pytest.raises(Damaged, match="sizes"):
        unpack(KEY, bytes(body) + cache_module.checksum(KEY, bytes(body)))


def test_an_entry_under_another_key_is_refused_and_removed(store: Cache) -> None:
    store.store(KEY, ENTRY)
    other = "cd" * 20
    store.path(KEY).rename(store.path(other))
    assert store.load(other) is None
    assert not store.path(other).exists()


@POSIX
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_what_others_can_write_is_refused(store: Cache, mode: int) -> None:
    store.store(KEY, ENTRY)
    store.path(KEY).chmod(mode)
    assert store.load(KEY) is None
    assert not store.path(KEY).exists()


@POSIX
def test_only_the_user_can_write_what_is_stored(store: Cache) -> None:
    store.store(KEY, ENTRY)
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(store.path(KEY).stat().st_mode) == 0o600


# --- folders --------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Cache(tmp_path / "file" / "folder", 1 << 20)
    assert not store.store(KEY, ENTRY)
    assert store.load(KEY) is None
    assert store.files() == []
    assert store.clear() == 0


def test_a_write_that_fails_leaves_nothing(store: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    store.store("ef" * 20, ENTRY)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "replace", full)
    assert not store.store(KEY, ENTRY)
    assert sorted(p.name for p in store.folder.iterdir()) == ["ef" * 20 + SUFFIX, "swept"]


@POSIX
@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_still_serves(store: Cache) -> None:
    store.store(KEY, ENTRY)
    store.folder.chmod(0o500)
    try:
        assert not store.store("cd" * 20, ENTRY)
        assert store.load(KEY) == ENTRY
    finally:
        store.folder.chmod(0o700)


def test_the_oldest_go_when_the_folder_is_full(store: Cache) -> None:
    now = time.time()
    for i in range(30):
        key = f"{i:040x}"
        store.store(key, Entry({}, (b"x" * 1000,)))
        os.utime(store.path(key), (now - 1000 + i, now - 1000 + i))
    store.limit = 20_000
    store.sweep()
    files = store.files()
    assert 10_000 < sum(f.bytes for f in files) <= 16_000
    assert files[-1].key == f"{29:040x}"
    assert files[0].key > f"{10:040x}"


def test_the_folder_is_kept_small_while_it_is_written(store: Cache) -> None:
    store.limit = 100_000
    for i in range(400):
        store.store(f"{i:040x}", Entry({}, (b"x" * 1000,)))
    assert sum(f.bytes for f in store.files()) <= store.limit + store.limit // 8


def test_files_of_processes_that_died_go(store: Cache) -> None:
    store.store(KEY, ENTRY)
    left = store.folder / f".{KEY}.0123"
    left.write_bytes(b"half")
    store.sweep()
    assert left.exists()
    os.utime(left, (0, 0))
    store.sweep()
    assert not left.exists()
    assert store.load(KEY) == ENTRY


def write_many(folder: str, seed: int) -> int:
    store = Cache(Path(folder), 60_000)
    bad = 0
    for i in range(300):
        key = f"{(i * 7 + seed) % 20:040x}"
        size = 500 + int(key, 16)
        store.store(key, Entry({"key": key}, (bytes([int(key, 16)]) * size,)))
        found = store.load(f"{i % 20:040x}")
        if found is not None and found.blobs[0] != bytes([i % 20]) * (500 + i % 20):
            bad += 1
    return bad


def test_processes_share_a_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        assert pool.starmap(write_many, [(str(tmp_path), seed) for seed in range(3)]) == [0, 0, 0]
    store = Cache(tmp_path, 60_000)
    assert all(store.load(f.key) is not None for f in store.files())
    assert [p for p in tmp_path.iterdir() if p.name.startswith(".")] == []


# --- programs -------------------------------------------------------------------------------


def test_a_second_process_emits_nothing(fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    first = result()
    fresh()
    no_assembler(monkeypatch)
    np.testing.assert_array_equal(result(), first)


def test_without_the_cache_everything_is_made_again(fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    result()
    fresh()
    no_assembler(monkeypatch)
    with config.override(cache="off"), pytest.raises(CompilerBug, match="was emitted"):
        result()


def test_other_programs_use_the_kernels_that_they_share(fresh) -> None:
    x = np.ones((8, 5), np.float32)
    tw.jit(lambda x: np.exp(x) * 3).compile(x)
    fresh()
    made: list[str] = []
    real = library.emitted

    def noted(kernel, target):
        made.append(kernel.name)
        return real(kernel, target)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "emitted", noted)
        y, z = tw.jit(lambda x, y: (np.exp(x) * 3, y.sum(0)))(x, x)
    np.testing.assert_allclose(y, np.exp(x) * 3, rtol=1e-6)
    np.testing.assert_array_equal(z, x.sum(0))
    assert len(made) == 1


def test_damaged_kernels_are_made_again(fresh, tmp_path: Path) -> None:
    first = result()
    paths = list((tmp_path / "cache").glob("*" + SUFFIX))
    assert paths
    for path in paths:
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        path.write_bytes(bytes(raw))
    fresh()
    np.testing.assert_array_equal(result(), first)
    store = Cache(tmp_path / "cache", 1 << 20)
    assert all(store.load(path.name[:-len(SUFFIX)]) is not None for path in paths)


def test_keys_change_with_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key_of("a", "b")
    assert key_of("a", "b") == before
    assert key_of("ab", "") != before
    monkeypatch.setattr(cache_module, "version", lambda: "another")
    assert key_of("a", "b") != before


def test_the_version_follows_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package"
    (package / "ir").mkdir(parents=True)
    for path in (package / "cache.py", package / "ir" / "ops.py"):
        path.write_text("x = 1\n")
    monkeypatch.setattr(cache_module, "__file__", str(package / "cache.py"))
    read = cache_module.version.__wrapped__
    before = read()
    assert read() == before
    (package / "ir" / "ops.py").write_text("x = 12\n")
    assert read() != before


def test_without_sources_there_is_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "__file__", str(tmp_path / "archive.zip" / "cache.py"))
    assert cache_module.version.__wrapped__() == ""
    assert cache_module.cache() is not None
    monkeypatch.setattr(cache_module, "version", lambda: "")
    assert cache_module.cache() is None


def test_threads_compile_the_same_program_at_once(fresh) -> None:
    x = np.linspace(-1, 1, 12 * 7, dtype=np.float32).reshape(12, 7)
    results: list[np.ndarray] = []
    start = threading.Barrier(4)

    def compile_one(scale: float) -> None:
        start.wait()
        made = tw.jit(lambda x: function(x) * scale).lower(x).compile()
        results.append(made([x])[0] / scale)

    workers = [threading.Thread(target=compile_one, args=(s,)) for s in (2.0, 2.0, 4.0, 4.0)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 4
    for found in results:
        np.testing.assert_allclose(found, function(x), rtol=1e-5)


def test_keys_change_with_the_machine(fresh) -> None:
    plan = compile_graph(tw.jit(function).lower(np.ones((3, 4), np.float32)).graph,
                         host_target()).plan
    kernel = plan.launches[0].kernel
    triple = "x86_64-unknown-linux-gnu"
    features = frozenset({"avx2", "fma", "avx512f"})
    targets = [
        x86("avx512", triple, "znver4", features),
        x86("avx512", triple, "znver5", features),
        x86("avx512", triple, "znver4", features | {"avx512bf16"}),
        x86("avx2", triple, "znver4", features),
        x86("sse2", triple, "znver4", features),
    ]
    assert len({kernel_key(kernel, t) for t in targets}) == len(targets)


def test_a_new_process_finds_what_another_made(tmp_path: Path) -> None:
    code = (
        "import numpy as np, tilewright as tw\n"
        "from tilewright.codegen.cpu import library\n"
        "made = []\n"
        "real = library.emitted\n"
        "library.emitted = lambda *a: made.append(a) or real(*a)\n"
        "x = np.arange(12, dtype=np.float32).reshape(3, 4)\n"
        "print(tw.jit(lambda x: np.exp(x).sum(1))(x).tolist(), len(made))\n"
    )
    environment = {**os.environ, "TILEWRIGHT_CACHE": str(tmp_path / "cache")}
    root = Path(__file__).parents[2]
    first, second = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                       env=environment, cwd=root).stdout.rsplit(" ", 1) for _ in range(2))
    assert first[0] == second[0]
    assert int(first[1]) > 0
    assert int(second[1]) == 0


# --- switches -------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["off", "OFF", "0", "no"])
def test_the_cache_can_be_switched_off(text: str) -> None:
    with config.override(cache=text):
        assert config.cache_folder() is None
        assert cache_module.cache() is None


def test_the_folder_follows_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TILEWRIGHT_CACHE", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert config.cache_folder() == tmp_path / "tilewright"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert config.cache_folder() == tmp_path / ".cache" / "tilewright"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert config.cache_folder() == tmp_path / "Library" / "Caches" / "tilewright"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert config.cache_folder() == tmp_path / "local" / "tilewright" / "cache"


def test_without_a_home_there_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")
    monkeypatch.delenv("TILEWRIGHT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", none)
    monkeypatch.setattr(sys, "platform", "linux")
    assert config.cache_folder() is None
