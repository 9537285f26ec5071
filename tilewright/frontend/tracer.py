"""The values that record what is done with them, and the traces that they belong to.

A :class:`Trace` is one run of a user function. Traces nest (a gradient inside a jitted function);
operations of the inner one may read values of the outer one, which then stand in the inner graph as
nodes that do not depend on the inner graph's inputs. There is one kind of :class:`Tracer`: a graph
node, the trace it belongs to, and whether it is weakly typed.

What the operations do stands in the tables :data:`FUNCTIONS` and :data:`HOOKS`, which the modules
of :mod:`tilewright.frontend.api` fill.
"""

from __future__ import annotations

import dis
import operator
import os
import re
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np

from tilewright.errors import Location, TraceError
from tilewright.frontend.location import here, here_outside, user_frame
from tilewright.ir.graph import OPS, InputAttrs, Node
from tilewright.ir.sizes import Dim
from tilewright.ir.types import TensorType

Function = Callable[..., Any]

FUNCTIONS: dict[Any, Function] = {}
"""What a NumPy function does to traced values: NumPy's function -> ours, with its parameters."""

USER_SIZES: list[Callable[[Dim], Dim]] = []
"""What a named size becomes in a user's hands."""

HOOKS: dict[str, Function] = {}
"""'ufunc': (ufunc, method, inputs, kwargs); 'get': (value, index); 'assign': (target, value)."""


class Trace:
    """One run of a user function on recorded values; ``level`` counts the traces around it."""

    def __init__(self, name: str, level: int) -> None:
        self.name = re.sub(r"\W+", "_", name).strip("_") or "graph"
        self.level = level
        self.alive = True
        self.inputs: list[Node] = []
        self.paths: dict[Node, str] = {}
        self._names: set[str] = set()
        self.refusal: TraceError | None = None
        """The latest refusal, for the case that NumPy puts an error of its own in its place."""

    def add_input(self, path: str, type: TensorType, loc: Location | None) -> Node:
        """A fresh input, made without interning: no node that depends on it is another trace's."""
        plain = re.sub(r"\W+", "_", path).strip("_") or "x"
        name, number = plain, 1
        while name in self._names:
            name, number = f"{plain}_{number}", number + 1
        self._names.add(name)
        node = Node(OPS["input"], (), InputAttrs(name, self.level), type, loc)
        self.inputs.append(node)
        self.paths[node] = path
        return node


class _Stack(threading.local):
    def __init__(self) -> None:
        self.traces: list[Trace] = []


_stack = _Stack()


def current() -> Trace | None:
    """The innermost trace that is running on this thread."""
    return _stack.traces[-1] if _stack.traces else None


@contextmanager
def running(name: str) -> Iterator[Trace]:
    """A new innermost trace; it is dead afterwards, and so are the values that belong to it."""
    trace = Trace(name, len(_stack.traces))
    _stack.traces.append(trace)
    try:
        yield trace
    finally:
        _stack.traces.pop()
        trace.alive = False


def refuse(what: str, hint: str, **more: Any) -> NoReturn:
    """Raise the ``TraceError`` of something that cannot be traced."""
    error = TraceError(what, hint=hint, **{"loc": here(), **more})
    trace = current()
    if trace is not None:
        trace.refusal = error
    raise error


def refuse_pytorch(what: str) -> NoReturn:
    """Raise for a function or tensor of PyTorch that meets a traced value."""
    refuse(f"{what} cannot be traced",
           "write it with NumPy's functions, and pass tensors as arguments of the function",
           loc=here_outside(os.path.dirname(getattr(sys.modules.get("torch"), "__file__", ""))))


def describe(node: Node) -> str:
    """A value in a message: its type, and which argument it is if it is one."""
    for trace in reversed(_stack.traces):
        if node in trace.paths:
            return f"{node.type} (argument {trace.paths[node]})"
    return str(node.type)


def implements(*numpy_functions: Any, view: bool = False) -> Callable[[Function], Function]:
    """Enter a function into :data:`FUNCTIONS`; the result of a ``view`` shares memory."""

    def enter(function: Function) -> Function:
        entry = _sharing(function) if view else function
        for numpy_function in numpy_functions:
            FUNCTIONS[numpy_function] = entry
        return function

    return enter


def _sharing(function: Function) -> Function:
    def run(base: Any, *args: Any, **kwargs: Any) -> Any:
        result = function(base, *args, **kwargs)
        if isinstance(base, Tracer):
            share(base, result)
        return result

    return run


