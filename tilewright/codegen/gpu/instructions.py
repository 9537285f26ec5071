"""Machine instructions of kernels as LLVM IR: one row each, the spelling of a row of
:mod:`tilewright.ir.instructions`.

Elements of register buffers are values of their own; here they become the 32-bit registers of the
PTX ISA, two elements of 16 bits in each, the first one low.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from tilewright.codegen.builder import Value
from tilewright.codegen.convert import from_memory, pair_bits, to_memory
from tilewright.codegen.emit import Emitted
from tilewright.codegen.emit_core import Val
from tilewright.codegen.emit_index import Affine
from tilewright.codegen.gpu.memory import GridMemory
from tilewright.errors import CompilerBug
from tilewright.ir.instructions import BOX_BYTES, FORMS, INSTRUCTIONS, STEP_BYTES, WIDTHS
from tilewright.ir.loops import Const, Expr, Instruction, Kernel, Load, walk
from tilewright.ir.types import DType, bf16, f16, f32, i32, i64, u16, u32

CALL = "convergent nounwind"
"""Of every call: threads that do something together are not parted by LLVM."""

Element: TypeAlias = tuple[str, int]
"""A register buffer's name and the number of an element."""


@dataclass
class Flights:
    """Accumulators of multiplications that may not have ended.

    groups  those of the groups that were committed, in order
    last    those since then
    """

    groups: list[dict[Element, Load]] = field(default_factory=list)
    last: dict[Element, Load] = field(default_factory=dict)

    def commit(self) -> None:
        """Close a group."""
        self.groups.append(self.last)
        self.last = {}

    def busy(self) -> set[Element]:
        """What something is under way for."""
        return {key for group in (*self.groups, self.last) for key in group}

    def ended(self, most: int) -> list[Load]:
        """The accumulators that nothing is under way for once at most so many groups are."""
        cut = max(0, len(self.groups) - most)
        done, self.groups = self.groups[:cut], self.groups[cut:]
        busy = self.busy()
        return [place for key, place in {k: p for g in done for k, p in g.items()}.items()
                if key not in busy]


