"""Mbarriers and tensor copies as LLVM IR, and what the host must tell an entry about tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from tilewright.codegen.gpu.instructions import CALL, GridInstructions, simple
from tilewright.errors import CompilerBug
from tilewright.ir.instructions import BOX_BYTES
from tilewright.ir.loops import Expr, Instruction, Load
from tilewright.ir.types import DType, i32

SCOPE = "scope.cta.space.cta"
"""Of an mbarrier: the threads of a block, in its memory."""


@dataclass(frozen=True)
class MatrixMap:
    """A matrix of which an entry copies boxes; its parameter is the tensor map that says so.

    buffer   number of the kernel's parameter that it lies in, beginning at the element ``first``
    rows, columns, first   index arithmetic on the kernel's sizes
    box      rows of a box, whose columns are 128 bytes
    """

    buffer: int
    dtype: DType
    first: Expr
    rows: Expr
    columns: Expr
    box: int

    @property
    def box_columns(self) -> int:
        """Columns of a box."""
        return BOX_BYTES // self.dtype.itemsize


class GridBulk(GridInstructions):
    """Instructions at mbarriers.

    maps     the matrices that are copied from, in the order of their parameters
    numbers  of the kernel's parameters, by name
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.maps: list[MatrixMap] = []
        self.numbers: dict[str, int] = {}

    def instruction(self, s: Instruction) -> None:
        if s.name in BULK and self.section is None:
            BULK[s.name](self, s.operands)
        else:
            super().instruction(s)

    def map(self, matrix: MatrixMap) -> str:
        """The parameter of a matrix."""
        if matrix not in self.maps:
            self.maps.append(matrix)
        return f"ptr %map{self.maps.index(matrix)}"

    def short(self, e: Expr) -> str:
        """``i32 %x``: a number, or a place in a matrix, in 32 bits."""
        found = self.value(e)
        if isinstance(found, list):
            raise CompilerBug("an operand of an instruction varies")
        return self.b.convert("trunc", found, i32).typed


def settled(e: GridBulk) -> None:
    """No access is moved past this place: LLVM takes an mbarrier for an access to itself alone."""
    e.b.write('  call void asm sideeffect "", "~{memory}"()')


def init(e: GridBulk, operands: Sequence[Expr]) -> None:
    """How many threads arrive in each phase."""
    e.run("mbarrier.init.shared", e.place(operands[0]), f"i32 {e.number(operands[1])}")


def arrive(expect: bool, e: GridBulk, operands: Sequence[Expr]) -> None:
    """Arrive; ``expect``: having announced bytes."""
    name = f"mbarrier.arrive{'.expect.tx' * expect}.{SCOPE}"
    passed = e.place(operands[0]), f"i32 {e.number(operands[1]) if expect else 1}"
    e.declare("i64", name, passed)
    settled(e)
    e.b.write(f"  call i64 @llvm.nvvm.{name}({', '.join(passed)}) {CALL}")


def wait(e: GridBulk, operands: Sequence[Expr]) -> None:
    """Try until the phase is over."""
    name = f"mbarrier.try.wait.parity.{SCOPE}"
    passed = e.place(operands[0]), e.short(operands[1])
    e.declare("i1", name, passed)
    again, done = e.b.fresh_label("wait"), e.b.fresh_label("done")
    e.b.write(f"  br label %{again}")
    e.b.label(again)
    over = e.b.pointer(f"call i1 @llvm.nvvm.{name}({', '.join(passed)}) {CALL}")
    e.b.write(f"  br i1 {over}, label %{done}, label %{again}")
    e.b.label(done)
    settled(e)


def tensor_copy(e: GridBulk, operands: Sequence[Expr]) -> None:
    """A box of a matrix, whose columns come first in the words of the instruction."""
    to, source, bar, row, column, rows, columns, box = operands
    assert isinstance(source, Load)
    matrix = MatrixMap(
        e.numbers[source.buffer.name], source.dtype, source.index, rows, columns, e.number(box))
    cluster = e.b.pointer(f"addrspacecast {e.place(to)} to ptr addrspace(7)")
    e.run(
        "cp.async.bulk.tensor.g2s.tile.2d", f"ptr addrspace(7) {cluster}", e.place(bar),
        e.map(matrix), e.short(column), e.short(row), "i16 0", "i64 0", "i1 false", "i1 false",
        "i32 0")


BULK: dict[str, Callable[[GridBulk, Sequence[Expr]], None]] = {
    "mbarrier_init": init,
    "mbarrier_arrive": partial(arrive, False),
    "mbarrier_expect": partial(arrive, True),
    "mbarrier_wait": wait,
    "tensor_copy": tensor_copy,
    "registers_less": partial(simple, "setmaxnreg.dec.sync.aligned.u32"),
    "registers_more": partial(simple, "setmaxnreg.inc.sync.aligned.u32"),
}
"""The code of each instruction."""
