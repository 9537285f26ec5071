"""``tw.jit``: signature -> compiled before? -> trace -> compile -> call."""

from __future__ import annotations

import functools
import threading
import time
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np

from tilewright.errors import Location, ShapeError, TraceError, Unsupported
from tilewright.frontend import api as _api  # fills the tables of what can be traced
from tilewright.frontend import devices, foreign, signature, tree, warm
from tilewright.frontend.compiled import AtSizes, Compiled, Lowered, Stages
from tilewright.frontend.fastcall import argument_trees, result_tree
from tilewright.frontend.location import here
from tilewright.frontend.named import Decisions, Declared, parameter_of
from tilewright.frontend.signature import Parameters, Signature, leaf_spec
from tilewright.frontend.trace import InputSpec, trace_function
from tilewright.frontend.tracer import current
from tilewright.ir.decide import deciding
from tilewright.ir.graph import Graph
from tilewright.ir.sizes import Dim
from tilewright.ir.symbolic import specialise
from tilewright.runtime.dispatch import Chain
from tilewright.runtime.executable import SizedExecutable
from tilewright.runtime.threads import threads as threads_of

Function = Callable[..., Any]

TRACEABLE = _api.MODULES
"""Where the operations stand that can be traced."""


@dataclass(frozen=True)
class Naming:
    """The leaves of a call, their paths, their shapes with names (None: without), and the numbers
    of the names.
    """

    leaves: Sequence[Any]
    paths: Sequence[str]
    shapes: Sequence[tuple[Dim, ...] | None]
    values: Mapping[str, int]


