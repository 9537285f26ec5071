"""From a traced PyTorch program (an ``fx`` graph of ATen operators) to a recipe of steps.

Operators of the table become nodes of our graphs; an operator that is not in it is called in
PyTorch. Steps are as few as dependences allow: a value has a *depth*, the number of calls of
PyTorch that must have run before it, and all compiled values of one depth are one graph. Calls that
depend on nothing compiled (random numbers) come first. Where layers repeat, a new depth begins.
"""

from __future__ import annotations

import contextlib
import inspect
import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import fx
from torch._higher_order_ops.effects import with_effects

from tilewright.errors import UnsupportedSize, UserError
from tilewright.frontend.reproducer import first_line
from tilewright.ir.sizes import Size
from tilewright.torch import nodes
from tilewright.torch.by_data import REASON, called_for_data, computes, depends_on_data
from tilewright.torch.depths import (
    Depth,
    any_complex,
    finished,
    in_memory,
    read_later,
    row_major,
    types_of,
)
from tilewright.torch.dtypes import OURS, THEIRS, TOKEN, Sizes, number_of, numbers_of, why_not
from tilewright.torch.layers import starts_of_parts
from tilewright.torch.lines import location_of, module_of
from tilewright.torch.looks import CHECKS, LOOKS
from tilewright.torch.pairs import Pair, find_pair_row, interleaved
from tilewright.torch.random import draws, draws_again
from tilewright.torch.recipe import (
    Alias,
    Eager,
    Export,
    Fallback,
    Recipe,
    Slot,
    Step,
    Update,
)
from tilewright.torch.steps import LoopRow, Steps, find_loop, outside
from tilewright.torch.strides import Layout, contiguous, layout_of, write
from tilewright.torch.symbols import value_of
from tilewright.torch.table import Call, NotCompiled, find
from tilewright.torch.views import base_of

aten = torch.ops.aten

MISSING = "the operator is not in the table"


