"""Rebuilding and naming kernels: what the buffer plan does to the kernels that schedules wrote."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from tilewright.ir.loops import (
    Accumulate,
    Alloc,
    Barrier,
    Buffer,
    Call,
    Check,
    Const,
    Expr,
    For,
    If,
    Instruction,
    Kernel,
    Let,
    Load,
    Prefetch,
    Shuffle,
    Stmt,
    Store,
    Var,
)
from tilewright.ir.sizes import names_of


def has_barrier(kernel: Kernel) -> bool:
    """Whether the team meets inside the kernel, which it does at its top level only."""
    return any(isinstance(statement, Barrier) for statement in kernel.body)


def rename(
    kernel: Kernel, buffers: Mapping[Buffer, Buffer], codes: Mapping[int, int]
) -> Kernel:
    """The kernel on other buffers and with other check codes; equal parameters become one."""
    if not buffers and not codes:
        return kernel
    renamer = _Renamer(buffers, codes)
    params = tuple(dict.fromkeys(buffers.get(p, p) for p in kernel.params))
    return replace(kernel, params=params, body=renamer.body(kernel.body), digest="")


class _Renamer:
    """Rebuilds statements and expressions, sharing the results for shared subexpressions."""

    def __init__(self, buffers: Mapping[Buffer, Buffer], codes: Mapping[int, int]) -> None:
        self.buffers, self.codes = buffers, codes
        self.done: dict[int, tuple[Expr, Expr]] = {}
        self.rows: dict[type, Callable[..., Stmt]] = {
            Let: lambda s: replace(s, value=self.expr(s.value)),
            Prefetch: lambda s: Prefetch(self.buffer(s.buffer), self.expr(s.index)),
            Store: self.write, Accumulate: self.write,
            Check: lambda s: Check(self.expr(s.condition), self.codes.get(s.code, s.code)),
            Alloc: lambda s: Alloc(self.buffer(s.buffer)),
            Barrier: lambda s: s,
            Shuffle: lambda s: replace(s, value=self.expr(s.value), lane=self.expr(s.lane)),
            Instruction: lambda s: replace(s, operands=tuple(map(self.expr, s.operands))),
            If: lambda s: If(self.expr(s.condition), self.body(s.body), self.body(s.orelse)),
            For: lambda s: replace(
                s, start=self.expr(s.start), stop=self.expr(s.stop), body=self.body(s.body)),
        }

    def buffer(self, buffer: Buffer) -> Buffer:
        return self.buffers.get(buffer, buffer)

    def body(self, body: Iterable[Stmt]) -> tuple[Stmt, ...]:
        return tuple(self.rows[type(s)](s) for s in body)

    def write(self, s: Store | Accumulate) -> Stmt:
        mask = None if s.mask is None else self.expr(s.mask)
        return replace(s, buffer=self.buffer(s.buffer), index=self.expr(s.index),
                       value=self.expr(s.value), mask=mask)

    def expr(self, e: Expr) -> Expr:
        found = self.done.get(id(e))
        if found is not None:
            return found[1]
        result = self._expr(e)
        self.done[id(e)] = (e, result)
        return result

    def _expr(self, e: Expr) -> Expr:
        if isinstance(e, Load):
            mask = None if e.mask is None else self.expr(e.mask)
            other = None if e.other is None else self.expr(e.other)
            return Load(self.buffer(e.buffer), self.expr(e.index), mask, other)
        if isinstance(e, Call):
            return Call(e.op, tuple(self.expr(a) for a in e.args), e.dtype)
        return e


def without_idle(kernel: Kernel) -> Kernel:
    """The kernel without stores of what is there already, and without loops that only did that.

    They are what becomes of copying an operand into the result when both share their memory.
    """
    return replace(kernel, body=_without_idle(kernel.body))


def _without_idle(body: Iterable[Stmt]) -> tuple[Stmt, ...]:
    held: dict[Expr, Expr] = {}
    kept: list[Stmt] = []
    for s in body:
        if isinstance(s, For):
            s = replace(s, body=_without_idle(s.body))
        elif isinstance(s, If):
            s = If(s.condition, _without_idle(s.body), _without_idle(s.orelse))
        if isinstance(s, Let):
            held[s.var] = s.value
        elif isinstance(s, Store) and held.get(s.value, s.value) == Load(s.buffer, s.index):
            continue
        elif isinstance(s, For | If) and not _has_effect(s):
            continue
        else:
            held.clear()  # what was loaded before may be written now
        kept.append(s)
    return tuple(kept)


def _has_effect(s: For | If) -> bool:
    inner = (*s.body, *s.orelse) if isinstance(s, If) else s.body
    return any(not isinstance(x, Let | Alloc | Prefetch) for x in inner)


def canonical(kernel: Kernel) -> Kernel:
    """The kernel named by its family and a digest of its structure: equal kernels, equal names."""
    text = structure(kernel).encode()
    short = hashlib.blake2b(text, digest_size=4).hexdigest()
    return replace(kernel, name=f"{kernel.name}_{short}", digest=_digest(text))


def digest(kernel: Kernel) -> str:
    """A digest of the structure of a kernel, kept by :func:`canonical`."""
    return kernel.digest or _digest(structure(kernel).encode())


def _digest(text: bytes) -> str:
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def free_variables(params: Iterable[Buffer], body: Iterable[Stmt]) -> tuple[Var, ...]:
    """The sizes that a kernel with these parameters and this body needs, by name."""
    found = set(names_of(p.size for p in params))
    _free(body, set(), found, set())
    return tuple(Var(name) for name in sorted(found))


def _free(body: Iterable[Stmt], bound: set[str], found: set[str], seen: set[int]) -> None:
    for s in body:
        exprs: tuple[Expr | None, ...] = ()
        if isinstance(s, Let):
            exprs = (s.value,)
            bound.add(s.var.name)
        elif isinstance(s, For):
            exprs = (s.start, s.stop)
            bound.add(s.var.name)
        elif isinstance(s, Store | Accumulate):
            exprs = (s.index, s.value, s.mask)
        elif isinstance(s, Prefetch):
            exprs = (s.index,)
        elif isinstance(s, Check | If):
            exprs = (s.condition,)
        elif isinstance(s, Shuffle):
            exprs = (s.value, s.lane)
            bound.add(s.var.name)
        elif isinstance(s, Instruction):
            exprs = s.operands
        stack = [e for e in exprs if e is not None]
        while stack:
            e = stack.pop()
            if isinstance(e, Var):
                if e.name not in bound:
                    found.add(e.name)
            elif id(e) not in seen and not isinstance(e, Const):
                seen.add(id(e))
                inner = e.args if isinstance(e, Call) else (e.index, e.mask, e.other)
                stack += [x for x in inner if x is not None]
        if isinstance(s, For):
            _free(s.body, bound, found, seen)
        elif isinstance(s, If):
            _free(s.body, bound, found, seen)
            _free(s.orelse, bound, found, seen)


def structure(kernel: Kernel) -> str:
    """A text of all but the name and line of a kernel; the same text means the same program."""
    parts: list[str] = [*(v.name for v in kernel.sizes), *(_declaration(p) for p in kernel.params)]
    _describe(kernel.body, parts.append)
    return " ".join(parts)


def _declaration(b: Buffer) -> str:
    return f"{b.name}:{b.dtype.name}[{b.size}]{b.space},{b.access}"


def _describe(body: Iterable[Stmt], write: Callable[[str], None]) -> None:
    for s in body:
        write(type(s).__name__)
        if isinstance(s, For):
            write(f"{_expr(s.var)}={_expr(s.start)}..{_expr(s.stop)}")
            write(f"{s.kind},{s.step},{s.width},{s.interleave}{{")
            _describe(s.body, write)
            write("}")
        elif isinstance(s, If):
            write(f"{_expr(s.condition)}{{")
            _describe(s.body, write)
            write("}{")
            _describe(s.orelse, write)
            write("}")
        elif isinstance(s, Let):
            write(f"{_expr(s.var)}={_expr(s.value)}")
        elif isinstance(s, Store | Accumulate):
            how = s.op if isinstance(s, Accumulate) else s.streaming
            write(f"{s.buffer.name}[{_expr(s.index)}]{how}={_expr(s.value)}?{_expr(s.mask)}")
        elif isinstance(s, Prefetch):
            write(f"{s.buffer.name}[{_expr(s.index)}]")
        elif isinstance(s, Check):
            write(f"{_expr(s.condition)}!{s.code}")
        elif isinstance(s, Alloc):
            write(_declaration(s.buffer))
        elif isinstance(s, Shuffle):
            write(f"{_expr(s.var)}={s.mode}({_expr(s.value)},{_expr(s.lane)})")
        elif isinstance(s, Instruction):
            write(f"{s.name}({','.join(map(_expr, s.operands))})")


def _expr(e: Expr | None) -> str:
    if isinstance(e, Const):
        return f"{e.value!r}:{e.dtype.name}"
    if isinstance(e, Var):
        return f"{e.name}:{e.dtype.name}"
    if isinstance(e, Call):
        return f"{e.op}:{e.dtype.name}({','.join(map(_expr, e.args))})"
    if isinstance(e, Load):
        return f"{e.buffer.name}[{_expr(e.index)}]?{_expr(e.mask)}:{_expr(e.other)}"
    return ""
