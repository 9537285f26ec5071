"""Rebuilding and naming kernels: what the buffer plan does to the kernels that schedules wrote."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from tilewright.ir.loops import (
    Accumulate,
    Alloc,
    Barrier,
    Buffer,
    Call,
    Check,
    Expr,
    For,
    If,
    Kernel,
    Let,
    Load,
    Stmt,
    Store,
)


def statements(body: Iterable[Stmt]) -> Iterator[Stmt]:
    """Every statement of a body, outer ones before those inside them."""
    for statement in body:
        yield statement
        if isinstance(statement, For):
            yield from statements(statement.body)
        elif isinstance(statement, If):
            yield from statements(statement.body)
            yield from statements(statement.orelse)


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
    return replace(kernel, params=params, body=renamer.body(kernel.body))


class _Renamer:
    """Rebuilds statements and expressions, sharing the results for shared subexpressions."""

    def __init__(self, buffers: Mapping[Buffer, Buffer], codes: Mapping[int, int]) -> None:
        self.buffers, self.codes = buffers, codes
        self.done: dict[int, tuple[Expr, Expr]] = {}
        self.rows: dict[type, Callable[..., Stmt]] = {
            Let: lambda s: replace(s, value=self.expr(s.value)),
            Store: self.write, Accumulate: self.write,
            Check: lambda s: Check(self.expr(s.condition), self.codes.get(s.code, s.code)),
            Alloc: lambda s: Alloc(self.buffer(s.buffer)),
            Barrier: lambda s: s,
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


def canonical(kernel: Kernel) -> Kernel:
    """The kernel named by its family and a digest of its structure: equal kernels, equal names."""
    structure = repr((kernel.params, kernel.body))
    digest = hashlib.blake2b(structure.encode(), digest_size=4).hexdigest()
    return replace(kernel, name=f"{kernel.name}_{digest}")