def share(base: Tracer, result: Any) -> None:
    """Note that ``result`` (a traced value, or a list of them) is a view of ``base``'s memory."""
    for view in result if isinstance(result, (list, tuple)) else (result,):
        if base.memory is None:
            base.memory = [weakref.ref(base)]
        base.memory.append(weakref.ref(view))
        view.memory = base.memory


def call(numpy_function: Any, *args: Any, **kwargs: Any) -> Any:
    """Our implementation of a NumPy function or ufunc."""
    if isinstance(numpy_function, np.ufunc):
        return HOOKS["ufunc"](numpy_function, "__call__", args, kwargs)
    return FUNCTIONS[numpy_function](*args, **kwargs)


IN_PLACE = {
    "sort": "use the sorted copy that np.sort(x) gives",
    "partition": "use the partitioned copy that np.partition(x, kth) gives",
    "fill": "use np.full_like(x, value)",
    "put": "use y = x.at[places].set(values)",
    "itemset": "use y = x.at[place].set(value)",
}
"""Methods that change an array, and what to use instead."""

UNSIZED = ("nonzero", "flatnonzero", "argwhere", "extract", "compress", "unique", "union1d",
           "intersect1d", "setdiff1d", "setxor1d", "unique_values", "unique_counts", "trim_zeros")
"""Functions of NumPy whose results have a size that depends on the data."""


