"""PTX text to `syntax`: a tokenizer and a parser that goes forward only.

Comments and debug directives are dropped. Braces at the start of a statement open a scope: what is
declared inside as a register gets a name of its own, as inline assembly needs.
"""

from __future__ import annotations

import re
import struct
from typing import NoReturn

from tilewright.ptxsim.faults import Fault
from tilewright.ptxsim.syntax import (
    Address,
    Instruction,
    Kernel,
    Module,
    Number,
    Operand,
    Pair,
    Parameter,
    Register,
    Special,
    Symbol,
    Variable,
    Vector,
)

TOKEN = re.compile(
    r"""(?P<space>[ \t\r]+|//[^\n]*|/\*.*?\*/) | (?P<newline>\n) | (?P<string>"[^"]*")
    | (?P<number>0[fF][0-9a-fA-F]{8}\b|0[dD][0-9a-fA-F]{16}\b|0[xX][0-9a-fA-F]+U?|\d+\.\d+
        |\d+U?)
    | (?P<word>[%$_a-zA-Z][\w$]*(?:\.[\w:]+)*) | (?P<dotted>\.[\w:]+)
    | (?P<mark>[\[\]{}(),;:+\-!@|=<>~*])""",
    re.VERBOSE | re.DOTALL,
)
SIZES = {
    **{f"{kind}{bits}": bits // 8 for kind in "bus" for bits in (8, 16, 32, 64)},
    "f16": 2, "bf16": 2, "f32": 4, "f64": 8, "f16x2": 4, "b128": 16,
}
SPECIAL = re.compile(
    r"%(?:(?:n?tid|n?ctaid|n?clusterid|cluster_n?ctaid)\.[xyz]|laneid|warpid|nwarpid|smid|nsmid"
    r"|gridid|cluster_ctarank|cluster_nctarank|is_explicit_cluster|lanemask_\w+|clock(?:64|_hi)?"
    r"|globaltimer(?:_lo|_hi)?|dynamic_smem_size|total_smem_size|aggr_smem_size)"
)
SPACES = {".shared", ".global", ".const", ".local"}


def parse(text: str) -> Module:
    """The module that PTX text describes; Fault names the line that cannot be read."""
    return _Parser(text).module()


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, int]] = []
        self._tokenize(text)
        self.at = 0
        self.scopes: list[dict[str, str]] = []
        self.scopes_seen = 0

    def _tokenize(self, text: str) -> None:
        at, line = 0, 1
        while at < len(text):
            match = TOKEN.match(text, at)
            if match is None:
                raise Fault(f"PTX line {line}: cannot read {text[at : at + 20]!r}")
            if match.lastgroup not in ("space", "newline"):
                self.tokens.append((match[0], line))
            line += match[0].count("\n")
            at = match.end()
        self.tokens.append(("", line))

    # Tokens.

    @property
    def next(self) -> str:
        return self.tokens[self.at][0]

    def take(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1][0]

    def accept(self, token: str) -> bool:
        if self.next == token:
            self.at += 1
            return True
        return False

    def expect(self, token: str) -> None:
        if not self.accept(token):
            self.fail(f"expected {token!r}, got {self.next!r}")

    def fail(self, what: str) -> NoReturn:
        raise Fault(f"PTX line {self.tokens[self.at][1]}: {what}")

    def skip_to(self, *ends: str) -> None:
        while self.next not in ends and self.next:
            self.at += 1

    # Modules.

    def module(self) -> Module:
        module = Module("", "")
        while self.next:
            word = self.take()
            if word == ".version":
                module.version = self.take()
            elif word == ".target":
                module.target = self.take()
                while self.accept(","):
                    self.take()
            elif word == ".address_size":
                self.take()
            elif word == ".entry":
                kernel = self.kernel()
                module.kernels[kernel.name] = kernel
            elif word == ".func":
                self.function()
            elif word in SPACES:
                module.variables += self.variables(word)
            elif word in (".visible", ".extern", ".weak", ".common", ";"):
                continue
            elif word in (".file", ".section", ".pragma", ".alias"):
                self.skip_line()
            else:
                self.fail(f"unexpected {word!r}")
        return module

    def skip_line(self) -> None:
        line = self.tokens[self.at - 1][1]
        while self.next and self.tokens[self.at][1] == line:
            self.at += 1

    def function(self) -> None:
        """Functions are skipped: who calls one meets an unknown instruction."""
        self.skip_to("{", ";")
        if self.take() == "{":
            depth = 1
            while depth and self.next:
                depth += {"{": 1, "}": -1}.get(self.take(), 0)

    def variables(self, space: str) -> list[Variable]:
        """`.shared .align 4 .b32 a[8], b;` after its first word, with an initial value."""
        alignment, element = 0, 1
        while self.next.startswith("."):
            word = self.take()
            if word == ".align":
                alignment = int(self.take())
            elif word[1:] in SIZES:
                element = SIZES[word[1:]]
        found = []
        while True:
            name = self.take()
            size: int | None = element
            while self.accept("["):
                if self.next == "]":
                    size = None
                else:
                    size = (size or 0) * self.integer()
                self.expect("]")
            data = self.initial(element) if self.accept("=") else b""
            found.append(Variable(name, space[1:], size, alignment or element, data))
            if not self.accept(","):
                break
        self.expect(";")
        return found

    def initial(self, element: int) -> bytes:
        items = []
        depth = 0
        while True:
            if self.accept("{"):
                depth += 1
            elif self.accept("}"):
                depth -= 1
            elif not self.accept(","):
                number = self.operand()
                if not isinstance(number, Number):
                    self.fail("an initial value that is no number")
                items.append(number.value & (1 << 8 * element) - 1)
            if depth == 0 and self.next != ",":
                return b"".join(i.to_bytes(element, "little") for i in items)

    # Kernels.

    def kernel(self) -> Kernel:
        kernel = Kernel(self.take())
        if self.accept("("):
            while not self.accept(")"):
                self.accept(",")
                kernel.parameters.append(self.parameter())
        while self.next not in ("{", ";"):
            word = self.take()
            sizes = []
            while self.next[:1].isdigit():
                sizes.append(self.integer())
                self.accept(",")
            if word == ".reqntid":
                kernel.threads = tuple(sizes)
            if word == ".reqnctapercluster":
                kernel.cluster = tuple(sizes)
        self.expect("{")
        self.scopes = [{}]
        while self.scopes:
            self.statement(kernel)
        return kernel

    def parameter(self) -> Parameter:
        self.expect(".param")
        alignment, element = 0, 1
        while self.next.startswith("."):
            word = self.take()
            if word == ".align":
                alignment = alignment or int(self.take())
            elif word[1:] in SIZES:
                element = SIZES[word[1:]]
            elif word == ".ptr":  # what follows tells of the memory it points to
                while self.next.startswith("."):
                    if self.take() == ".align":
                        self.take()
        name, size = self.take(), element
        if self.accept("["):
            size *= self.integer()
            self.expect("]")
        return Parameter(name, size, alignment or element)

    def integer(self) -> int:
        return int(self.take().rstrip("U"), 0)

    def statement(self, kernel: Kernel) -> None:
        if self.accept("{"):
            self.scopes.append({})
            self.scopes_seen += 1
        elif self.accept("}"):
            self.scopes.pop()
        elif self.accept(";"):
            pass
        elif self.next == ".reg":
            self.declare(kernel)
        elif self.next in SPACES:
            kernel.variables += self.variables(self.take())
        elif self.next == ".loc":
            self.take()
            self.skip_line()
        elif self.next.startswith("."):
            self.skip_to(";")
        elif self.tokens[self.at + 1][0] == ":":
            kernel.labels[self.take()] = len(kernel.code)
            self.expect(":")
        elif not self.next:
            self.fail("the text ends inside of a kernel")
        else:
            kernel.code.append(self.instruction())

    def declare(self, kernel: Kernel) -> None:
        self.take()
        kind = self.take()[1:]
        while True:
            name = self.take()
            if self.accept("<"):
                self.integer()
                self.expect(">")
                kernel.registers[name] = kind
            else:
                if len(self.scopes) > 1:
                    self.scopes[-1][name] = f"{name}#{self.scopes_seen}"
                    name = self.scopes[-1][name]
                kernel.registers[name] = kind
                self.scopes[-1].setdefault(name, name)
            if not self.accept(","):
                break
        self.expect(";")

    def instruction(self) -> Instruction:
        guard, line = None, self.tokens[self.at][1]
        if self.accept("@"):
            negated = self.accept("!")
            guard = Register(self.resolved(self.take()), negated)
        name = self.take()
        operands: list[Operand] = []
        while not self.accept(";"):
            operands.append(self.operand())
            if not self.accept(",") and self.next != ";":
                self.fail(f"expected ',' or ';' in {name}, got {self.next!r}")
        return Instruction(name, tuple(name.split(".")), tuple(operands), guard, line)

    # Operands.

    def resolved(self, name: str) -> str:
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        return name

    def operand(self) -> Operand:
        if self.accept("{"):
            return Vector(self.items("}"))
        if self.accept("["):
            return self.address()
        if self.accept("!"):
            return Register(self.resolved(self.take()), True)
        if self.accept("-"):
            value = self.number(self.take())
            return Number(-value.value)
        if self.next[:1].isdigit():
            return self.number(self.take())
        first = self.named(self.take())
        if self.accept("|"):
            return Pair(first, self.named(self.take()))
        if isinstance(first, Symbol) and self.next in "+-" and self.next:
            return Symbol(first.name, self.signed_offset())
        return first

    def items(self, end: str) -> tuple[Operand, ...]:
        items = []
        while not self.accept(end):
            items.append(self.operand())
            self.accept(",")
        return tuple(items)

    def named(self, word: str) -> Operand:
        if SPECIAL.fullmatch(word):
            return Special(word)
        name = self.resolved(word)
        if word.startswith("%") or word == "_" or any(word in s for s in self.scopes):
            return Register(name)
        return Symbol(word)

    def number(self, text: str) -> Number:
        if text[:2] in ("0f", "0F"):
            return Number(int(text[2:], 16), 32)
        if text[:2] in ("0d", "0D"):
            return Number(int(text[2:], 16), 64)
        if "." in text:
            return Number(int.from_bytes(struct.pack("<f", float(text)), "little"), 32)
        text = text.rstrip("U")
        octal = len(text) > 1 and text[0] == "0" and text.isdigit()
        return Number(int(text, 8) if octal else int(text, 0))

    def signed_offset(self) -> int:
        offset = 0
        while self.next in ("+", "-"):
            sign = 1 if self.take() == "+" else -1
            sign = -sign if self.accept("-") else sign
            offset += sign * self.integer()
        return offset

    def address(self) -> Address:
        word = self.take()
        base: Operand = self.number(word) if word[:1].isdigit() else self.named(word)
        offset = self.signed_offset()
        coordinates = None
        if self.accept(","):
            self.expect("{")
            coordinates = self.items("}")
        self.expect("]")
        if isinstance(base, Symbol):
            base, offset = Symbol(base.name, offset), 0
        return Address(base, offset, coordinates)

