"""What the disk cache holds, for a person: ``python -m tilewright cache ls|clear|verify|why``."""

from __future__ import annotations

import time

from tilewright import config
from tilewright.cache import Cache, Damaged, Entry, File, cache
from tilewright.codegen.cpu.library import kernel_key
from tilewright.codegen.gpu.program import module_text
from tilewright.codegen.gpu.ptx import ptx_key
from tilewright.compiler.pipeline import compile_graph
from tilewright.compiler.plan import Plan
from tilewright.compiler.target import Target
from tilewright.errors import UserError
from tilewright.ir.graph import Graph
from tilewright.runtime.program import program_key, target_named

UNITS = (("d", 86400), ("h", 3600), ("min", 60))
SHOWN = 12
"""Letters of a key that are printed."""


def state() -> list[str]:
    """Where the cache is, what is in it, and whether it can be used."""
    try:
        store = cache()
    except UserError as error:
        return [f"{'disk cache':<12}{line}" for line in str(error).splitlines()[:1]]
    if store is None:
        reason = f"switched off by {config.source('cache')}"
        if config.cache_folder() is not None:
            reason = "tilewright has no source files to tell its versions by"
        elif not config.get("cache"):
            reason = "there is no home folder"
        return [f"{'disk cache':<12}none: {reason}"]
    files = store.files()
    total = sum(file.bytes for file in files)
    return [
        f"{'disk cache':<12}{store.folder} ({config.source('cache')})",
        f"{'':<12}{len(files)} entries, {size(total)} of at most {size(store.limit)}",
    ]


def listing() -> str:
    """A line per entry, the one used last at the end."""
    store = cache()
    lines = state()
    for file in store.files() if store is not None else ():
        lines.append(line_of(file, look(store, file)))  # type: ignore[arg-type]
    return "\n".join(lines)


def look(store: Cache, file: File) -> Entry | str:
    """The entry in a file, or what is wrong with it."""
    try:
        return store.read(file.key)
    except (Damaged, OSError) as error:
        return str(error) or type(error).__name__


def line_of(file: File, found: Entry | str) -> str:
    """Key, kind, name, target, size and age."""
    start = f"{file.key[:SHOWN]}  {size(file.bytes):>9}  {age(time.time() - file.used):>7}"
    if isinstance(found, str):
        return f"{start}  refused: {found}"
    facts = {name: str(found.facts.get(name, "?")) for name in ("kind", "target", "name")}
    return f"{start}  {facts['kind']:<8}{facts['target']:<8}{facts['name']}"


def clear() -> str:
    """Remove everything; how much that was."""
    store = cache()
    count = store.clear() if store is not None else 0
    left = len(store.files()) if store is not None else 0
    return f"{count - left} entries removed" + (f", {left} could not be" if left else "")


def verify() -> tuple[str, bool]:
    """Read every entry and remove what cannot be trusted; whether all could be."""
    store = cache()
    files = store.files() if store is not None else []
    bad = []
    for file in files:
        found = look(store, file)  # type: ignore[arg-type]
        if isinstance(found, str):
            bad.append(line_of(file, found))
            store.remove(file.key)  # type: ignore[union-attr]
    lines = [*bad, f"{len(files) - len(bad)} of {len(files)} entries are in order"]
    return "\n".join(lines), not bad


def why(graph: Graph) -> str:
    """What the cache has of a graph: its program, and each of its kernels."""
    target = target_named()
    store = cache()
    lines = [*state(), f"{'target':<12}{target.name} on {target.cpu}"]
    key = program_key(graph, target, (), {}, {})
    lines.append(f"{there(store, key)}  {key[:SHOWN]}  program {graph.name}")
    parts = compile_graph(graph, target).plan
    for key, name in (gpu_keys if target.gpu is not None else cpu_keys)(parts, target):
        lines.append(f"{there(store, key)}  {key[:SHOWN]}  {name}")
    lines.append("A key follows from the graph or kernel, the target, and the versions of "
                 "tilewright's files, llvmlite, LLVM and Python.")
    return "\n".join(lines)


def cpu_keys(plan: Plan, target: Target) -> list[tuple[str, str]]:
    """The keys of a plan's kernels, each once, and what they are."""
    kernels = {launch.kernel.digest: launch.kernel for launch in plan.launches}
    return [(kernel_key(kernel, target), f"kernel {kernel.name}") for kernel in kernels.values()]


def gpu_keys(plan: Plan, target: Target) -> list[tuple[str, str]]:
    """The key of a plan's PTX, if it has any, and what it is."""
    text = module_text(plan, target)
    return [(ptx_key(text, target), "PTX of its kernels")] if text else []


def there(store: Cache | None, key: str) -> str:
    """Whether an entry is in the cache, as a word of fixed width."""
    if store is None:
        return "no cache"
    try:
        store.read(key)
    except FileNotFoundError:
        return "missing "
    except (Damaged, OSError):
        return "refused "
    return "found   "


def size(count: int) -> str:
    """A number of bytes with a unit."""
    for unit, step in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= step:
            return f"{count / step:.4g} {unit}"
    return f"{count} B"


def age(seconds: float) -> str:
    """How long ago, in one unit."""
    for unit, step in UNITS:
        if seconds >= step:
            return f"{int(seconds // step)} {unit}"
    return "now"