class Tracer:
    """A traced array: it has a shape and a dtype, and every operation on it makes a graph node.

    scope   the trace that it belongs to
    weak    a Python number, whose type follows its partner's (as in NumPy 2)
    memory  the traced values that NumPy would let share this one's memory, if there are any
    """

    __slots__ = ("node", "scope", "weak", "memory", "__weakref__")
    __array_priority__ = 1000.0
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, node: Node, trace: Trace, weak: bool = False) -> None:
        self.node, self.scope, self.weak = node, trace, weak
        self.memory: list[weakref.ref[Tracer]] | None = None

    # --- what is known ------------------------------------------------------------------
    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the axes."""
        shape = self.node.type.shape
        for d in shape:
            if type(d) is not int:
                return tuple(map(USER_SIZES[0], shape))  # type: ignore[arg-type]
        return shape  # type: ignore[return-value]

    @property
    def dtype(self) -> np.dtype:
        """The NumPy dtype."""
        return self.node.type.dtype.numpy

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.node.type.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return USER_SIZES[0](self.node.type.size)  # type: ignore[return-value]

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self.node.type.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return USER_SIZES[0](self.node.type.nbytes)  # type: ignore[return-value]

    def __len__(self) -> int:
        if not self.shape:
            refuse("len() of a traced 0-d array", "use x.size", got=describe(self.node))
        return operator.index(self.shape[0])

    def __repr__(self) -> str:
        return f"Traced<{self.node.type}>"

    def __format__(self, spec: str) -> str:
        if spec:
            refuse(
                f"a traced value has no digits to format with {spec!r}",
                "return it from the jitted function and print it outside",
                got=describe(self.node),
            )
        return repr(self)

    # --- what is done with it -------------------------------------------------------------
    @property
    def T(self) -> Any:  # noqa: N802 - NumPy's name
        """The array with its axes in reverse order."""
        return call(np.transpose, self)

    @property
    def mT(self) -> Any:  # noqa: N802 - NumPy's name
        """The array with its last two axes swapped."""
        return call(np.matrix_transpose, self)

    @property
    def real(self) -> Tracer:
        """The array itself: there are no complex types."""
        return self

    @property
    def at(self) -> Any:
        """``x.at[index].set(v)``, ``.add``, ``.multiply``, ``.max``, ``.min``: changed copies."""
        return HOOKS["at"](self)

    def reshape(self, *shape: Any, order: str = "C") -> Any:
        """``np.reshape``; the shape as one tuple or as several numbers."""
        return call(np.reshape, self, shape[0] if len(shape) == 1 else shape, order=order)

    def transpose(self, *axes: Any) -> Any:
        """``np.transpose``; the axes as one tuple, as several numbers, or none to reverse them."""
        return call(np.transpose, self, axes[0] if len(axes) == 1 else (axes or None))

    def astype(self, dtype: Any, order: str = "K", casting: str = "unsafe", **_: Any) -> Any:
        """The array with its elements converted."""
        return call(np.astype, self, dtype)

    def flatten(self, order: str = "C") -> Any:
        """A copy with one axis."""
        return call(np.copy, call(np.ravel, self, order=order))

    def __getitem__(self, index: Any) -> Any:
        return HOOKS["get"](self, index)

    def __iter__(self) -> Iterator[Any]:
        if not self.shape:
            refuse(
                "iteration over a traced 0-d array",
                "its contents are not known while it is traced; iterate over a Python sequence, "
                "or make the argument static with static_argnames",
                got=describe(self.node),
            )
        return (self[i] for i in range(self.shape[0]))

    def __copy__(self) -> Any:
        return call(np.copy, self)

    def __deepcopy__(self, memo: Any) -> Any:
        return call(np.copy, self)

    # --- NumPy's protocols ----------------------------------------------------------------
    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return HOOKS["ufunc"](ufunc, method, inputs, kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        found = FUNCTIONS.get(function)
        if found is None:
            name = f"{function.__module__}.{function.__name__}".replace("numpy.", "np.")
            if function.__name__ in UNSIZED:
                refuse(
                    f"the NumPy function {name} cannot be traced",
                    "its result has no fixed size: count with np.count_nonzero, or choose with "
                    "np.where",
                )
            refuse(
                f"the NumPy function {name} cannot be traced",
                "write it with functions that can (see dir(tw.numpy)), or call it outside "
                "the jitted function and pass the result in",
            )
        return found(*args, **kwargs)

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        refuse_pytorch(f"PyTorch's {function.__name__.strip('_')}")

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        _refuse_storing(self)
        refuse(
            "a traced value cannot become a NumPy array: its contents are not known yet",
            "use functions that dispatch (np.stack, np.where, ...) or tw.numpy.asarray",
            got=describe(self.node),
        )

    # --- what would need the contents -----------------------------------------------------
    def __bool__(self) -> bool:
        refuse(
            "the truth of a traced value is not known while it is traced",
            "instead of Python's if, while, and, or, not use np.where and np.logical_and, or make "
            "the argument static with static_argnames",
            got=describe(self.node),
        )

    def __float__(self) -> float:
        _refuse_storing(self)
        refuse(
            "float() of a traced value: its contents are not known while it is traced",
            "use x.astype(float), or call float() on the result outside the jitted function",
            got=describe(self.node),
        )

    def __int__(self) -> int:
        _refuse_storing(self)
        refuse(
            "int() of a traced value: its contents are not known while it is traced",
            "use x.astype(int), or make the argument static with static_argnames",
            got=describe(self.node),
        )

    def __round__(self, digits: int | None = None) -> Any:
        refuse(
            "round() of a traced value: its contents are not known while it is traced",
            "use np.round(x), which gives an array",
            got=describe(self.node),
        )

    def __complex__(self) -> complex:
        refuse(
            "complex() of a traced value: its contents are not known while it is traced",
            "complex numbers are not supported",
            got=describe(self.node),
        )

    def __index__(self) -> int:
        refuse(
            "a traced value cannot be used as a Python index, size or range",
            "sizes must be known while tracing: use x.shape, or make the argument static with "
            "static_argnames",
            got=describe(self.node),
        )

    def item(self, *index: Any) -> Any:
        """Raises ``TraceError``: the contents are not known."""
        refuse(
            ".item() of a traced value: its contents are not known while it is traced",
            "call it on the result outside the jitted function",
            got=describe(self.node),
        )

    def __setitem__(self, index: Any, value: Any) -> None:
        refuse(
            "in-place assignment to a traced array",
            "use y = x.at[index].set(value) or x.at[index].add(value), or np.where",
            got=describe(self.node),
        )

    def __getattr__(self, name: str) -> Any:
        if name in IN_PLACE:
            refuse(
                f"the array method .{name}, which works in place, cannot be traced",
                IN_PLACE[name],
                got=describe(self.node),
            )
        if not name.startswith("_") and hasattr(np.ndarray, name):
            refuse(
                f"the array method or attribute .{name} cannot be traced",
                "write it with functions that can (see dir(tw.numpy))",
                got=describe(self.node),
            )
        raise AttributeError(f"a traced array has no attribute {name!r}")


def _refuse_storing(value: Tracer) -> None:
    """Raise if the user's line is assigning ``value`` to an item of a NumPy array."""
    frame = user_frame()
    if frame is None or frame.f_lasti < 0:
        return
    if dis.opname[frame.f_code.co_code[frame.f_lasti]] in ("STORE_SUBSCR", "STORE_SLICE"):
        refuse(
            "in-place assignment of a traced value to a NumPy array",
            "a traced function cannot change an array in place: build the result with "
            "np.where, np.concatenate, np.stack or x.at[index].set(value)",
            got=describe(value.node),
        )
