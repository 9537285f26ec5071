"""Index arithmetic of a GPU: in 32 bits where the numbers are known to fit.

A GPU has registers of 32 bits: a sum of 64 bits is two instructions, a product three or four, and
either is held in two registers. An address is widened once, when a multiple of an index is added to
a pointer, which is one instruction.
"""

from __future__ import annotations

from tilewright.codegen.builder import Value, llvm_type
from tilewright.codegen.convert import memory
from tilewright.codegen.emit import Emitter
from tilewright.codegen.emit_index import Affine, Range
from tilewright.ir import loops as k
from tilewright.ir.types import DType, i32, i64

MOST = 2**31
"""What a 32-bit index is below."""


def fits(found: Range | None) -> bool:
    """Whether numbers of a range fit into 32 bits with a sign."""
    return found is not None and -MOST <= found[0] and found[1] < MOST


class GridIndices(Emitter):
    """Indices, and counters of loops."""

    def counter_type(self, start: Range | None, stop: Range | None, step: int) -> DType:
        if start is None or stop is None or not fits((start[0], max(start[1], stop[1]) + step)):
            return i64
        return i32

    def sum_terms(self, a: Affine) -> Value:
        whole = self.short_sum(a.terms)
        if whole is None:
            return super().sum_terms(a)
        return self.scalar("add", whole, Value(str(a.const), i64)) if a.const else whole

    def short_sum(self, terms: tuple[tuple[str, int], ...]) -> Value | None:
        """Uniform values times numbers, added in 32 bits and then widened; None: they may not fit,
        or there is nothing to add.
        """
        if not terms or (len(terms) == 1 and terms[0][1] == 1):
            return None
        ordered = sorted(terms, key=lambda t: self.b.depths.get(t[0], 0))
        found: Range | None = None
        for count, term in enumerate(ordered, 1):
            found = self.range_of(Affine(0, tuple(ordered[:count])))
            if not fits(found) or not fits(self.range_of(Affine(0, (term,)))):
                return None
        total: Value | None = None
        for name, coefficient in ordered:
            part = self.as_type(i32, Value(name, i64))
            if coefficient != 1:
                part = self.scalar("mul nsw", part, Value(str(coefficient), i32))
            total = part if total is None else self.scalar("add nsw", total, part)
        assert total is not None and found is not None
        short, opcode = total, "zext nneg" if found[0] >= 0 else "sext"
        wide = self.b.pure(
            (opcode, short.name), (short.name,), lambda: self.b.convert(opcode, short, i64),
            cheap=True)
        self.ranges.setdefault(wide.name, found)
        return wide

    def address(self, buffer: k.Buffer, index: Affine) -> str:
        """As everywhere, of an index that is added up in 32 bits if it fits."""
        whole = self.short_sum(index.terms)
        if whole is None:
            return super().address(buffer, index)
        element = llvm_type(memory(buffer.dtype))
        place = self.offset(self.pointers[buffer.name], element, whole.name)
        return self.displaced(place, element, index.const)
