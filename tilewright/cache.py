"""The disk cache: what was compiled, as plain data in files that nobody has to trust.

An entry is a few facts (JSON) and blobs of bytes, such as object code. Nothing is ever unpickled. A
file is written beside its place and moved there, so that several processes can share a folder.
What is damaged, of another version, or may have been written by another user is not read but
removed and made again. A folder that cannot be written, or is not there, is never an error.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import secrets
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilewright import config

MAGIC = b"tilewright\x00\x01"
"""How every entry begins; the last byte is the version of the format."""

SUFFIX = ".twc"
CHECKSUM = 32
SWEPT = "swept"
"""An empty file; it was touched when the folder was last kept within its size."""

SWEEP_AFTER = 600
"""Seconds between looks at the size of the folder."""
ABANDONED = 3600
"""Seconds after which an unfinished file belongs to a process that died."""
TOUCH_AFTER = 86400
"""Seconds after which reading an entry makes it young again."""


@dataclass(frozen=True)
class Entry:
    """What is kept under a key: facts that JSON can hold, and bytes."""

    facts: dict[str, Any]
    blobs: tuple[bytes, ...] = ()


class Damaged(ValueError):  # noqa: N818 - a finding about a file
    """The bytes are no entry, or not the one of this key."""


@functools.cache
def version() -> str:
    """A digest of what compiles: every source file of this package as it is, Python, llvmlite.

    A file is known by its name, size and time, which is quicker than by its contents. Empty where
    there are no source files, as in an archive: a change would go unnoticed.
    """
    digest = hashlib.blake2b(digest_size=16)
    root = Path(__file__).parent
    seen = False
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            if name.endswith(".py"):
                state = os.stat(os.path.join(folder, name))
                told = (os.path.relpath(folder, root), name, state.st_size, state.st_mtime_ns)
                digest.update(repr(told).encode())
                seen = True
    if not seen:
        return ""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        digest.update(importlib.metadata.version("llvmlite").encode())
    digest.update(sys.version.encode())
    return digest.hexdigest()


def key_of(*parts: str) -> str:
    """The key of what follows from ``parts`` and the version of the compiler."""
    digest = hashlib.blake2b(version().encode(), digest_size=20)
    for part in parts:
        raw = part.encode()
        digest.update(b"%d:" % len(raw) + raw)
    return digest.hexdigest()


def pack(key: str, entry: Entry) -> bytes:
    """The bytes of an entry's file."""
    facts = json.dumps(entry.facts, separators=(",", ":")).encode()
    sizes = [len(facts), *map(len, entry.blobs)]
    head = MAGIC + struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes)
    body = b"".join((head, facts, *entry.blobs))
    return body + checksum(key, body)


def unpack(key: str, raw: bytes) -> Entry:
    """The entry in the bytes of a file. Raises :class:`Damaged` if it is not what was packed."""
    body, found = raw[:-CHECKSUM], raw[-CHECKSUM:]
    if not raw.startswith(MAGIC):
        raise Damaged("no entry of this version")
    if len(raw) < len(MAGIC) + 4 + CHECKSUM or checksum(key, body) != found:
        raise Damaged("the checksum differs")
    try:
        (count,) = struct.unpack_from("<I", body, len(MAGIC))
        sizes = struct.unpack_from(f"<{count}Q", body, len(MAGIC) + 4)
        at = len(MAGIC) + 4 + 8 * count
        if at + sum(sizes) != len(body):
            raise Damaged("the sizes do not add up")
        parts = []
        for size in sizes:
            parts.append(body[at:at + size])
            at += size
        return Entry(json.loads(parts[0]), tuple(parts[1:]))
    except (struct.error, ValueError, IndexError) as error:
        raise Damaged(str(error)) from None


def checksum(key: str, body: bytes) -> bytes:
    """Of an entry and its key, so that a file under another name is not taken for it."""
    return hashlib.blake2b(body, key=key.encode()[:64], digest_size=CHECKSUM).digest()


@dataclass(frozen=True)
class File:
    """An entry's file: its key, size, and when it was last used, in seconds since the epoch."""

    key: str
    bytes: int
    used: float


