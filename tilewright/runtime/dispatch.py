"""The native call: a CPython builtin that goes from arguments to result without a Python frame.

All builtins share the C function ``tw_call``. This file writes the words that tell it what to do
for one signature: how the arguments must look, what memory to make, what to run, what to return.
"""

from __future__ import annotations

import ctypes
import functools
import types
from collections.abc import Callable
from typing import Any, Protocol

import ml_dtypes
import numpy as np

from tilewright.compiler.plan import Plan
from tilewright.ir.types import TensorType, as_number, concrete
from tilewright.runtime import layout as interpreter
from tilewright.runtime.native_call import TREES
from tilewright.runtime.native_match import (
    API,
    API_FUNCTIONS,
    API_NUMPY,
    CODES,
    FRAME_WORDS,
    KINDS,
)
from tilewright.runtime.native_prepare import CALL
from tilewright.runtime.pool import address_of, pool
from tilewright.runtime.results import Layout
from tilewright.runtime.spec import (
    Arguments,
    Attributes,
    Build,
    Dict,
    Leaf,
    List,
    Static,
    Tree,
    Tuple,
    leaves,
)
from tilewright.runtime.support import support, words
from tilewright.runtime.threads import team, threads_now
from tilewright.runtime.work import Work

READABLE, WRITABLE = 0x101, 0x501
"""NumPy's flags for C-contiguous and aligned, and for writeable as well."""

MOST_ENTRIES = 1 << 16


class Runnable(Protocol):
    """What a native call needs of an executable."""

    plan: Plan
    native: Any
    layout: Layout
    work: Work
    arena: int
    stride: int
    constants: list[np.ndarray]

    def fail(self, code: int) -> None:
        """Raise the error of this code."""


class _Words(np.ndarray):
    """The ``self`` of a builtin: words that its code reads, and the objects that these point to."""

    kept: list[Any]


def fast_call(
    executable: Runnable, arguments: Arguments, result: Tree, slow: Callable[..., Any]
) -> Callable[..., Any]:
    """See :func:`tilewright.runtime.executable.make_fast_call`."""
    if not interpreter.known() or executable.layout.entries > MOST_ENTRIES:
        return slow
    trees = [*arguments.positional, *(tree for _, tree in arguments.named)]
    found = sorted(leaf.index for tree in trees for leaf in leaves(tree))
    if found != list(range(len(executable.plan.inputs))):
        raise ValueError(f"the arguments hold the inputs {found}, each must stand there once")
    writer = _Writer(executable)
    try:
        for tree in trees:
            writer.match(tree)
        writer.build(result)
    except _NotNative:
        return slow
    return _builtin(_describe(executable, arguments, slow, writer))


class Chain:
    """The native calls of one function, one per signature; the latest is tried first.

    ``call`` is what to call: it ends in ``slow`` when no signature matches.
    """

    most = 8

    def __init__(self, slow: Callable[..., Any]) -> None:
        self.slow = slow
        self.call = slow
        self._made: list[tuple[Runnable, Arguments, Tree]] = []

    def add(self, executable: Runnable, arguments: Arguments, result: Tree) -> None:
        """Put a signature in front; the one that was added first leaves when there are too many."""
        self._made.append((executable, arguments, result))
        del self._made[:-self.most]
        call = self.slow
        for made in self._made:
            call = fast_call(*made, call)
        self.call = call


class _NotNative(Exception):
    """This tree cannot be matched or built natively."""


