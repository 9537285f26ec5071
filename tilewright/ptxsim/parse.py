"""PTX text to `syntax`: a parser that goes forward only.

Comments and debug directives are dropped. Braces at the start of a statement open a scope: what is
declared inside as a register gets a name of its own, as inline assembly needs.
"""

from __future__ import annotations

import re
import struct
from dataclasses import replace

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
from tilewright.ptxsim.tokens import Tokens

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


class _Parser(Tokens):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.scopes: list[dict[str, str]] = []
        self.scopes_seen = 0
        self.prefix = ""  # of what a function declares
        self.slots: set[str] = set()  # parameters and results of functions: local variables

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
                function = self.function()
                if function.code:
                    module.functions[function.name] = function
            elif word in SPACES:
                module.variables += self.variables(word)
            elif word in (".visible", ".extern", ".weak", ".common", ";"):
                continue
            elif word in (".file", ".section", ".pragma", ".alias"):
                self.skip_line()
            else:
                self.fail(f"unexpected {word!r}")
        return module

    def function(self) -> Kernel:
        """A function. Its names get a prefix; parameters and results are local variables."""
        results = self.parameters() if self.accept("(") else []
        function = Kernel(self.take())
        self.prefix = f"{function.name}:"
        function.parameters = self.parameters() if self.accept("(") else []
        while self.next not in ("{", ";"):
            self.take()
        function.results = results
        self.scopes = [{p.name: self.prefix + p.name for p in (*function.parameters, *results)}]
        for group in (function.parameters, results):
            group[:] = [replace(p, name=self.prefix + p.name) for p in group]
            function.variables += [Variable(p.name, "local", p.size, p.alignment) for p in group]
            self.slots |= {p.name for p in group}
        if not self.accept(";"):
            self.expect("{")
            self.body(function)
        self.prefix = ""
        return function

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
            kernel.parameters = self.parameters()
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
        self.body(kernel)
        return kernel

    def body(self, kernel: Kernel) -> None:
        while self.scopes:
            self.statement(kernel)

    def parameters(self) -> list[Parameter]:
        found = []
        while not self.accept(")"):
            self.accept(",")
            found.append(self.parameter())
        return found

    def parameter(self) -> Parameter:
        if self.next not in (".param", ".reg"):
            self.fail(f"expected a parameter, got {self.next!r}")
        self.take()
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
        elif self.next == ".param":
            self.take()
            for variable in self.variables(".local"):
                name = self.scoped(variable.name)
                kernel.variables.append(replace(variable, name=name))
                self.slots.add(name)
        elif self.next in SPACES:
            kernel.variables += self.variables(self.take())
        elif self.next == ".loc":
            self.take()
            self.skip_line()
        elif self.next.startswith("."):
            self.skip_to(";")
        elif self.tokens[self.at + 1][0] == ":":
            label = self.prefix + self.take()
            self.expect(":")
            if self.accept(".branchtargets"):
                kernel.tables[label] = self.targets()
            else:
                kernel.labels[label] = len(kernel.code)
        elif not self.next:
            self.fail("the text ends inside of a kernel")
        else:
            kernel.code.append(self.instruction())

    def targets(self) -> tuple[str, ...]:
        """The labels of a list, to its end."""
        labels = []
        while not self.accept(";"):
            labels.append(self.prefix + self.take())
            self.accept(",")
        return tuple(labels)

    def scoped(self, name: str) -> str:
        """A name for a variable of this scope alone."""
        self.scopes[-1][name] = f"{self.prefix}{name}#{self.scopes_seen}"
        return self.scopes[-1][name]

    def declare(self, kernel: Kernel) -> None:
        self.take()
        kind = self.take()[1:]
        while True:
            name = self.take()
            if self.accept("<"):
                self.integer()
                self.expect(">")
                kernel.registers[self.prefix + name] = kind
            else:
                if len(self.scopes) > 1 or self.prefix:
                    name = self.scoped(name)
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
        if name.split(".")[0] == "call":
            return Instruction(name, tuple(name.split(".")), self.called(), guard, line)
        while not self.accept(";"):
            operands.append(self.operand())
            if not self.accept(",") and self.next != ";":
                self.fail(f"expected ',' or ';' in {name}, got {self.next!r}")
        if name.split(".")[0] in ("bra", "brx"):
            operands[-1] = Symbol(self.prefix + getattr(operands[-1], "name", ""))
        if any(isinstance(o, Address) and isinstance(o.base, Symbol) and o.base.name in self.slots
               for o in operands):
            name = name.replace(".param", ".local")
        return Instruction(name, tuple(name.split(".")), tuple(operands), guard, line)

    def called(self) -> tuple[Operand, ...]:
        """Results, function and arguments of a call, of its three parts those that are there."""
        parts: list[Operand] = []
        while not self.accept(";"):
            parts.append(Vector(self.items(")")) if self.accept("(") else self.operand())
            self.accept(",")
        if not isinstance(parts[0], Vector):
            parts.insert(0, Vector(()))
        return tuple(parts)

    # Operands.

    def resolved(self, name: str) -> str:
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        return self.prefix + name if name.startswith("%") else name

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
        if name in self.slots:
            return Symbol(name)
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