class GridInstructions(GridMemory):
    """Instructions on places and register buffers.

    halves        the register and the half of it that a value was taken from
    flights       multiplications of warpgroups under way
    accumulators  the places that warpgroups sum up in
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.halves: dict[str, tuple[Value, int]] = {}
        self.flights = Flights()
        self.accumulators: list[Load] = []

    def kernel(self, kernel: Kernel) -> Emitted:
        for s in walk(kernel.body):
            if isinstance(s, Instruction) and s.name.startswith("wgmma_m"):
                self.accumulators += [e for e in s.operands[:1] if isinstance(e, Load)]
        return super().kernel(kernel)

    def instruction(self, s: Instruction) -> None:
        """Write an instruction where it stands."""
        if self.section is not None:
            raise CompilerBug(f"the instruction {s.name} in a vector loop")
        if s.name not in CODE or s.name not in INSTRUCTIONS:
            raise CompilerBug(f"no code for the instruction {s.name}")
        CODE[s.name](self, s.operands)

    # --- operands -----------------------------------------------------------------------
    def place(self, e: Expr) -> str:
        """``ptr addrspace(3) %p``: where an operand lies."""
        assert isinstance(e, Load)
        index = self.linear(e.index)
        if not isinstance(index, Affine):
            raise CompilerBug(f"the place of an instruction in {e.buffer.name} varies")
        return self.b.typed(self.address(e.buffer, index))

    def number(self, e: Expr) -> int:
        """A constant operand."""
        found = self.linear(e)
        if not isinstance(found, Affine) or found.number is None:
            raise CompilerBug("an operand of an instruction is not constant")
        return found.number

    def element(self, e: Expr, n: int = 0) -> Load:
        """An element of a register buffer that an operand begins at."""
        assert isinstance(e, Load)
        return Load(e.buffer, Const(self.number(e.index) + n))

    def elements(self, e: Expr, count: int, start: int = 0) -> list[Value]:
        """Values of an operand in a register buffer."""
        found: list[Val] = [
            self.load_register(self.element(e, n)) for n in range(start, start + count)]
        return [v for v in found if isinstance(v, Value)]

    def put(self, e: Expr, values: Sequence[Value]) -> None:
        """Store into a register buffer, whose elements may be lanes of vectors elsewhere."""
        for n, value in enumerate(values):
            place = self.element(e, n)
            name, at = place.buffer.name, self.number(place.index)
            first, lanes = self.slots.layout.get(name, {}).get(at, (at, 1))
            if lanes == 1:
                self.store_register(place.buffer, Affine(at), value)
                continue
            old = self.slots.get((name, first, "v")) or Value("poison", value.dtype, lanes)
            self.slots.set((name, first, "v"), self.b.define(
                value.dtype, lanes,
                f"insertelement {old.typed}, {value.typed}, i64 {at - first}"))

    # --- 16 bits ------------------------------------------------------------------------
    def packed(self, e: Expr, count: int) -> list[Value]:
        """Pairs of 16-bit elements of an operand as registers."""
        return [self.pair(e, n) for n in range(0, count, 2)]

    def pair(self, e: Expr, n: int) -> Value:
        """Two elements as a register: one that is at hand, or of numbers not yet rounded."""
        found = self.pair_of_vector(e, n)
        if found is not None:
            return found
        dtype = e.dtype
        low, high = self.elements(e, 2, n)
        first, second = self.halves.get(low.name), self.halves.get(high.name)
        if first and second and first == (second[0], 0) and second[1] == 1:
            return first[0]
        wide = [self.b.wide.get((v.name, dtype)) for v in (low, high)]
        if wide[0] is not None and wide[1] is not None:
            return pair_bits(self.b, wide[0], wide[1], dtype)
        words = [self.b.convert("zext", to_memory(self.b, v, dtype, self.machine), i32)
                 for v in (low, high)]
        return self.b.binary("or", words[0], self.b.binary("shl", words[1], Value("16", i32)))

    def pair_of_vector(self, e: Expr, n: int) -> Value | None:
        """Two elements of a vector whose bits are at hand."""
        place = self.element(e, n)
        name, at = place.buffer.name, self.number(place.index)
        first, lanes = self.slots.layout.get(name, {}).get(at, (at, 1))
        vector = self.slots.get((name, first, "v")) if lanes > 1 else None
        bits = self.b.narrow.get((vector.name, e.dtype)) if vector is not None else None
        if bits is None or (at - first) % 2 or lanes % 2:
            return None
        words = Value("", u32, lanes // 2)
        words = self.b.define(u32, words.lanes, f"bitcast {bits.typed} to {words.type}")
        return words if lanes == 2 else self.b.define(
            u32, 1, f"extractelement {words.typed}, i64 {(at - first) // 2}")

    def unpacked(self, registers: Iterable[Value], dtype: DType) -> list[Value]:
        """Registers as pairs of 16-bit elements."""
        found = []
        for register in registers:
            for half in range(2):
                bits = register if half == 0 else self.b.binary(
                    "lshr", register, Value("16", i32))
                value = from_memory(
                    self.b, self.b.convert("trunc", bits, u16), dtype, self.machine)
                self.halves[value.name] = register, half
                found.append(value)
        return found

    # --- calls --------------------------------------------------------------------------
    def run(self, name: str, *operands: str) -> None:
        """Call an intrinsic without a result."""
        self.declare("void", name, operands)
        self.b.write(f"  call void @llvm.nvvm.{name}({', '.join(operands)}) {CALL}")

    def declare(self, result: str, name: str, operands: Sequence[str]) -> None:
        types = ", ".join(o.rsplit(" ", 1)[0] for o in operands)
        self.b.declarations.add(f"declare {result} @llvm.nvvm.{name}({types})")

    def several(self, dtype: DType, count: int, name: str, *operands: str) -> list[Value]:
        """Call an intrinsic with several results of a type."""
        result = struct(dtype, count)
        self.declare(result, name, operands)
        return self.parts(dtype, count, f"@llvm.nvvm.{name}({', '.join(operands)})")

    def parts(self, dtype: DType, count: int, called: str) -> list[Value]:
        """The results of a call."""
        kind = struct(dtype, count)
        found = self.b.pointer(f"call {kind} {called} {CALL}")
        return [self.b.define(dtype, 1, f"extractvalue {kind} {found}, {n}")
                for n in range(count)]


def struct(dtype: DType, count: int) -> str:
    """The type of several results."""
    return "{" + ", ".join([Value("", dtype).type] * count) + "}"


# --- copies ------------------------------------------------------------------------------
def async_copy(e: GridInstructions, operands: Sequence[Expr]) -> None:
    """16 bytes from global to shared memory, past the registers."""
    to, source = e.place(operands[0]), e.place(operands[1])
    whether = e.value(operands[2])
    if isinstance(whether, list):
        raise CompilerBug("the condition of a copy varies")
    if whether.name == "true":
        e.run("cp.async.cg.shared.global.16", to, source)
        return
    size = e.b.select(whether, Value("16", i32), Value("0", i32))
    e.run("cp.async.cg.shared.global.16.s", to, source, size.typed)


def ldmatrix(name: str, e: GridInstructions, operands: Sequence[Expr]) -> None:
    """Four matrices of 8 x 8 from shared memory."""
    where = e.place(operands[1])
    registers = e.several(i32, 4, f"ldmatrix.sync.aligned.m8n8.x4.{name}.p3", where)
    e.put(operands[0], e.unpacked(registers, operands[0].dtype))


# --- multiplications of a warp -----------------------------------------------------------
def mma(shape: str, sizes: tuple[int, int], e: GridInstructions, operands: Sequence[Expr]) -> None:
    """``c += a b`` of 16-bit elements; LLVM has words for those of bf16 and pairs for f16."""
    c, dtype = e.elements(operands[0], 4), operands[1].dtype
    registers = [r for operand, size in zip(operands[1:], sizes, strict=True)
                 for r in e.packed(operand, size)]
    passed = [r.typed for r in registers]
    if dtype is f16:
        passed = [f"<2 x half> {e.b.pointer(f'bitcast {r.typed} to <2 x half>')}"
                  for r in registers]
    name = f"mma.{shape}.row.col.{'f32.f32' if dtype is f16 else 'bf16'}"
    e.put(operands[0], e.several(f32, 4, name, *passed, *(v.typed for v in c)))


def mma_quads(left: str, right: str, e: GridInstructions, operands: Sequence[Expr]) -> None:
    """``c += a b`` of f16 in groups of eight threads."""
    pairs = [
        f"<2 x half> {e.b.pointer(f'bitcast {r.typed} to <2 x half>')}"
        for operand in operands[1:] for r in e.packed(operand, 4)]
    sums = (v.typed for v in e.elements(operands[0], 8))
    name = f"mma.m8n8k4.{left}.{right}.f32.f32"
    e.put(operands[0], e.several(f32, 8, name, *pairs, *sums))


def mma_tf32(e: GridInstructions, operands: Sequence[Expr]) -> None:
    """``c += a b`` of f32 rounded to tf32."""
    values = [*e.elements(operands[1], 4), *e.elements(operands[2], 2)]
    e.declare("i32", "f2tf32.rna", ["float x"])
    short = [e.b.define(i32, 1, f"call i32 @llvm.nvvm.f2tf32.rna({v.typed})") for v in values]
    passed = [v.typed for v in (*short, *e.elements(operands[0], 4))]
    e.put(operands[0], e.several(f32, 4, "mma.m16n8k8.row.col.tf32", *passed))


# --- multiplications of a warpgroup ------------------------------------------------------
PATTERN = 1024
"""Bytes of 8 rows of a swizzled tile."""


def descriptor(e: GridInstructions, operand: Expr, across: bool) -> Value:
    """The matrix descriptor of a tile whose rows of 128 bytes are swizzled.

    PTX ISA, "Matrix descriptor format": the address, the offsets to the next square of lines
    (``across``, that is M- or N-major; else it has no meaning) and to the next 8 rows, all in 16
    bytes; mode 1 in the upper two bits. Shared memory is smaller than the 18 bits of the address.
    """
    assert isinstance(operand, Load)
    index = e.linear(operand.index)
    if not isinstance(index, Affine):
        raise CompilerBug(f"the place of a tile in {operand.buffer.name} varies")
    size = operand.buffer.dtype.itemsize
    leading = BOX_BYTES * BOX_BYTES // size if across else 16
    fixed = leading >> 4 << 16 | PATTERN >> 4 << 32 | 1 << 62
    whole = index.const * size // 16 * 16
    near = index.shift(-whole // size)

    def start() -> Value:
        place = e.b.typed(e.address(operand.buffer, near))
        number = e.b.define(u32, 1, f"ptrtoint {place} to i32")
        pieces = e.b.binary("lshr", number, Value("4", u32))
        return e.b.binary("or", e.b.convert("zext", pieces, i64), Value(str(fixed), i64))

    key = ("descriptor", operand.buffer.name, near, across)
    first = e.b.pure(key, [name for name, _ in near.terms], start, cheap=True)
    return e.b.binary("add", first, Value(str(whole // 16), i64)) if whole else first


def wgmma(
    n: int, left: bool, right: bool, e: GridInstructions, operands: Sequence[Expr]
) -> None:
    """``c += a b``, under way when this is done; ``left``, ``right``: A, B lie across.

    Each accumulator is in and out in one register.
    """
    count = n // 2
    c = e.elements(operands[0], count)
    kind = {bf16: "bf16", f16: "f16", f32: "tf32"}[operands[1].dtype]
    tiles = descriptor(e, operands[1], left), descriptor(e, operands[2], right)
    shape = (f"wgmma.mma_async.sync.aligned.m64n{n}k{STEP_BYTES // operands[1].dtype.itemsize}"
             f".f32.{kind}.{kind}")
    # Only operands of 16 bits may lie across.
    bits = "" if kind == "tf32" else f", {int(left)}, {int(right)}"
    registers = ", ".join(f"${i}" for i in range(count))
    text = (f"{{\\0A.reg .pred p;\\0Asetp.ne.b32 p, 1, 0;\\0A{shape} {{{registers}}}, "
            f"${2 * count}, ${2 * count + 1}, p, 1, 1{bits};\\0A}}")
    e.put(operands[0], in_place(e, text, c, tiles))
    for i in range(count):
        place = e.element(operands[0], i)
        e.flights.last[place.buffer.name, e.number(place.index)] = place


def in_place(
    e: GridInstructions, text: str, values: Sequence[Value], others: Sequence[Value] = ()
) -> list[Value]:
    """Inline assembly that changes f32 registers, or only must not be moved past their uses."""
    ties = [*["=f"] * len(values), *map(str, range(len(values))), *["l"] * len(others)]
    passed = ", ".join(v.typed for v in (*values, *others))
    constraints = ",".join((*ties, "~{memory}"))
    return e.parts(
        f32, len(values), f'asm sideeffect "{text}", "{constraints}"({passed})')


def wgmma_fence(e: GridInstructions, operands: Sequence[Expr]) -> None:
    """Registers are ready. Accumulators go through the fence, so that none is set after it."""
    busy = e.flights.busy()
    places = [
        Load(buffer, Const(at)) for buffer in dict.fromkeys(p.buffer for p in e.accumulators)
        for at in sorted(e.slots.layout.get(buffer.name, {}))
        if (buffer.name, at) not in busy and e.slots.get((buffer.name, at, None)) is not None]
    through(e, "wgmma.fence.sync.aligned", "", places)


def through(e: GridInstructions, name: str, given: str, places: Sequence[Load]) -> None:
    """An instruction that accumulators are passed through, which does not change them."""
    if not places:
        e.run(name, *([f"i64 {given}"] if given else []))
        return
    values = [v for place in places for v in e.elements(place, 1)]
    passed = in_place(e, f"{name} {given};".replace(" ;", ";"), values)
    for place, value in zip(places, passed, strict=True):
        e.put(place, [value])


def wgmma_commit(e: GridInstructions, operands: Sequence[Expr]) -> None:
    """Close a group of multiplications."""
    e.run("wgmma.commit_group.sync.aligned")
    e.flights.commit()


def wgmma_wait(e: GridInstructions, operands: Sequence[Expr]) -> None:
    """Wait for groups. What they made goes through the wait, so that no use is moved before it."""
    most = e.number(operands[0])
    through(e, "wgmma.wait_group.sync.aligned", str(most), e.flights.ended(most))


def simple(name: str, e: GridInstructions, operands: Sequence[Expr]) -> None:
    """An intrinsic of constant numbers."""
    e.run(name, *(f"i32 {e.number(operand)}" for operand in operands))


CODE: dict[str, Callable[[GridInstructions, Sequence[Expr]], None]] = {
    "async_copy": async_copy,
    "async_commit": partial(simple, "cp.async.commit.group"),
    "async_wait": partial(simple, "cp.async.wait.group"),
    "ldmatrix_x4": partial(ldmatrix, "b16"),
    "ldmatrix_x4_t": partial(ldmatrix, "trans.b16"),
    **{f"mma_m8n8k4_{left}_{right}": partial(mma_quads, left, right)
       for left in ("row", "col") for right in ("row", "col")},
    "mma_m16n8k8": partial(mma, "m16n8k8", (4, 2)),
    "mma_m16n8k16": partial(mma, "m16n8k16", (8, 4)),
    "mma_m16n8k8_tf32": mma_tf32,
    **{f"wgmma_m64n{n}k16{form}": partial(wgmma, n, *across)
       for n in WIDTHS for form, across in FORMS.items()},
    **{f"wgmma_m64n{n}k8_tf32": partial(wgmma, n, False, False) for n in WIDTHS},
    "wgmma_fence": wgmma_fence,
    "wgmma_commit": wgmma_commit,
    "wgmma_wait": wgmma_wait,
    "async_fence": partial(simple, "fence.proxy.async.shared_cta"),
}
"""The code of each instruction."""
