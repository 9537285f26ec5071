"""The text of the Kernel language::

    kernel softmax(x: f32[4096] in, y: f32[4096] out) {  # model.py:12 in step
      for r in 0..64 parallel {
        alloc m: f32[1] register
        m[0] = -inf:f32
        for c in 0..64 vector(16, 4) {
          m[0] max= x[r * 64 + c]
        }
        let n: i64 = min(r, 10)
        check n < 9 else 3
        if n == 0 {
          y[n if n < 5] = exp(x[n if n < 5 else 0.0:f32]) * 2.0:f32
        } else {
          stream y[0] = cast<f32>(n)
        }
      }
      barrier
      for b in 0..n block {
        alloc tile: bf16[1024] shared
        for t in 0..128 thread {
          let other: f32 = shuffle xor(m[0], 16)
          run ldmatrix_x4(a[0], tile[t * 8])
        }
      }
    }

A buffer is ``name: type[size] space access``, ``global`` being left out; a parameter ``n: i64``
before the buffers is a size; a loop is
``for var in start..stop step n kind(width, interleave)``, ``serial`` and ``(1, 1)`` being left out.
A number carries its element type unless it is an i64 or a truth. A call has the element type of
its first operand (a comparison: bool, ``where``: of its second) or says its own: ``cast<f32>(x)``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tilewright.ir.graph import OPS
from tilewright.ir.instructions import INSTRUCTIONS
from tilewright.ir.lex import (
    Bits,
    Reader,
    annotated,
    location_text,
    name_text,
    number_text,
)
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
from tilewright.ir.types import DTYPES, DType, bool_, i64

INFIX: dict[str, tuple[str, int]] = {
    "or": ("|", 1), "xor": ("^", 2), "and": ("&", 3),
    "eq": ("==", 4), "ne": ("!=", 4), "lt": ("<", 4), "le": ("<=", 4), "gt": (">", 4),
    "ge": (">=", 4), "shl": ("<<", 5), "shr": (">>", 5), "add": ("+", 6), "sub": ("-", 6),
    "mul": ("*", 7), "div": ("/", 7), "floordiv": ("//", 7), "mod": ("%", 7),
}
"""Spelling and strength of the ops that stand between their operands."""

SYMBOLS = {symbol: (op, strength) for op, (symbol, strength) in INFIX.items()}
TRUTHS = frozenset(("eq", "ne", "lt", "le", "gt", "ge"))
COMPARISON = 4
SPACES = ("global", "stack", "register", "shared")
ACCESSES = ("in", "out", "inout", "workspace")
MODES = ("xor", "up", "down", "lane")
KINDS = ("serial", "parallel", "vector", "unroll", "block", "thread")


def implied_dtype(op: str, args: Sequence[Expr]) -> DType | None:
    """The element type of a call that does not say it."""
    if op in TRUTHS:
        return bool_
    like = args[1:] if op == "where" else args
    return like[0].dtype if like and op not in ("cast", "bitcast") else None


# --- writing ----------------------------------------------------------------------------
def show_kernel(kernel: Kernel, notes: Mapping[int, str]) -> str:
    """The text; ``notes`` are put under the n-th statement in reading order, 0: the first line."""
    sizes = [f"{name_text(v.name)}: {v.dtype.name}" for v in kernel.sizes]
    params = ", ".join([*sizes, *(buffer_text(b, b.space == "global") for b in kernel.params)])
    head = f"kernel {name_text(kernel.name)}({params}) {{{location_text(kernel.loc)}"
    lines = annotated(head, notes.get(0))
    numbers = iter(range(1, 1 << 62))
    lines += body_lines(kernel.body, "  ", numbers, notes)
    return "\n".join([*lines, "}", ""])


def buffer_text(buffer: Buffer, default_space: bool) -> str:
    """``x: f32[64] register`` and, for a parameter, its access."""
    words: list[str] = [] if default_space else [buffer.space]
    words += [buffer.access] if buffer.access else []
    name = name_text(buffer.name)
    return " ".join([f"{name}: {buffer.dtype.name}[{buffer.size}]", *words])


def body_lines(
    body: Sequence[Stmt], indent: str, numbers: Iterator[int], notes: Mapping[int, str]
) -> list[str]:
    """The lines of statements; ``numbers`` counts statements in reading order."""
    lines: list[str] = []
    for statement in body:
        note = notes.get(next(numbers))
        if isinstance(statement, For):
            lines += annotated(f"{indent}{for_text(statement)} {{", note)
            lines += body_lines(statement.body, indent + "  ", numbers, notes)
            lines.append(f"{indent}}}")
        elif isinstance(statement, If):
            lines += annotated(f"{indent}if {expr_text(statement.condition)} {{", note)
            lines += body_lines(statement.body, indent + "  ", numbers, notes)
            if statement.orelse:
                lines.append(f"{indent}}} else {{")
                lines += body_lines(statement.orelse, indent + "  ", numbers, notes)
            lines.append(f"{indent}}}")
        else:
            lines += annotated(indent + line_text(statement), note)
    return lines


def for_text(s: For) -> str:
    """The head of a loop."""
    said = "" if s.var.dtype is i64 else f": {s.var.dtype.name}"
    text = f"for {name_text(s.var.name)}{said} in {expr_text(s.start)}..{expr_text(s.stop)}"
    if s.step != 1:
        text += f" step {s.step}"
    if (s.width, s.interleave) != (1, 1):
        return f"{text} {s.kind}({s.width}, {s.interleave})"
    return text if s.kind == "serial" else f"{text} {s.kind}"


def line_text(s: Stmt) -> str:
    """A statement without a body."""
    if isinstance(s, Let):
        return f"let {name_text(s.var.name)}: {s.var.dtype.name} = {expr_text(s.value)}"
    if isinstance(s, Store):
        target = access_text(s.buffer, s.index, s.mask)
        return f"{'stream ' * s.streaming}{target} = {expr_text(s.value)}"
    if isinstance(s, Accumulate):
        sign = {"add": "+", "mul": "*"}.get(s.op, s.op)
        return f"{access_text(s.buffer, s.index, s.mask)} {sign}= {expr_text(s.value)}"
    if isinstance(s, Prefetch):
        return f"prefetch {access_text(s.buffer, s.index, None)}"
    if isinstance(s, Check):
        return f"check {expr_text(s.condition)} else {s.code}"
    if isinstance(s, Alloc):
        return f"alloc {buffer_text(s.buffer, False)}"
    if isinstance(s, Shuffle):
        whose = f"{s.mode}({expr_text(s.value)}, {expr_text(s.lane)})"
        return f"let {name_text(s.var.name)}: {s.var.dtype.name} = shuffle {whose}"
    if isinstance(s, Instruction):
        return f"run {name_text(s.name)}({', '.join(map(expr_text, s.operands))})"
    assert isinstance(s, Barrier)
    return "barrier"


def access_text(buffer: Buffer, index: Expr, mask: Expr | None, other: Expr | None = None) -> str:
    """``x[i if mask else other]``."""
    text = expr_text(index)
    if mask is not None:
        text += f" if {expr_text(mask)}"
    if other is not None:
        text += f" else {expr_text(other)}"
    return f"{name_text(buffer.name)}[{text}]"


def expr_text(e: Expr, outer: int = 0) -> str:
    """An expression, in parentheses if it binds no stronger than ``outer`` demands."""
    if isinstance(e, Const):
        text = number_text(e.value, e.dtype)
        return text if e.dtype in (i64, bool_) else f"{text}:{e.dtype.name}"
    if isinstance(e, Var):
        return name_text(e.name)
    if isinstance(e, Load):
        return access_text(e.buffer, e.index, e.mask, e.other)
    if e.op in INFIX and len(e.args) == 2 and e.dtype is implied_dtype(e.op, e.args):
        symbol, strength = INFIX[e.op]
        left = expr_text(e.args[0], strength + (strength == COMPARISON))
        text = f"{left} {symbol} {expr_text(e.args[1], strength + 1)}"
        return f"({text})" if strength < outer else text
    said = "" if e.dtype is implied_dtype(e.op, e.args) else f"<{e.dtype.name}>"
    return f"{e.op}{said}({', '.join(map(expr_text, e.args))})"


# --- reading ----------------------------------------------------------------------------
class KernelReader:
    """Reads one kernel. What is well-formed but breaks a rule is read as it stands."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.buffers: dict[str, Buffer] = {}
        self.variables: dict[str, Var] = {}

    def kernel(self) -> Kernel:
        """The whole text, from ``kernel`` to the closing brace."""
        r = self.reader
        line = r.expect("kernel").line
        name = r.name()
        r.expect("(")
        params = r.listed(")", self.parameter)
        buffers = tuple(p for p in params if isinstance(p, Buffer))
        sizes = tuple(p for p in params if isinstance(p, Var))
        return Kernel(name, buffers, self.body(), r.location(line), sizes)

    def parameter(self) -> Buffer | Var:
        """A buffer, or a size: ``n: i64``."""
        r = self.reader
        start, name = r.at, r.name()
        r.expect(":")
        dtype = r.dtype()
        if r.next.text == "[":
            r.at = start
            return self.buffer()
        self.variables[name] = Var(name, dtype)
        return self.variables[name]

    def buffer(self) -> Buffer:
        """``x: f32[64] register in``; also enters it."""
        r = self.reader
        name = r.name()
        r.expect(":")
        dtype = r.dtype()
        r.expect("[")
        size = r.dim()
        r.expect("]")
        space: Any = r.take("name").text if r.next.text in SPACES else "global"
        access: Any = r.take("name").text if r.next.text in ACCESSES else ""
        found = Buffer(name, dtype, size, space, access)
        self.buffers[name] = found
        return found

    def body(self) -> tuple[Stmt, ...]:
        """Statements in braces."""
        self.reader.expect("{")
        result: list[Stmt] = []
        while not self.reader.accept("}"):
            result.append(self.statement())
        return tuple(result)

    def statement(self) -> Stmt:
        """One statement, by its first word."""
        r = self.reader
        if r.accept("alloc"):
            return Alloc(self.buffer())
        if r.accept("barrier"):
            return Barrier()
        if r.accept("prefetch"):
            target = self.access()
            return Prefetch(target.buffer, target.index)
        if r.accept("check"):
            condition = self.expr()
            r.expect("else")
            return Check(condition, r.integer())
        if r.accept("let"):
            return self.let()
        if r.accept("for"):
            return self.loop()
        if r.accept("if"):
            condition = self.expr()
            return If(condition, self.body(), self.body() if r.accept("else") else ())
        if r.accept("run"):
            name = r.one_of("instruction", INSTRUCTIONS)
            r.expect("(")
            return Instruction(name, tuple(r.listed(")", self.expr)))
        return self.assignment()

    def let(self) -> Let | Shuffle:
        """``let e: f32 = value``, ``let e: f32 = shuffle xor(value, 16)``."""
        name = self.reader.name()
        self.reader.expect(":")
        var = Var(name, self.reader.dtype())
        self.reader.expect("=")
        if self.reader.accept("shuffle"):
            return self.shuffle(var)
        value = self.expr()
        self.variables[name] = var
        return Let(var, value)

    def shuffle(self, var: Var) -> Shuffle:
        """``xor(value, 16)``."""
        mode: Any = self.reader.one_of("mode of shuffle", MODES)
        self.reader.expect("(")
        value = self.expr()
        self.reader.expect(",")
        lane = self.expr()
        self.reader.expect(")")
        self.variables[var.name] = var
        return Shuffle(var, mode, value, lane)

    def loop(self) -> For:
        """``for i in a..b step 2 vector(16, 4) { ... }``."""
        r = self.reader
        name = r.name()
        var = Var(name, r.dtype() if r.accept(":") else i64)
        r.expect("in")
        start = self.expr()
        r.expect("..")
        stop = self.expr()
        step = r.integer() if r.accept("step") else 1
        kind: Any = "serial"
        if r.next.kind == "name":
            kind = r.one_of("kind of loop", KINDS)
        width = interleave = 1
        if r.accept("("):
            width, interleave = r.integer(), self.after_comma()
        self.variables[name] = var
        return For(var, start, stop, self.body(), kind, step, width, interleave)

    def after_comma(self) -> int:
        """The second number of a pair, and its closing parenthesis."""
        self.reader.expect(",")
        number = self.reader.integer()
        self.reader.expect(")")
        return number

    def assignment(self) -> Store | Accumulate:
        """``x[i] = value``, ``stream x[i] = value``, ``x[i] += value``, ``x[i] max= value``."""
        r = self.reader
        streaming = r.accept("stream")
        target = self.access()
        if target.other is not None:
            raise r.error("a store has no else")
        if r.accept("="):
            return Store(target.buffer, target.index, self.expr(), target.mask, streaming)
        if r.accept("+="):
            op = "add"
        elif r.accept("*="):
            op = "mul"
        else:
            op = r.one_of("op", OPS)
            r.expect("=")
        return Accumulate(target.buffer, target.index, op, self.expr(), target.mask)

    def access(self) -> Load:
        """``x[i if mask else other]``."""
        r = self.reader
        token = r.take("name", "string")
        r.at -= 1
        name = r.name()
        if name not in self.buffers:
            r.one_of("buffer", self.buffers, token)
        r.expect("[")
        index = self.expr()
        mask = self.expr() if r.accept("if") else None
        other = self.expr() if r.accept("else") else None
        r.expect("]")
        return Load(self.buffers[name], index, mask, other)

    def expr(self, least: int = 1) -> Expr:
        """An expression of infix ops that bind at least this strongly."""
        left = self.primary()
        while self.reader.next.kind == "symbol" and self.reader.next.text in SYMBOLS:
            op, strength = SYMBOLS[self.reader.next.text]
            if strength < least:
                break
            self.reader.at += 1
            args = (left, self.expr(strength + 1))
            left = Call(op, args, implied_dtype(op, args) or i64)
        return left

    def primary(self) -> Expr:
        """A number, variable, load, call or an expression in parentheses."""
        r = self.reader
        if r.accept("("):
            inner = self.expr()
            r.expect(")")
            return inner
        if r.at_number():
            return self.constant()
        token = r.take("name", "string")
        after = r.next.text
        typed = after == "<" and r.tokens[r.at + 1].text in DTYPES
        r.at -= 1
        if after == "[":
            return self.access()
        if token.kind == "name" and (after == "(" or typed):
            return self.call()
        name = r.name()
        if name not in self.variables:
            r.one_of("variable", self.variables, token)
        return self.variables[name]

    def constant(self) -> Const:
        """``3``, ``true``, ``0.5:f32``, ``0x7fc00001:f32``."""
        r = self.reader
        token, value = r.next, r.number()
        if isinstance(value, bool):
            return Const(value, bool_)
        dtype = r.dtype() if r.accept(":") else i64
        if not isinstance(value, Bits):
            return Const(value, dtype)
        if value.bits >= 1 << 8 * dtype.itemsize:
            raise r.error(f"{token.text} has more bits than {dtype}", token)
        return Const(value.scalar(dtype), dtype)

    def call(self) -> Call:
        """``exp(x)``, ``cast<f32>(x)``."""
        r = self.reader
        token = r.take("name")
        op = r.one_of("op", OPS, token)
        said = None
        if r.accept("<"):
            said = r.dtype()
            r.expect(">")
        r.expect("(")
        args = tuple(r.listed(")", self.expr))
        dtype = said or implied_dtype(op, args)
        if dtype is None:
            raise r.error(f"the element type of {op} is missing", token, f"write {op}<f32>(...)")
        return Call(op, args, dtype)
