"""PyTorch's own samples of its operators (``op_db``), eager against compiled.

A sample is traced by AOTAutograd without Dynamo, which is what ``torch.compile`` does with a graph
and takes milliseconds: results, changed inputs and gradients are compared.
"""

from __future__ import annotations

import contextlib
import functools
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._functorch.aot_autograd import aot_function
from torch._functorch.compilers import nop
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch.testing._internal import common_methods_invocations
from torch.utils import _pytree as tree

from tilewright.torch.backend import backend
from tilewright.torch.convert import convert
from tilewright.torch.decompositions import decompositions
from tilewright.torch.faults import BackendWarning
from tilewright.torch.instead import traced_for_us
from tilewright.torch.program import Program
from tilewright.torch.recipe import Recipe
from tilewright.torch.report import report

op_db = common_methods_invocations.op_db
# Operators that draw set a seed themselves, which when traced is set while tracing only.
common_methods_invocations.wrapper_set_seed = lambda op, *args, **kwargs: op(*args, **kwargs)

SEED = 7

WITHOUT_VALUE = frozenset({
    "empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided",
})
"""Operators whose results are memory as it was: only types and shapes are compared."""


ANY_OF_EQUALS = frozenset({"sort", "topk"})
"""Operators that may give the places of equal elements in any order."""


OTHER_STRIDES = frozenset({"nn.functional.max_unpool2d"})
"""Operators of which PyTorch's meta functions, and so every compiler, tell other strides than its
kernels give."""


FREE_SIGNS: dict[str, dict[int, bool]] = {
    "svd": {0: False, 2: False}, "linalg.svd": {0: False, 2: True}, "linalg.eigh": {1: False},
    "svd_lowrank": {0: False, 2: False}, "pca_lowrank": {0: False, 2: False},
}
"""Operators whose results have columns (rows, if true) of which PyTorch promises no sign; behind
those that belong to each other no more than that they are orthonormal."""


FREE_ORDER = frozenset({"linalg.eig", "linalg.eigvals"})
"""Operators whose results are eigenvalues in any order; of their eigenvectors, columns in that
order, PyTorch promises no phase."""


@dataclass
class Outcome:
    """What became of a sample.

    kind       compiled, fallback (some operators ran in PyTorch), break (PyTorch cannot trace it
               as one graph: Dynamo compiles what is before and behind), wrong, crash, or skipped
               (eager PyTorch refuses)
    fallbacks  the operators that ran in PyTorch, with the reason
    message    of what is wrong
    """

    kind: str
    fallbacks: list[tuple[str, str]] = field(default_factory=list)
    message: str = ""


def name_of(op: Any) -> str:
    """The operator's name with its variant's."""
    return f"{op.name}.{op.variant_test_name}" if op.variant_test_name else str(op.name)


def operators(dtype: torch.dtype) -> list[Any]:
    """The operators that take an element type on a CPU."""
    return [op for op in op_db if dtype in op.supported_dtypes("cpu")]