class Jitted:
    """A function that compiles itself for each new signature of its arguments.

    A signature is the tree structure of the arguments, the shape and dtype of each array, and the
    values of the static arguments. Results are NumPy arrays, 0-d ones included, in the tree that
    the function returned; Python numbers in it become arrays. With a :class:`tw.Array` among the
    arguments the function is compiled for its device, and the results stay there.

    Called inside another traced function it is traced as a part of that one.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Jitted:
        """An instance with a class of its own, so that ``__call__`` can be its native call."""
        own = type(cls.__name__, (cls,), {"__module__": cls.__module__, "__doc__": cls.__doc__})
        made: Jitted = super().__new__(own)
        return made

    def __init__(
        self,
        function: Function,
        static_argnames: Sequence[str],
        donate_argnames: Sequence[str],
        target: str | None,
        threads: int | None,
        dynamic: Mapping[str, Any] | None = None,
        fast_math: bool | None = None,
    ) -> None:
        # First, because the function may be a wrapper around another jitted one, and then carries
        # that one's attributes.
        functools.update_wrapper(self, function)
        self.function = function
        self.parameters = Parameters(function, static_argnames, donate_argnames)
        self.target, self.threads, self.fast_math = target, threads, fast_math
        self.declared = Declared(dynamic) if dynamic else None
        if self.declared is not None:
            self.parameters.check_names("dynamic", map(parameter_of, self.declared.axes))
        self.history: list[tuple[Signature, Location | None]] = []
        self._compiled: dict[Any, tuple[Compiled | AtSizes, tree.TreeSpec]] = {}
        self._named: dict[Any, list[Compiled]] = {}
        self._lock = threading.RLock()
        self._chain = Chain(self._call_slow)
        warm.begin()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.threads is None:
            return self._chain.call(*args, **kwargs)
        with threads_of(self.threads):
            return self._chain.call(*args, **kwargs)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __reduce__(self) -> str:
        """Pickled by name, as functions are; a copy is the function itself."""
        return str(getattr(self, "__qualname__", self.parameters_name))

    def __repr__(self) -> str:
        return f"<tw.jit {getattr(self.function, '__qualname__', self.function)}>"

    def _call_slow(self, *args: Any, **kwargs: Any) -> Any:
        """What the native calls hand over: a new signature, or one that only Python can match."""
        if current() is not None:
            return self.function(*args, **kwargs)
        elsewhere = foreign.call_for(args, kwargs)
        if elsewhere is not None:
            return elsewhere(self, args, kwargs)
        written = (args, kwargs)
        args, kwargs = self.parameters.by_position(args, kwargs)
        dynamic, static = self.parameters.split(args, kwargs)
        leaves, spec, keys = signature.flatten(dynamic)
        values = tuple((name, signature.distinct(value)) for name, value in static)
        key = (len(args), spec, keys, values)
        found = self._compiled.get(key)
        if found is None:
            with self._lock:
                found = self._compiled.get(key) or self._find(key, args, kwargs, written)
        compiled, out_tree = found
        results = compiled([signature.to_array(leaf) for leaf in leaves])
        return tree.unflatten(out_tree, results)

    def _find(
        self, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any], written: Any
    ) -> tuple[Compiled | AtSizes, tree.TreeSpec]:
        """What runs for a signature that was not met before."""
        compiled: Compiled | AtSizes
        if self.declared is None:
            compiled = self._compile(args, kwargs)
            out_tree = compiled.lowered.traced.out_tree
        else:
            compiled, out_tree = self._find_named(key, args, kwargs)
        self._compiled[key] = (compiled, out_tree)
        arguments = argument_trees(self.parameters, *written)
        if arguments is not None and compiled.is_native:
            result = result_tree(out_tree)
            self._chain.add(compiled.executable, arguments, result)
            if self.threads is None:
                # Python looks __call__ up in the class: no frame of ours stands in a warm call.
                type(self).__call__ = self._chain.call  # type: ignore[method-assign]
        return self._compiled[key]

    def _compile(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], naming: Naming | None = None
    ) -> Compiled:
        lowered, found = self._lower(args, kwargs, naming)
        compiled = lowered.compile()
        self.history.append((found, here()))
        return compiled

    def _find_named(
        self, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Compiled | AtSizes, tree.TreeSpec]:
        """A compiled function with named sizes for the numbers of this call.

        Where the function makes no sense, or is not supported, for every number that a size may
        have, it is compiled for those of this call.
        """
        naming = self._naming(args, kwargs)
        if not naming.values:
            compiled = self._compile(args, kwargs)
            return compiled, compiled.lowered.traced.out_tree
        places, spec, keys, values = key
        kinds = tuple(
            k if shape is None else (k[0], shape, *k[2:])
            for k, shape in zip(keys, naming.shapes, strict=True)
        )
        known = self._named.setdefault((places, spec, kinds, values), [])
        found = next((c for c in known if c.serves(naming.values)), None)
        if found is None:
            try:
                found = self._compile(args, kwargs, naming)
            except (ShapeError, Unsupported):
                compiled = self._compile(args, kwargs)
                return compiled, compiled.lowered.traced.out_tree
            known.append(found)
        executable = found.executable
        if found.plan.sizes:
            shapes = [np.shape(leaf) for leaf in naming.leaves]
            executable = executable.at(shapes, naming.paths)
        self._forget()
        return AtSizes(found, executable), found.lowered.traced.out_tree

    def _forget(self) -> None:
        """Drop what is known of the oldest numbers of named sizes, if that is much."""
        bound = [key for key, (found, _) in self._compiled.items() if isinstance(found, AtSizes)]
        for key in bound[:-SizedExecutable.most]:
            self._compiled.pop(key)

    def _naming(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Naming:
        """The names that the sizes of these arguments have."""
        dynamic, _ = self.parameters.split(args, kwargs)
        leaves, _, _ = signature.flatten(dynamic)
        owners = [name for name, value in dynamic.items() for _ in tree.leaves(value)]
        paths = signature.paths_of(dynamic)
        assert self.declared is not None
        shapes, values = self.declared.named(owners, paths, leaves)
        return Naming(leaves, paths, shapes, values)

    def _lower(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], naming: Naming | None = None
    ) -> tuple[Lowered, Signature]:
        """Trace for these arguments, with names in the places of some sizes."""
        start = time.perf_counter()
        parameters, places = self.parameters, len(args)
        dynamic, static = parameters.split(args, kwargs)
        leaves, spec, _ = signature.flatten(dynamic)
        paths = signature.paths_of(dynamic)
        specs = tuple(map(leaf_spec, leaves, paths))
        target = devices.target_for(self.target, leaves, paths, self.parameters_name)
        decisions = Decisions(naming.values if naming else {})
        if naming is not None:
            specs = tuple(
                s if shape is None else InputSpec(s.type.with_shape(shape), s.weak)
                for s, shape in zip(specs, naming.shapes, strict=True)
            )

        @functools.wraps(self.function)
        def call(named: dict[str, Any]) -> Any:
            args, kwargs = parameters.join(places, named, static)
            return self.function(*args, **kwargs)

        with deciding(decisions) if naming is not None else nullcontext():
            traced = trace_function(call, (tree.unflatten(spec, specs),), {}, None, paths)
        if naming is not None:
            # Sizes in the user's hands become the compiler's.
            traced = replace(traced, graph=specialise(traced.graph, {}))
        structures = {name: tree.structure(value) for name, value in dynamic.items()}
        found = Signature(structures, dict(zip(paths, specs, strict=True)), dict(static), target)
        milliseconds = (time.perf_counter() - start) * 1e3
        donated = parameters.donated_leaves(dynamic)
        return Lowered(
            traced, donated, target, milliseconds, decisions.values, tuple(decisions.guards),
            self.fast_math,
        ), found

    # --- looking inside -------------------------------------------------------------------
    def trace(self, *args: Any, **kwargs: Any) -> Graph:
        """The graph for these arguments; nothing is compiled."""
        return self.lower(*args, **kwargs).graph

    def lower(self, *args: Any, **kwargs: Any) -> Lowered:
        """The traced function for these arguments, which shows the text of every stage."""
        args, kwargs = self.parameters.by_position(args, kwargs)
        naming = self._naming(args, kwargs) if self.declared is not None else None
        return self._lower(args, kwargs, naming if naming and naming.values else None)[0]

    def compile(self, *args: Any, **kwargs: Any) -> Compiled:
        """The compiled function for these arguments."""
        return self.lower(*args, **kwargs).compile()

    @property
    def stages(self) -> Stages:
        """The steps of the latest compilation. Raises ``TraceError`` before the first call."""
        if not self._compiled:
            raise TraceError(
                f"{self.parameters_name} has not been compiled yet",
                loc=here(),
                hint="call it, or use f.lower(...).stages",
            )
        return list(self._compiled.values())[-1][0].stages

    @property
    def parameters_name(self) -> str:
        """The function's name."""
        return getattr(self.function, "__name__", type(self.function).__name__)