class _Writer:
    """Writes trees as words; ``kept`` are the objects whose addresses stand in them."""

    def __init__(self, executable: Runnable) -> None:
        self.executable = executable
        self.nodes: list[int] = []
        self.tree: list[int] = []
        self.kept: list[Any] = []
        self.holds = len(executable.plan.inputs)

    def address(self, value: Any) -> int:
        """An object's address; the object stays alive as long as the words."""
        self.kept.append(value)
        return id(value)

    def match(self, tree: Tree) -> None:
        """Append the nodes that an argument is compared with."""
        write, address = self.nodes.extend, self.address
        if isinstance(tree, Leaf):
            write(self._leaf(tree))
        elif isinstance(tree, Tuple):
            write((KINDS["tuple"], len(tree.children), address(tree.type)))
        elif isinstance(tree, List):
            write((KINDS["list"], len(tree.children), address(list)))
        elif isinstance(tree, Dict):
            write((KINDS["dict"], len(tree.children), address(tree.type)))
        elif isinstance(tree, Attributes):
            write((KINDS["attributes"], len(tree.children), address(tree.type)))
            self.holds += len(tree.children)
        elif isinstance(tree, Static):
            kind = "equal" if _compares_exactly(tree.value) else "same"
            write((KINDS[kind], 0, address(tree.value)))
        else:
            raise _NotNative
        self._children(tree, self.nodes, self.match)

    def build(self, tree: Tree) -> None:
        """Append the nodes of a result."""
        write, address = self.tree.extend, self.address
        if isinstance(tree, Leaf):
            source = self.executable.layout.sources[tree.index]
            write((TREES["input" if source.kind == "input" else "result"], source.index, 0))
        elif isinstance(tree, Build):
            write((TREES["build"], len(tree.children), address(_direct(tree.function))))
        elif isinstance(tree, Tuple) and tree.type is tuple:
            write((TREES["tuple"], len(tree.children), 0))
        elif isinstance(tree, List):
            write((TREES["list"], len(tree.children), 0))
        elif isinstance(tree, Dict) and tree.type is dict:
            write((TREES["dict"], len(tree.children), 0))
        elif isinstance(tree, Static):
            write((TREES["object"], 0, address(tree.value)))
        else:
            raise _NotNative
        self._children(tree, self.tree, self.build)

    def _children(self, tree: Tree, target: list[int], visit: Callable[[Tree], None]) -> None:
        if isinstance(tree, (Leaf, Static)):
            return
        names: tuple[Any, ...] = ()
        if isinstance(tree, Dict):
            names = tree.keys
        elif isinstance(tree, Attributes):
            names = tree.names
        for i, child in enumerate(tree.children):
            if names:
                target.append(self.address(names[i]))
            visit(child)

    def _leaf(self, leaf: Leaf) -> tuple[int, ...]:
        expected: TensorType = self.executable.plan.inputs[leaf.index]
        donated = leaf.index in self.executable.layout.donated
        shape, dtype = concrete(expected.shape), expected.dtype
        if leaf.form == "array":
            return (KINDS["array"], len(shape), self.address(dtype.numpy), leaf.index,
                    WRITABLE if donated else READABLE, *shape)
        types = {"float": float, "int": int, "bool": bool, "number": dtype.numpy.type}
        code = CODES.get(dtype.name, 0)
        kinds = {"float": "f", "int": "i", "bool": "b", "number": dtype.kind}
        fits = dtype.kind == kinds[leaf.form] and (dtype.kind == "b" or dtype.name in CODES)
        if leaf.form == "number":
            fits = dtype.numpy.type is not ml_dtypes.bfloat16
        if donated or shape or not fits:
            raise _NotNative
        return (KINDS[leaf.form], code, self.address(types[leaf.form]), leaf.index)


