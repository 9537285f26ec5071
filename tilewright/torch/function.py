"""Tilewright functions on tensors: ``tw.torch.function``, and ``@tw.jit`` called with them."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import optree
import torch

from tilewright.errors import TraceError
from tilewright.frontend import api as _api  # noqa: F401 - fills the tables of what can be traced
from tilewright.frontend import foreign, signature, tree
from tilewright.frontend.interop import call_on
from tilewright.frontend.signature import Parameters
from tilewright.frontend.trace import InputSpec, Traced, trace_function
from tilewright.ir.types import TensorType, dtype_of
from tilewright.runtime.threads import threads as threads_of
from tilewright.torch import gpu
from tilewright.torch.arrays import check, to_numpy, to_torch
from tilewright.torch.differentiable import Entry, apply, transformed
from tilewright.torch.dtypes import OURS
from tilewright.torch.gpu import device_name, on_gpu, target_for
from tilewright.torch.lines import user_line

Function = Callable[..., Any]
KEPT_PER_FUNCTION = 256
"""Signatures of one function after which the oldest is forgotten."""


def function(f: Function) -> Function:
    """``f``, a function in tilewright's NumPy, as a differentiable function of tensors.

    Tensors (and NumPy arrays) in the arguments, alone or in nested lists, tuples, dicts and
    dataclasses, are its inputs; all else (numbers, strings, flags, None) is compiled in, so that
    another value is another compile. Results are tensors in the tree that ``f`` returns. Inputs are
    read in place, results have memory of their own.

    Gradients of every order, ``torch.func.grad``, ``jvp`` and ``vmap`` (one run per element) go
    through it, and ``torch.compile`` takes it as a part of its graph: the backend tilewright
    compiles it together with what is around it. Integer and boolean inputs have no gradient.

    It is compiled for the device of its tensors. Raises ``DTypeError`` for an element type that
    tilewright does not have, ``Unsupported`` for a tensor that is not dense, or neither on the CPU
    nor on a CUDA device, and ``UserError`` for tensors of several devices.
    """
    if not callable(f):
        raise TraceError(
            "tw.torch.function takes a function", expected="a callable",
            got=f"{type(f).__name__} {f!r}", loc=user_line())
    lifted = _Lifted(f)

    @torch._dynamo.nonstrict_trace
    def in_graph(*args: Any, **kwargs: Any) -> Any:
        return lifted.as_operator(args, kwargs)

    @functools.wraps(f)
    def call(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return in_graph(*args, **kwargs)
        return lifted(args, kwargs)
    return call


class _Lifted:
    """A function of tensors, with an entry per signature."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.name = getattr(function, "__name__", type(function).__name__)
        self.parameters = Parameters(function, (), ())
        self.made: dict[Hashable, tuple[Entry, tree.TreeSpec]] = {}
        self.lock = threading.RLock()

    def __call__(self, args: Any, kwargs: Any) -> Any:
        tensors, (entry, out) = self.find(args, kwargs)
        return optree.tree_unflatten(out, apply(entry, tensors))

    def as_operator(self, args: Any, kwargs: Any) -> Any:
        """The same as a call of an operator, for programs that are traced."""
        tensors, (entry, out) = self.find(args, kwargs)
        results = torch.ops.tilewright.call(entry.number, tensors)
        return optree.tree_unflatten(out, results)

    def find(self, args: Any, kwargs: Any) -> tuple[list[Any], tuple[Entry, tree.TreeSpec]]:
        """The inputs among the arguments, and the entry of their signature."""
        leaves, spec = tree.flatten((args, kwargs))
        tensors: list[torch.Tensor] = []
        key: list[Hashable] = []
        for leaf in leaves:
            if isinstance(leaf, np.ndarray | np.generic):
                leaf = to_torch(np.asarray(leaf))
            if isinstance(leaf, torch.Tensor):
                tensors.append(leaf)
                key.append((leaf.dtype, tuple(map(int, leaf.shape)), device_name(leaf)))
            else:
                key.append(signature.distinct(leaf))
        # Beside a tensor on a GPU an array of NumPy may stand where a tensor of the CPU may not.
        mixed = any(map(on_gpu, leaves))
        kinds = tuple(isinstance(leaf, torch.Tensor) for leaf in leaves) if mixed else ()
        whole = (spec, *key, kinds)
        try:
            found = self.made.get(whole)
        except TypeError:
            paths = self.paths(args, kwargs)
            for leaf, path in zip(leaves, paths, strict=True):
                if not isinstance(leaf, torch.Tensor | np.ndarray):
                    signature.check_hashable(path, leaf)
            raise
        if found is None:
            with self.lock:
                found = self.made.get(whole) or self.make(whole, leaves, spec, args, kwargs)
        return tensors, found

    def make(
        self, key: Hashable, leaves: Sequence[Any], spec: tree.TreeSpec, args: Any, kwargs: Any
    ) -> tuple[Entry, tree.TreeSpec]:
        """Trace for a signature."""
        paths, specs, named = self.paths(args, kwargs), [], []
        target = target_for(None, leaves, paths, self.name)
        for leaf, path in zip(leaves, paths, strict=True):
            if isinstance(leaf, torch.Tensor):
                check(leaf, path)
                shape = tuple(map(int, leaf.shape))
                specs.append(InputSpec(TensorType(OURS[leaf.dtype], shape)))
            elif isinstance(leaf, np.ndarray | np.generic):
                specs.append(InputSpec(TensorType(dtype_of(leaf.dtype), leaf.shape)))
            else:
                continue
            named.append(path)
        fixed = [not isinstance(x, torch.Tensor | np.ndarray | np.generic) for x in leaves]

        @functools.wraps(self.function)
        def flat(*inputs: Any) -> Any:
            rest = iter(inputs)
            values = [x if f else next(rest) for x, f in zip(leaves, fixed, strict=True)]
            given, by_name = tree.unflatten(spec, values)
            return self.function(*given, **by_name)

        traced: Traced = trace_function(flat, tuple(specs), {}, None, named)
        while len(self.made) >= KEPT_PER_FUNCTION:
            del self.made[next(iter(self.made))]
        found = self.made[key] = (Entry(traced.graph, target), traced.out_tree)
        return found

    def paths(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
        """What to call each leaf of the arguments."""
        named = [(self.parameters.name(i), a) for i, a in enumerate(args)]
        named += [(name, kwargs[name]) for name in sorted(kwargs)]
        return [p for name, value in named for p in tree.paths(tree.structure(value), name)]


# --- tw.jit ---------------------------------------------------------------------------------
def call_jitted(jitted: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A call of a jitted function with a tensor among its arguments; all results are tensors."""
    everything: Any = (args, kwargs)
    leaves, spec = tree.flatten(everything)
    grad = torch.is_grad_enabled() and any(
        isinstance(x, torch.Tensor) and x.requires_grad for x in leaves)
    if grad or transformed():
        return _call_differentiable(jitted, args, kwargs)
    if any(map(on_gpu, leaves)):
        return _call_on_gpu(jitted, args, kwargs)
    try:
        values = [to_numpy(x) if isinstance(x, torch.Tensor) else x for x in leaves]
    except (TypeError, RuntimeError):
        _check_all(jitted, args, kwargs)
        raise
    given, named = tree.unflatten(spec, values)
    result = jitted(*given, **named)
    if type(result) is np.ndarray:
        return to_torch(result)
    return optree.tree_map(to_torch, result, namespace=tree.NAMESPACE)


def _call_on_gpu(jitted: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A call with tensors on a GPU; of the CPU's, numbers may stand beside them."""
    _check_all(jitted, args, kwargs)
    args, kwargs = tree.map(
        lambda x: to_numpy(x) if isinstance(x, torch.Tensor) and not on_gpu(x) else x,
        (args, kwargs))
    return call_on(gpu.GUEST, on_gpu, jitted, args, kwargs)


def _check_all(jitted: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """The target for these arguments. Raises for the first tensor that we cannot run on."""
    parameters: Parameters = jitted.parameters
    placed = [(parameters.name(i), a) for i, a in enumerate(args)]
    leaves, paths = [], []
    for name, value in [*placed, *kwargs.items()]:
        found, spec = tree.flatten(value)
        leaves += found
        paths += tree.paths(spec, name)
    for leaf, path in zip(leaves, paths, strict=True):
        if isinstance(leaf, torch.Tensor):
            check(leaf, path)
    return target_for(jitted.target, leaves, paths, jitted.parameters_name)


def _call_differentiable(jitted: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    parameters: Parameters = jitted.parameters
    target = _check_all(jitted, args, kwargs)
    args, kwargs = parameters.by_position(args, kwargs)
    dynamic, static = parameters.split(args, kwargs)
    leaves, spec = tree.flatten(dynamic)
    tensors = [
        x if isinstance(x, torch.Tensor) else to_torch(signature.to_array(x)) for x in leaves]
    weak = tuple(type(x) in signature.NUMBERS for x in leaves)
    key = (len(args), spec, weak, target, *((t.dtype, t.shape) for t in tensors),
           *((name, signature.distinct(value)) for name, value in static))
    made: dict[Any, Any] = jitted.__dict__.setdefault("_entries", {})
    found = made.get(key)
    if found is None:
        plain = [
            np.empty(tuple(t.shape), OURS[t.dtype].numpy) if not w else x
            for t, w, x in zip(tensors, weak, leaves, strict=True)]
        named = tree.unflatten(spec, plain)
        given, by_name = parameters.join(len(args), named, static)
        lowered = jitted._lower(tuple(given), by_name, None)[0]  # for these sizes
        found = made[key] = (Entry(lowered.graph, target), lowered.traced.out_tree)
    entry, out = found
    if jitted.threads is None:
        return tree.unflatten(out, apply(entry, tensors))
    with threads_of(jitted.threads):
        return tree.unflatten(out, apply(entry, tensors))


foreign.CALLS["torch"] = call_jitted