@overload
def jit(function: Function, /) -> Jitted: ...
@overload
def jit(
    function: None = None,
    /,
    *,
    static_argnames: str | Sequence[str] = (),
    donate_argnames: str | Sequence[str] = (),
    target: str | None = None,
    threads: int | None = None,
    dynamic: Mapping[str, Any] | None = None,
    fast_math: bool | None = None,
) -> Callable[[Function], Jitted]: ...
@overload
def jit(
    function: Function,
    /,
    *,
    static_argnames: str | Sequence[str] = (),
    donate_argnames: str | Sequence[str] = (),
    target: str | None = None,
    threads: int | None = None,
    dynamic: Mapping[str, Any] | None = None,
    fast_math: bool | None = None,
) -> Jitted: ...
def jit(
    function: Function | None = None,
    /,
    *,
    static_argnames: str | Sequence[str] = (),
    donate_argnames: str | Sequence[str] = (),
    target: str | None = None,
    threads: int | None = None,
    dynamic: Mapping[str, Any] | None = None,
    fast_math: bool | None = None,
) -> Any:
    """Compile a function of arrays, as a decorator with or without arguments.

    static_argnames  parameters whose values are compiled in; they need ``==`` and a hash
    donate_argnames  parameters whose memory may be overwritten with results: the arrays must not be
                     used afterwards
    target           CPU tier (``sse2``, ``avx2``, ``avx512``), or ``cpu``, the host's best; if left
                     out, the device of the arguments (see :class:`tw.Array`), else ``cpu``.
                     ``cuda`` or ``cuda:1``: a GPU; ``pycuda``: that of PyCUDA's current context.
                     ``sim`` or, for an architecture, ``sim:sm_90a``: PTX for a GPU, run by a
                     simulator
    threads          number of threads; what ``tw.threads`` says if left out
    dynamic          axes whose sizes are not compiled in, by parameter (or by leaf, as in messages:
                     ``params['w']``): ``{axis: name}``, a list of names and None, or text such as
                     ``"batch, _, ..."``. Axes of one name have one size. One compiled function
                     serves all sizes from 2 on; 0 and 1, which broadcast, are compiled as they are.
                     What Python code decides by such a size (``if x.shape[0] > 8``) is decided
                     again, and compiled again, for a size of which it does not hold
    fast_math        functions of f32 (exp, log, tanh, sin, cos, division, square root) may be a
                     GPU's approximations; what the switch ``fast_math`` says if left out. Results
                     of a CPU stay as they are

    The function must give the same operations whenever it is called with the same signature: what
    it reads besides its arguments is read when it is traced, captured arrays included.
    """
    if function is not None and not callable(function):
        raise TraceError(
            "tw.jit takes a function",
            expected="a callable",
            got=f"{type(function).__name__} {function!r}",
            loc=here(),
            hint="options go by name: @tw.jit(static_argnames=...)",
        )
    static = (static_argnames,) if isinstance(static_argnames, str) else tuple(static_argnames)
    donated = (donate_argnames,) if isinstance(donate_argnames, str) else tuple(donate_argnames)
    if function is None:
        return lambda f: Jitted(f, static, donated, target, threads, dynamic, fast_math)
    return Jitted(function, static, donated, target, threads, dynamic, fast_math)


def explain_recompile(function: Jitted) -> str:
    """What changed between the latest signature that was compiled and the nearest earlier one.

    Raises ``TypeError`` for a function that is not jitted.
    """
    if not isinstance(function, Jitted):
        raise TypeError(f"explain_recompile takes a function made by tw.jit, got {function!r}")
    name, history = function.parameters_name, function.history
    if not history:
        return f"{name} has not been compiled yet"
    if len(history) == 1:
        return f"{name} was compiled once, {_place(history[0][1])}; nothing was recompiled"
    latest, loc = history[-1]
    found = [
        (signature.differences(old, latest), number, where)
        for number, (old, where) in enumerate(history[:-1], 1)
    ]
    lines, number, where = min(found, key=lambda item: (*distance(item[0]), -item[1]))
    head = (
        f"{name} was compiled {len(history)} times; the latest, {_place(loc)}, differs from "
        f"number {number}, {_place(where)}, in:"
    )
    return "\n".join([head, *(f"  {line}" for line in lines)])


def distance(lines: Sequence[str]) -> tuple[int, int]:
    """How far two signatures are apart: trees that differ come first, for they hide the rest."""
    return sum(line.startswith("tree structure:") for line in lines), len(lines)


def _place(loc: Location | None) -> str:
    return f"called at {loc}" if loc is not None else "called from nowhere"