def samples(op: Any, dtype: torch.dtype, most: int | None = None) -> Iterator[Any]:
    """The samples of an operator, or as many of them as asked for, evenly spread."""
    gradients = op.supports_autograd and dtype in op.supported_backward_dtypes("cpu")
    torch.manual_seed(SEED)
    every = list(op.sample_inputs("cpu", dtype, requires_grad=gradients))
    if most is None or len(every) <= most:
        yield from every
        return
    for i in range(most):
        yield every[i * len(every) // most]


@dataclass
class _Run:
    """What one way of running a sample gives."""

    results: Any
    inputs: list[torch.Tensor]
    gradients: list[torch.Tensor | None] = field(default_factory=list)


class Sample:
    """A call of an operator as a function of its tensors."""

    def __init__(self, op: Any, sample: Any) -> None:
        self.op, self.process = op, sample.output_process_fn_grad
        if op.name in FREE_ORDER:
            self.process = lambda results: sample.output_process_fn_grad(_in_order(results))
        leaves, self.spec = tree.tree_flatten((sample.input, tuple(sample.args), sample.kwargs))
        self.at = [i for i, v in enumerate(leaves) if isinstance(v, torch.Tensor)]
        self.tensors = [leaves[i] for i in self.at]
        self.leaves = [None if isinstance(v, torch.Tensor) else v for v in leaves]

    def call(self, *tensors: torch.Tensor) -> Any:
        """The operator on these tensors."""
        leaves = list(self.leaves)
        for i, t in zip(self.at, tensors, strict=True):
            leaves[i] = t
        first, args, kwargs = tree.tree_unflatten(leaves, self.spec)
        return self.op.op(first, *args, **kwargs)

    def inputs(self, dtype: torch.dtype | None = None) -> list[torch.Tensor]:
        """Copies that nothing else shares, in another float type if asked."""
        return [_copy(t, dtype) for t in self.tensors]

    def run(self, function: Callable[..., Any], dtype: torch.dtype | None = None) -> _Run:
        """Results and gradients of the operator, run by this function."""
        inputs = self.inputs(dtype)
        torch.manual_seed(SEED)
        results = function(*inputs)
        run = _Run(results, inputs)
        processed = _tensors(self.process(results))
        outputs = [t for t in processed if t.requires_grad]
        wanted = [t for t in inputs if t.requires_grad]
        if outputs and wanted:
            torch.manual_seed(SEED + 1)
            # Drawn in f64, so that every way of running gets the same numbers.
            weights = [torch.randn(t.shape, dtype=_drawn(t.dtype)).to(t.dtype) for t in outputs]
            run.gradients = list(torch.autograd.grad(outputs, wanted, weights, allow_unused=True))
        return run


def _copy(t: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    made = t.detach().clone()
    if t.layout is torch.strided and not (made.stride() == t.stride()):
        made = torch.empty_strided(t.shape, t.stride(), dtype=t.dtype) if 0 not in t.stride() else (
            made)
        made.copy_(t.detach())
    if dtype is not None and (made.is_floating_point() or made.is_complex()):
        made = made.to(_drawn(made.dtype))
    return made.requires_grad_(t.requires_grad)


def _drawn(dtype: torch.dtype) -> torch.dtype:
    return torch.complex128 if dtype.is_complex else torch.float64


def _tensors(value: Any) -> list[torch.Tensor]:
    return [t for t in tree.tree_leaves(value) if isinstance(t, torch.Tensor)]


def compiled(function: Callable[..., Any], found: list[Recipe]) -> Callable[..., Any]:
    """The function traced and compiled as the backend does it; its programs join ``found``."""
    def compiler(module: Any, inputs: Sequence[Any]) -> Any:
        found.append(convert(module, {}))
        return Program(found[-1])
    made = aot_function(
        function, fw_compiler=compiler, bw_compiler=compiler, inference_compiler=compiler,
        partition_fn=min_cut_rematerialization_partition, decompositions=decompositions(),
        keep_inference_input_mutations=True)

    def run(*inputs: torch.Tensor) -> Any:
        with traced_for_us():
            return made(*inputs)
    return run


def traced(function: Callable[..., Any], ours: bool = False) -> Callable[..., Any]:
    """The function traced by AOTAutograd, if asked as for the backend, and run by PyTorch."""
    made = aot_function(function, fw_compiler=nop, bw_compiler=nop, inference_compiler=nop,
                        keep_inference_input_mutations=True)

    def run(*inputs: torch.Tensor) -> Any:
        with traced_for_us() if ours else contextlib.nullcontext():
            return made(*inputs)
    return run


def check(op: Any, given: Any) -> Outcome:
    """Run one sample both ways and say what became of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sample = Sample(op, given)
        try:
            expected = sample.run(sample.call)
        except Exception as error:
            return Outcome("skipped", message=_short(error))
        found: list[Recipe] = []
        try:
            made = sample.run(compiled(sample.call, found))
        except Exception as error:
            if _fails(lambda: sample.run(traced(sample.call))):
                return _by_dynamo(op, sample, expected)
            return Outcome("crash", message=f"{_short(error)}\n{traceback.format_exc()}")
        fallbacks = [(f.target, f.reason) for r in found for f in r.fallbacks]
        wrong = _difference(op, sample, made, expected)
        if wrong:
            return Outcome("wrong", fallbacks, wrong)
        return Outcome("fallback" if fallbacks else "compiled", fallbacks)


def _by_dynamo(op: Any, sample: Sample, expected: _Run) -> Outcome:
    """What AOTAutograd cannot trace by itself: Dynamo may, as one graph."""
    torch._dynamo.reset()
    whole = torch.compile(sample.call, backend=backend, fullgraph=True, dynamic=False)
    try:
        made = sample.run(whole)
    except Exception:
        return _in_parts(op, sample, expected)
    found = report(whole)
    fallbacks = [(f.target, f.reason) for f in found.fallbacks]
    wrong = _difference(op, sample, made, expected)
    if found.faults or not found.graphs:
        return Outcome("crash", fallbacks, "; ".join(str(f) for f in found.faults))
    return Outcome("wrong" if wrong else "fallback" if fallbacks else "compiled", fallbacks, wrong)


def _in_parts(op: Any, sample: Sample, expected: _Run) -> Outcome:
    """What Dynamo cannot trace as one graph: it goes on behind a break."""
    torch._dynamo.reset()
    graphs = 0

    def counted(module: Any, inputs: Sequence[Any]) -> Any:
        nonlocal graphs
        graphs += 1
        return backend(module, inputs)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", BackendWarning)
            made = sample.run(torch.compile(sample.call, backend=counted, dynamic=False))
    except Exception as error:
        return Outcome("crash", message=f"{_short(error)}\n{traceback.format_exc()}")
    wrong = _difference(op, sample, made, expected)
    if wrong:
        return Outcome("wrong", message=wrong)
    return Outcome("break", message=f"{graphs} graphs")


def _fails(run: Callable[[], Any]) -> bool:
    try:
        run()
    except Exception:
        return True
    return False


def _short(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}"


def _difference(op: Any, sample: Sample, made: _Run, expected: _Run) -> str:
    """What differs between two ways of running; empty if nothing does."""
    reference = functools.cache(lambda: _reference(sample))
    traced_run = functools.cache(lambda: sample.run(traced(sample.call, True)))
    values = op.name not in WITHOUT_VALUE
    if op.name in FREE_SIGNS:
        made = _with_signs(made, expected, FREE_SIGNS[op.name])
    if op.name in FREE_ORDER:
        made, expected = _turned(made), _turned(expected)
    for what in ("results", "inputs", "gradients"):
        ours, theirs = getattr(made, what), getattr(expected, what)
        a, first = tree.tree_flatten(ours)
        b, second = tree.tree_flatten(theirs)
        if len(a) != len(b):
            return f"{what}: {first} is not {second}"
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            if not isinstance(y, torch.Tensor):
                if x != y and not (x != x and y != y):
                    return f"{what}[{i}]: {x!r} is not {y!r}"
                continue
            if x is None or x.dtype != y.dtype or x.shape != y.shape:
                return f"{what}[{i}]: {_type(x)} is not {_type(y)}"
            message = _unequal(x, y) if values else ""
            if message and op.name in ANY_OF_EQUALS and what == "results" and i == 1:
                message = _other_elements(sample.tensors[0], x, a[0])
                if not message:  # the gradients go to those places
                    made.gradients = expected.gradients
            if message and not _as_near(x, y, reference, what, i):
                return f"{what}[{i}]: {message}"
            strided = x.layout is torch.strided and op.name not in OTHER_STRIDES
            if strided and _order(x) != _order(y):
                other = tree.tree_leaves(getattr(traced_run(), what))[i]
                if _order(x) != _order(other):
                    return f"{what}[{i}]: strides {x.stride()} are not {y.stride()}"
    return ""


def _with_signs(made: _Run, expected: _Run, parts: dict[int, bool]) -> _Run:
    """Our results with each column's sign, one for all of its parts, turned to that of theirs."""
    results, structure = tree.tree_flatten(made.results)
    ours = {i: results[i].detach().mT if rows else results[i].detach()
            for i, rows in parts.items()}
    theirs = {i: tree.tree_leaves(expected.results)[i].detach() for i in parts}
    theirs = {i: t.mT if parts[i] else t for i, t in theirs.items()}
    first = min(parts)
    count = min(x.shape[-1] for x in ours.values())
    complex_ = any(x.is_complex() for x in ours.values())
    shapes = [[x.shape for x in part.values()] for part in (ours, theirs)]
    if shapes[0] != shapes[1] or not count or complex_:
        return made
    sign = (ours[first] * theirs[first])[..., :count].sum(-2, keepdim=True).sign()
    for i, x in ours.items():
        rest = x[..., count:]
        if not _unequal(x.mT @ x, torch.eye(x.shape[-1]).expand_as(x.mT @ x)):
            rest = theirs[i][..., count:]
        turned = torch.cat([x[..., :count] * sign, rest], -1)
        turned = turned.mT if parts[i] else turned
        results[i] = torch.empty_like(results[i].detach()).copy_(turned)
    return _Run(tree.tree_unflatten(results, structure), made.inputs, made.gradients)


def _in_order(results: Any) -> Any:
    """Eigenvalues by their parts, and the eigenvectors that belong to them."""
    parts, structure = tree.tree_flatten(results)
    keys = torch.view_as_real(parts[0].detach().to(torch.complex128)).mul(1e4).round()
    first = keys[..., 1].argsort(dim=-1, stable=True)
    order = first.gather(-1, keys[..., 0].gather(-1, first).argsort(dim=-1, stable=True))
    made = [parts[0].gather(-1, order)]
    made += [p.gather(-1, order.unsqueeze(-2).expand(p.shape)) for p in parts[1:]]
    return tree.tree_unflatten(made, structure)


def _turned(run: _Run) -> _Run:
    """Eigenvalues in order, and eigenvectors whose largest number is positive, as they lay."""
    parts, structure = tree.tree_flatten(run.results)
    found = [p.detach() for p in tree.tree_leaves(_in_order(run.results))]
    for i, x in enumerate(found[1:], 1):
        if x.numel():
            largest = x.gather(-2, x.abs().mul(1e4).round().argmax(-2, keepdim=True))
            found[i] = x * largest.sgn().conj()
    made = [torch.empty_like(p.detach()).copy_(x) for p, x in zip(parts, found, strict=True)]
    return _Run(tree.tree_unflatten(made, structure), run.inputs, run.gradients)


def _other_elements(x: torch.Tensor, places: torch.Tensor, values: torch.Tensor) -> str:
    """Whether places along an axis are not those of the values."""
    for axis in range(x.ndim):
        inside = places.numel() and int(places.max()) < x.shape[axis]
        if inside and torch.equal(x.detach().gather(axis, places), values.detach()):
            return ""
    return "places of other elements"


def _parts(x: torch.Tensor) -> torch.Tensor:
    """The numbers of a tensor: of a complex one, those of its parts."""
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x


def _type(x: Any) -> str:
    return f"{x.dtype}{list(x.shape)}" if isinstance(x, torch.Tensor) else repr(x)


def _order(x: torch.Tensor) -> tuple[int, ...]:
    """The strides that matter: those of axes with several elements."""
    if x.numel() < 2:
        return ()
    return tuple(s for s, d in zip(x.stride(), x.shape, strict=True) if d > 1)


def _unequal(x: torch.Tensor, y: torch.Tensor) -> str:
    if x.layout is not torch.strided:
        x, y = x.to_dense(), y.to_dense()
    try:
        torch.testing.assert_close(x.detach(), y.detach(), equal_nan=True, check_stride=False)
    except AssertionError as error:
        return " ".join(str(error).split())[:400]
    return ""


def _reference(sample: Sample) -> _Run | None:
    """The sample in f64, the judge of two results that differ by their rounding."""
    try:
        return sample.run(sample.call, torch.float64)
    except Exception:
        return None


def _as_near(x: Any, y: Any, reference: Any, what: str, i: int) -> bool:
    """Whether our result is as near to the exact one as PyTorch's is."""
    exact = reference()
    if exact is None or not (x.is_floating_point() or x.is_complex()):
        return False
    leaves = tree.tree_leaves(getattr(exact, what))
    if i >= len(leaves) or not isinstance(leaves[i], torch.Tensor) or leaves[i].shape != y.shape:
        return False
    x, y, z = (_parts(t.detach()).double() for t in (x, y, leaves[i]))
    finite = z.isfinite() & x.isfinite() & y.isfinite()
    if not torch.equal(x[~finite].nan_to_num(), y[~finite].nan_to_num()):
        return False
    ours, theirs = (x - z)[finite].abs(), (y - z)[finite].abs()
    if not ours.numel():
        return True
    scale = torch.finfo(torch.float32).eps * z[finite].abs().amax()
    return bool(ours.amax() <= 2 * theirs.amax() + 4 * scale)