def _direct(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function in a form whose vectorcall pointer can be called: a Python function or ours."""
    if isinstance(function, (types.FunctionType, types.MethodType)):
        return function
    if isinstance(getattr(function, "__self__", None), _Words):
        return function
    return lambda *args, **kwargs: function(*args, **kwargs)


def _compares_exactly(value: Any) -> bool:
    """Whether an object of the same type that equals this one cannot be told from it."""
    return type(value) in (str, bytes, int) or (type(value) is float and value not in (0.0, -0.0))


def _describe(
    executable: Runnable, arguments: Arguments, slow: Callable[..., Any], writer: _Writer
) -> _Words:
    """All words of one call, in one array that owns what they point to."""
    layout, plan, work = executable.layout, executable.plan, executable.work
    inputs, made = len(plan.inputs), len(layout.fresh)
    template = [0] * layout.entries
    for i, constant in enumerate(executable.constants):
        template[layout.constants_at + i] = address_of(constant)
    template[layout.arena + 1:layout.arena + 1 + len(plan.words)] = plan.words
    names = [writer.address(name) for name, _ in arguments.named]
    results = [
        word for f in layout.fresh
        for word in (f.entry, f.bytes, writer.address(f.dtype), len(f.shape), *f.shape)
    ]
    donated = layout.donated
    parts = {
        "NODES": writer.nodes, "TREE": writer.tree, "TEMPLATE": template, "NAMES": names,
        "RESULT": results, "COPY": [word for copy in layout.copies for word in copy],
        "ORDER": list(range(inputs)) if donated else [],
        "RANGES": [2 * as_number(t.nbytes) + (i in donated) for i, t in enumerate(plan.inputs)],
    }
    leaves_at = FRAME_WORDS + layout.entries
    held_at = leaves_at + 2 * inputs + made
    plain = {
        "API": _api().ctypes.data, "TEAM": team().address, "POOL": pool().address,
        "SLOW": writer.address(_direct(slow)), "FAIL": writer.address(_direct(executable.fail)),
        "THREADS_NOW": writer.address(threads_now),
        "POSITIONAL": len(arguments.positional), "KEYWORDS": len(names),
        "CODE": executable.native.address, "ENTRIES": layout.entries, "INPUTS": inputs,
        "RESULTS": made, "COPIES": len(layout.copies), "ARENA": layout.arena,
        "ARENA_BYTES": executable.arena, "STRIDE": executable.stride, "MODE": work.mode,
        "MOST": work.most_threads, "BYTES": 8 * (held_at + writer.holds),
        "LEAVES_AT": leaves_at, "NUMBERS_AT": leaves_at + inputs,
        "OBJECTS_AT": leaves_at + 2 * inputs, "HELD_AT": held_at,
    }
    block = words(len(CALL) + sum(map(len, parts.values()))).view(_Words)
    block.kept = [executable, arguments, *writer.kept]
    for name, value in plain.items():
        block[CALL[name]] = value
    at = len(CALL)
    for name, part in parts.items():
        block[at:at + len(part)] = part
        block[CALL[name]] = block.ctypes.data + 8 * at if part else 0
        at += len(part)
    return block


@functools.cache
def _api() -> np.ndarray:
    """The block of C functions and objects that the machine code uses."""
    block = words(len(API))
    for name in API_FUNCTIONS:
        function = getattr(ctypes.pythonapi, name)
        block[API[name]] = ctypes.cast(function, ctypes.c_void_p).value
    # A prototype of our own: the attributes of pythonapi's functions are everybody's.
    unwrap = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi)
    )
    table = unwrap(np._core._multiarray_umath._ARRAY_API, None)  # type: ignore[attr-defined]
    for name, place in API_NUMPY.items():
        block[API[name]] = interpreter.word(table, place)
    block[API["NDARRAY"]] = id(np.ndarray)
    block[API["TUPLE_ITEMS"]] = tuple.__basicsize__ // 8
    block[API["TRUE"]], block[API["FALSE"]] = id(True), id(False)
    return block


class _MethodDef(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


FASTCALL_WITH_KEYWORDS = 0x80 | 0x2


@functools.cache
def _method() -> _MethodDef:
    return _MethodDef(
        b"compiled", support().call_address, FASTCALL_WITH_KEYWORDS,
        b"A function compiled by tilewright.",
    )


def _builtin(block: _Words) -> Callable[..., Any]:
    pointer = ctypes.c_void_p
    new = ctypes.PYFUNCTYPE(ctypes.py_object, pointer, ctypes.py_object, pointer, pointer)(
        ("PyCMethod_New", ctypes.pythonapi)
    )
    made: Callable[..., Any] = new(ctypes.addressof(_method()), block, None, None)
    return made