class Converter:
    """Walks a program once.

    ``sizes`` are the numbers of its named sizes; ``refused`` are operators that are to run in
    PyTorch, and why. Operators whose rows fail do so too, and are in ``failures``. ``kind`` is that
    of a :class:`~tilewright.torch.records.Record`.
    """

    def __init__(
        self, module: fx.GraphModule, sizes: Sizes, refused: Mapping[fx.Node, str] | None = None,
        kind: str = "inference",
    ) -> None:
        self.module, self.sizes, self.kind = module, sizes, kind
        self.refused = refused or {}
        self.failures: dict[fx.Node, Exception] = {}
        self.named = any(isinstance(size, Size) for size in sizes.values())
        self.slots: dict[fx.Node, int] = {}
        self.made = 0
        self.constants: dict[int, torch.Tensor] = {}
        self.depths: dict[int, Depth] = {}
        self.depth: dict[fx.Node, int] = {}
        self.values: dict[fx.Node, Any] = {}
        self.eager: set[fx.Node] = set()
        self.updates: list[tuple[fx.Node, fx.Node]] = []
        self.fallbacks: list[Fallback] = []
        self.random = -1
        self.starts = starts_of_parts(module)
        self.for_data = called_for_data(module)
        self.least = 0

    def recipe(self) -> Recipe:
        """The steps of the program."""
        results: list[int | None] = []
        for node in self.module.graph.find_nodes(op="placeholder"):
            self.slots[node] = self._slot()
        inputs = self.made
        for node in self.module.graph.nodes:
            if node.op == "get_attr":
                self._constant(node)
            elif node.op == "call_function":
                if node in self.starts and self.depths:
                    self.least = max(self.depths) + 1
                draws_again(node)
                self._call(node)
            elif node.op == "output":
                self._share(node.args[0])
                results = [self._result(n) for n in node.args[0]]
        updates = tuple(self._update(target, value) for target, value in self.updates)
        parts: list[Step] = []
        for d, made in sorted(self.depths.items()):
            if made.exports:
                parts.append(made.part(f"part{d}"))
            parts += [
                replace(step, counted=True) if isinstance(step, Alias) and step.slot in results
                else step for step in made.after]
        return Recipe(inputs, self.made, tuple(parts), tuple(results), updates, self.constants,
                      tuple(self.fallbacks), self.sizes)

    # --- walking ------------------------------------------------------------------------
    def _slot(self) -> int:
        self.made += 1
        return self.made - 1

    def _constant(self, node: fx.Node) -> None:
        value: Any = self.module
        for name in str(node.target).split("."):
            value = getattr(value, name)
        self.values[node] = value
        if isinstance(value, torch.Tensor):
            self.slots[node] = self._slot()
            self.constants[self.slots[node]] = value
            node.meta.setdefault("val", value)

    def _call(self, node: fx.Node) -> None:
        packet = getattr(node.target, "overloadpacket", None)
        meta = node.meta.get("val")
        if node in self.for_data:
            self._eager(node, REASON if computes(node) else "")
            return
        if packet in CHECKS:
            return
        if packet is torch.ops.prims._make_token:
            self.slots[node] = self._slot()
            self.constants[self.slots[node]] = TOKEN
            return
        if packet is aten.copy_ and isinstance(node.args[0], fx.Node) and (
            node.args[0].op == "placeholder"
        ):
            self.updates.append((node.args[0], node.args[1]))  # type: ignore[arg-type]
            self.slots[node] = self.slots[node.args[0]]
            return
        if isinstance(meta, torch.SymInt | torch.SymFloat | torch.SymBool | int | float | bool):
            with contextlib.suppress(UnsupportedSize):  # whoever needs it asks again
                self.values[node] = number_of(meta, self.sizes)
            return
        if node.target is operator.getitem:
            self._item(node)
            return
        if packet is aten._assert_async or (
            node.target is with_effects and node.args[1] in LOOKS
        ):
            self._checked(node)
            return
        try:
            if node in self.refused:
                raise NotCompiled(self.refused[node])
            loop = find_loop(node.target)
            if loop is not None:
                self._loop(node, loop)
            else:
                self._compile(node)
        except NotCompiled as reason:
            self._eager(node, str(reason))
        except (UserError, ImportError):
            raise
        except Exception as error:
            self.failures[node] = error
            self._eager(node, f"tilewright failed: {first_line(error)}")

    def _checked(self, node: fx.Node) -> None:
        """A look at codes or a truth; the token of its turn, if it has one, is passed on."""
        effects = node.target is with_effects
        token, target, value, *rest = node.args if effects else (None, node.target, *node.args)
        depth = max(self.depth.get(n, -1) for n in node.all_input_nodes)
        assert isinstance(value, fx.Node)
        self._look(target, self._tensor(value), rest, node.kwargs, depth)
        if isinstance(token, fx.Node):
            self.eager.add(node)
            self.depth[node] = depth
            self.values[node] = [self._tensor(token)]

    def _look(
        self, target: Any, slot: int, args: Sequence[Any], kwargs: Mapping[str, Any], depth: int
    ) -> None:
        """Call what raises or does nothing, when the value is there."""
        call = Eager(target, ((Slot(slot), *args), dict(kwargs)), (None,), False, (None,))
        self.depths.setdefault(depth, Depth()).after.append(call)

    def _item(self, node: fx.Node) -> None:
        source, index = node.args
        assert isinstance(source, fx.Node) and isinstance(index, int)
        self.depth[node] = self.depth[source]
        if source in self.eager:
            self.eager.add(node)
            slot = self.values[source][index]
            if slot is not None:
                self.slots[node] = slot
        else:
            self.values[node] = self.values[source][index]

    def _compile(self, node: fx.Node) -> None:
        known = {n: self._meta(n) for n in node.all_input_nodes}
        made = node.meta.get("val")
        paired = any_complex([*known.values(), made])
        row = find_pair_row(node.target) if paired else find(node.target)
        if row is None:
            raise NotCompiled("complex numbers" if paired and find(node.target) else MISSING)
        reason = why_not([*known.values(), made])
        if reason:
            raise NotCompiled(reason)
        depth = max((self._depth_of(n) for n in known), default=0)
        depth = max(depth, self.least)
        call = Call(node.target, types_of(made, self.sizes), self._plain(node.args, known),
                    self._plain(node.kwargs, known), location_of(node), any_complex(made))
        args = fx.map_arg(node.args, lambda n: self._value(n, depth))
        kwargs = fx.map_arg(node.kwargs, lambda n: self._value(n, depth))
        given = self._numbers((args, kwargs))
        try:
            inspect.signature(row).bind(call, *given[0], **given[1])
        except TypeError as error:
            raise NotCompiled(f"its row has {error}") from None
        self.values[node] = finished(row(call, *given[0], **given[1]), call)
        self.depth[node] = depth
        part = self.depths.setdefault(depth, Depth())
        for check in call.checks:
            value, shape = check.value, check.value.shape
            export = Export(self._slot(), shape, contiguous(shape), THEIRS[value.dtype])
            part.exports.append((export, value))
            self._look(check.target, export.slot, check.args, check.kwargs, depth)

    def _loop(self, node: fx.Node, write: LoopRow) -> None:
        """An operator whose compiled form is a loop, between the parts as a call is."""
        given, made = node.all_input_nodes, node.meta["val"]
        metas = [*map(self._meta, given), *made]
        reason = "complex numbers" if any_complex(metas) else why_not(metas)
        if reason:
            raise NotCompiled(reason)
        depth = max((self.depth[n] for n in given if n in self.depth), default=-1)
        args = self._numbers(fx.map_arg(
            node.args, lambda n: outside(self._meta(n), self.sizes, self._tensor(n))))
        steps = Steps(node.name, self._slot)
        write(steps, {user.args[1] for user in node.users}, *args)
        self.depths.setdefault(depth, Depth()).after += [
            steps.loop(location_of(node)), *steps.aliases]
        self.eager.add(node)
        self.depth[node] = depth
        self.values[node] = [steps.results.get(i) for i in range(len(made))]

    def _eager(self, node: fx.Node, reason: str) -> None:
        """A call of PyTorch: as early as its arguments allow."""
        depth = -1
        for n in node.all_input_nodes:
            if n in self.eager or n in self.depth:
                depth = max(depth, self.depth[n])
        random = draws(node)
        if random:  # they take their turns at the generator
            depth = self.random = max(depth, self.random)
        for n in node.all_input_nodes:
            self._tensor(n)
        args = fx.map_arg((node.args, node.kwargs), lambda n: self._argument(n))
        meta = node.meta.get("val")
        several = isinstance(meta, tuple | list)
        outs: list[int | None] = [
            None if m is None else self._slot() for m in (meta if several else [meta])
        ]
        strides = tuple(self._foretold(m) for m in (meta if several else [meta]))
        call = Eager(node.target, self._numbers(args), tuple(outs), several, strides)
        self.depths.setdefault(depth, Depth()).after.append(call)
        self.eager.add(node)
        self.depth[node] = depth
        self.values[node] = outs
        if not several and outs[0] is not None:
            self.slots[node] = outs[0]
        if reason and (not random or find(node.target)):  # a draw is PyTorch's, no fallback
            self.fallbacks.append(
                Fallback(str(node.target), reason, location_of(node), module_of(node)))

    def _foretold(self, meta: Any) -> tuple[Any, ...] | None:
        """The strides of a result; None where tracing does not know them."""
        if not isinstance(meta, torch.Tensor) or meta.layout is not torch.strided:
            return None
        return None if depends_on_data(meta) else self._geometry(meta)[1]

    def _argument(self, node: fx.Node) -> Any:
        if node in self.slots:
            return Slot(self.slots[node])
        if node in self.eager:
            return [None if s is None else Slot(s) for s in self.values[node]]
        if isinstance(self.values.get(node), list):
            raise NotCompiled("a list of compiled results")
        return self.values[node]

    # --- what a row gets ----------------------------------------------------------------
    def _meta(self, node: fx.Node) -> Any:
        return node.meta.get("val", self.values.get(node))

    def _plain(self, args: Any, known: dict[fx.Node, Any]) -> Any:
        return fx.map_arg(args, lambda n: known[n])

    def _numbers(self, args: Any) -> Any:
        """Arguments with every symbolic number replaced; lists stay lists."""
        if isinstance(args, tuple | list):
            return type(args)(self._numbers(a) for a in args) if type(args) in (tuple, list) else [
                self._numbers(a) for a in args]
        if isinstance(args, dict):
            return {k: self._numbers(v) for k, v in args.items()}
        return number_of(args, self.sizes)

    def _depth_of(self, node: fx.Node) -> int:
        """The least depth of a compiled value that reads this one."""
        if node in self.eager:
            return self.depth[node] + 1
        return max(0, self.depth.get(node, 0))

    def _value(self, node: fx.Node, depth: int) -> Any:
        meta = self._meta(node)
        if isinstance(meta, torch.SymFloat) and self.named:
            return value_of(meta.node.expr, self.sizes)
        if isinstance(meta, torch.SymInt | torch.SymFloat | torch.SymBool):
            return number_of(meta, self.sizes)
        if not isinstance(meta, torch.Tensor):
            return self.values[node]
        if node in self.values and node not in self.eager and self.depth.get(node) == depth:
            return self.values[node]
        made = self.depths.setdefault(depth, Depth())
        return made.value(self._tensor(node), meta, self._geometry(meta), node.name)

    def _geometry(self, meta: torch.Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return numbers_of(meta.shape, self.sizes), numbers_of(meta.stride(), self.sizes)

    # --- tensors that leave a graph -----------------------------------------------------
    def _share(self, results: Sequence[Any]) -> None:
        """Where several results are views of one value, give that value a tensor for them.

        With gradients AOTAutograd sees to that.
        """
        if self.kind == "inference":
            tensors = [n for n in dict.fromkeys(results) if isinstance(n, fx.Node)]
            bases = Counter(self._base(n) or n for n in tensors)
            for base in (base for base, count in bases.items() if count > 1):
                self._tensor(base)

    def _base(self, node: fx.Node) -> fx.Node | None:
        return base_of(node, self._meta, self.eager)

    def _tensor(self, node: fx.Node) -> int:
        """The slot in which a value is a tensor."""
        if node in self.slots:
            return self.slots[node]
        if isinstance(self.values.get(node), list) or not isinstance(
            self._meta(node), torch.Tensor
        ):
            return -1
        base = self._base(node)
        # Two gradients have memory of their own: what is done with one is not with the other.
        if base is not None and base in self.slots and (
            self.kind != "backward" or node in self.eager
        ):
            return self._alias(node, base)
        meta = self._meta(node)
        layout = layout_of(*in_memory(meta.dtype, self._geometry(meta)))
        gaps = layout is None or not layout.dense
        if gaps and base is not None and self._base(base) is None:
            whole = layout_of(*in_memory(meta.dtype, self._geometry(self._meta(base))))
            if whole is not None and whole.dense:
                self._tensor(base)
                return self._alias(node, base)
        return self._export(node, meta, None if gaps else layout)

    def _export(self, node: fx.Node, meta: torch.Tensor, layout: Layout | None) -> int:
        shape, strides = self._geometry(meta)
        made = self.depths[self.depth[node]]
        value = self.values[node]
        if isinstance(value, Pair):
            value = interleaved(value)
        if layout is None:
            layout = row_major(value.shape)
            export = Export(self._slot(), shape, contiguous(shape), meta.dtype, strides)
        else:
            export = Export(self._slot(), shape, strides, meta.dtype)
        made.exports.append((export, write(value, layout)))
        self.slots[node] = export.slot
        return export.slot

    def _alias(self, node: fx.Node, base: fx.Node) -> int:
        meta, whole = self._meta(node), self._meta(base)
        shape, strides = self._geometry(meta)
        offset = number_of(meta.storage_offset(), self.sizes) - number_of(
            whole.storage_offset(), self.sizes)
        depth = self.depth.get(base, -1)
        slot = self._slot()
        alias = Alias(slot, self.slots[base], shape, strides, offset)
        self.depths.setdefault(depth, Depth()).after.append(alias)
        self.slots[node] = slot
        return slot

    def _result(self, node: Any) -> int | None:
        if node is None:
            return None
        if not isinstance(node, fx.Node):
            slot = self._slot()
            self.constants[slot] = number_of(node, self.sizes)
            return slot
        meta = self._meta(node)
        if isinstance(meta, torch.SymInt | torch.SymFloat | torch.SymBool | int | float | bool):
            if node not in self.slots:
                self.slots[node] = self._slot()
                self.constants[self.slots[node]] = number_of(meta, self.sizes)
            return self.slots[node]
        return self._tensor(node)

    def _update(self, target: fx.Node, value: fx.Node) -> Update:
        """A value that takes the place of an input's contents."""
        meta = self._meta(target)
        slot = self.slots[target]
        single = value not in self.slots and value in self.values and value not in self.eager
        shape, strides = self._geometry(meta)
        layout = layout_of(shape, strides)
        lazy = isinstance(self.values.get(value), Pair) or meta.is_neg()
        alone = single and not lazy and not read_later(slot, self.depth[value], self.depths)
        if not alone or layout is None or not layout.dense:
            return Update(slot, self._tensor(value), False)
        made = self.depths[self.depth[value]]
        made.value(slot, meta, (shape, strides), target.name)  # read or not, it is an input
        node = nodes.operand(self.values[value], OURS[meta.dtype], shape)
        export = Export(self._slot(), shape, strides, meta.dtype, into=slot)
        made.exports.append((export, write(node, layout)))
        return Update(slot, export.slot, True)


def convert(module: fx.GraphModule, sizes: Sizes, kind: str = "inference") -> Recipe:
    """The steps of a program for these numbers of its named sizes. Raises what a row raises."""
    recipe = (converter := Converter(module, sizes, kind=kind)).recipe()
    for error in converter.failures.values():
        raise error
    return recipe