class Cache:
    """A folder of entries, kept within about ``limit`` bytes by removing what was not used long."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._written: int | None = None

    def path(self, key: str) -> Path:
        """Where the entry of a key is."""
        return self.folder / (key + SUFFIX)

    def has(self, key: str) -> bool:
        """Whether there is a file for a key, whatever is in it."""
        try:
            return self.path(key).exists()
        except OSError:
            return False

    def load(self, key: str) -> Entry | None:
        """The entry of a key. A file that cannot be trusted is removed."""
        try:
            return self.read(key)
        except Damaged:
            self.remove(key)
        except OSError:
            pass
        return None

    def read(self, key: str) -> Entry:
        """The entry of a key. Raises :class:`Damaged` or ``OSError``."""
        path = self.path(key)
        with open(path, "rb") as file:
            state = os.fstat(file.fileno())
            if not trusted(state):
                raise Damaged("somebody else may have written it")
            entry = unpack(key, file.read())
        if time.time() - state.st_mtime > TOUCH_AFTER:
            with contextlib.suppress(OSError):
                os.utime(path)
        return entry

    def store(self, key: str, entry: Entry) -> bool:
        """Keep an entry; False if that is not possible here."""
        raw = pack(key, entry)
        unfinished = self.folder / f".{key}.{secrets.token_hex(4)}"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with open(handle, "wb") as file:
                    file.write(raw)
                os.replace(unfinished, self.path(key))
            finally:
                with contextlib.suppress(OSError):
                    unfinished.unlink(missing_ok=True)
        except OSError:
            return False
        self._keep_within(len(raw))
        return True

    def remove(self, key: str) -> None:
        """Forget an entry, if that is possible."""
        with contextlib.suppress(OSError):
            self.path(key).unlink(missing_ok=True)

    def files(self) -> list[File]:
        """All entries, the one used last at the end."""
        found = [File(name[:-len(SUFFIX)], state.st_size, state.st_mtime)
                 for name, state in self._listing() if name.endswith(SUFFIX)]
        return sorted(found, key=lambda f: (f.used, f.key))

    def clear(self) -> int:
        """Remove all entries; how many there were."""
        files = self.files()
        for file in files:
            self.remove(file.key)
        self._sweep_unfinished(0)
        return len(files)

    def _listing(self) -> Iterator[tuple[str, os.stat_result]]:
        try:
            with os.scandir(self.folder) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):  # another process may have removed it
                        yield entry.name, entry.stat(follow_symlinks=False)
        except OSError:
            return

    def _keep_within(self, written: int) -> None:
        """After a while, or much written, remove the entries used longest ago."""
        stamp = self.folder / SWEPT
        if self._written is None:
            self._written = 0
            try:
                due = time.time() - stamp.stat().st_mtime > SWEEP_AFTER
            except OSError:
                due = True
        else:
            due = False
        self._written += written
        if due or self._written > self.limit // 16:
            self._written = 0
            with contextlib.suppress(OSError):
                stamp.touch()
            self.sweep()

    def sweep(self) -> None:
        """Remove the entries used longest ago, so that a fifth of the limit is free again."""
        files = self.files()
        total = sum(file.bytes for file in files)
        if total > self.limit:
            for file in files:
                if total <= self.limit * 4 // 5:
                    break
                self.remove(file.key)
                total -= file.bytes
        self._sweep_unfinished(ABANDONED)

    def _sweep_unfinished(self, age: float) -> None:
        now = time.time()
        for name, state in self._listing():
            if name.startswith(".") and now - state.st_mtime > age:
                with contextlib.suppress(OSError):
                    (self.folder / name).unlink(missing_ok=True)


def trusted(state: os.stat_result) -> bool:
    """Whether only this user, or the administrator, can have written a file."""
    if not hasattr(os, "geteuid"):
        return True  # where files have lists of rights, a user's folders are the user's own
    return state.st_uid in (os.geteuid(), 0) and not state.st_mode & 0o022


@functools.lru_cache(maxsize=16)
def _open(folder: Path, limit: int) -> Cache:
    return Cache(folder, limit)


def cache() -> Cache | None:
    """The cache that the switches ask for, if any."""
    folder = config.cache_folder()
    if folder is None or not version():
        return None
    return _open(folder, config.get("cache_size") << 20)
