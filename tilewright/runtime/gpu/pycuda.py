"""PyCUDA's current context as a device: its memory, its default stream, its arrays.

PyCUDA has no tensor maps, and no graphs that are released: a graph is replayed call by call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NoReturn

import numpy as np

from tilewright.errors import CompilerBug, DeviceError, OutOfMemory, Unsupported
from tilewright.ptxsim.tensormap import TensorMap
from tilewright.runtime.gpu.cuda_calls import SIMULATE, first_line
from tilewright.runtime.gpu.driver import (
    Argument,
    Bookkeeping,
    Grid,
    Named,
    Properties,
    out_of_memory,
    three,
)
from tilewright.runtime.gpu.launching import Condition

DEFAULT = 0
"""The handle of CUDA's default stream, in which PyCUDA's own arrays are computed."""

TOO_NEW = ("unsupported toolchain", "no kernel image is available")
"""What CUDA says of PTX whose version or architecture the driver does not know."""

OTHER_CONTEXT = "the current context of PyCUDA is another one than when the function was compiled"


class Turn:
    """The lock of a device. Who holds it has the device's context, its own or one lent for now."""

    def __init__(self, driver: PycudaDriver) -> None:
        self.driver, self.lock = driver, threading.RLock()
        self.lent: list[bool] = []

    def __enter__(self) -> None:
        self.lock.acquire()
        try:
            self.driver.condition.check()
            current = self.driver.cu.Context.get_current()
            if current is not None and current != self.driver.context:
                raise DeviceError(
                    OTHER_CONTEXT, hint="jit it again for this context, or push the other one")
            if current is None:
                self.driver.context.push()
            self.lent.append(current is None)
        except BaseException:
            self.lock.release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.lent.pop():
            self.driver.cu.Context.pop()
        self.lock.release()


class PycudaModule:
    """A module of kernels, and those that are prepared for launches."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.functions: dict[str, Any] = {}
        self.shared: dict[str, int] = {}


@dataclass
class Calls:
    """A graph: calls of PyCUDA by the stream that they are for; and those that are launches, by
    their arguments, with their places among them.
    """

    work: list[Callable[[int], None]]
    launches: list[tuple[int, Callable[[tuple[Argument, ...]], Callable[[int], None]]]]


class PycudaDriver(Bookkeeping):
    """A context of PyCUDA, which must be current.

    context  of PyCUDA
    cu       the module ``pycuda.driver``
    """

    def __init__(self, context: Any, cu: Any) -> None:
        from tilewright.codegen.gpu.architectures import ptx_of_driver

        super().__init__()
        self.context, self.cu, self.name, self.exact = context, cu, "pycuda", False
        self.condition = Condition(self.name)
        device, which = context.get_device(), cu.device_attribute
        self.capability: tuple[int, int] = tuple(device.compute_capability())
        self.version: int = cu.get_driver_version()
        self.ptx = ptx_of_driver(self.version)
        self.properties = Properties(
            device.name(), device.get_attribute(which.MULTIPROCESSOR_COUNT), device.total_memory(),
            device.get_attribute(which.L2_CACHE_SIZE),
            device.get_attribute(which.MAX_SHARED_MEMORY_PER_BLOCK),
            device.get_attribute(which.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN))
        self.lock: AbstractContextManager[object] = Turn(self)
        self.stream = DEFAULT
        self._streams: dict[int, Any] = {DEFAULT: None}
        self._memory: dict[int, Any] = {}
        self._graph = Calls([], [])

    @contextmanager
    def use(self, stream: Any) -> Iterator[None]:
        """Let programs run in a stream of PyCUDA (``pycuda.driver.Stream``) in a ``with`` block.

        It begins after the work that was asked for before, and what is asked for after the block
        begins after it.
        """
        with self.lock:
            self.synchronise()
            before, self.stream = self.stream, int(stream.handle)
            self._streams[self.stream] = stream
            try:
                yield
                self.synchronise()
            finally:
                self.stream = before

    # --- calls ---------------------------------------------------------------------------
    def _do(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """The result of one of PyCUDA's functions. Raises the error that its own stands for."""
        self.condition.check()
        try:
            return function(*arguments, **options)
        except self.cu.Error as error:
            self._fail(error)

    def _fail(self, error: Exception) -> NoReturn:
        """After the error of a kernel the context fails whatever it is asked."""
        text = first_line(error)
        if isinstance(error, self.cu.MemoryError):
            raise OutOfMemory(
                f"the memory of {self.name} is used up", got=text,
                hint="end other programs that use the device") from error
        try:
            self.context.synchronize()
        except self.cu.Error as lasting:
            said = first_line(lasting)
            self.condition.lose(said, error, ours="timed out" not in said)
        raise CompilerBug(f"PyCUDA refuses a call: {text}") from error

    def _ask(self, do: Callable[[int], None], stream: int | None) -> None:
        """Ask a stream for work, now or when the graph that is captured is replayed."""
        if self._into_graph(stream):
            self._graph.work.append(do)
        else:
            do(self.stream if stream is None else stream)

    # --- memory --------------------------------------------------------------------------
    def allocate(self, nbytes: int) -> int:
        self._only_now("allocate memory")
        while self._discarded:
            self.free(self._discarded.popleft())
        try:
            memory = self._do(self.cu.mem_alloc, max(nbytes, 1))
        except OutOfMemory as error:
            free, total = self._do(self.cu.mem_get_info)
            raise out_of_memory(self.name, nbytes, free, total) from error.__cause__
        self._memory[int(memory)] = memory
        return int(memory)

    def free(self, address: int) -> None:
        self._only_now("free memory")
        if self.condition.lost is None:
            self.synchronise()
            self._do(self._memory.pop(address).free)

    def write(self, address: int, array: np.ndarray, stream: int | None = None) -> None:
        self._only_now("read arrays of the host")
        if array.nbytes:
            self.synchronise(stream)  # the copy itself is in the order of the default stream
            self._do(self.cu.memcpy_htod, address, array.reshape(-1).view(np.uint8))

    def read(self, address: int, array: np.ndarray, stream: int | None = None) -> None:
        self._only_now("write to arrays of the host")
        self.synchronise(stream)
        if array.nbytes:
            self._do(self.cu.memcpy_dtoh, array.reshape(-1).view(np.uint8), address)

    def copy(self, address: int, source: int, nbytes: int, stream: int | None = None) -> None:
        def do(to: int) -> None:
            self._do(self.cu.memcpy_dtod_async, address, source, nbytes, self._streams[to])

        if nbytes:
            self._ask(do, stream)

    def fill(self, address: int, byte: int, nbytes: int, stream: int | None = None) -> None:
        def do(to: int) -> None:
            self._do(self.cu.memset_d8_async, address, byte, nbytes, self._streams[to])

        if nbytes:
            self._ask(do, stream)

    # --- streams and events --------------------------------------------------------------
    def new_stream(self) -> int:
        stream = self._do(self.cu.Stream)
        self._streams[int(stream.handle)] = stream
        return int(stream.handle)

    def end_stream(self, stream: int) -> None:
        self.synchronise(stream)
        del self._streams[stream]

    def synchronise(self, stream: int | None = None) -> None:
        self._only_now("wait")
        which = self.stream if stream is None else stream
        if which == DEFAULT:
            self._do(self._do(self.cu.Event).record().synchronize)
        else:
            self._do(self._streams[which].synchronize)
        self.condition.launches.take(which)

    def record(self, stream: int | None = None) -> Any:
        self._only_now("record events")
        which = self.stream if stream is None else stream
        return self._do(self._do(self.cu.Event).record, self._streams[which])

    def wait(self, event: Any, stream: int | None = None) -> None:
        self._only_now("wait")
        which = self.stream if stream is None else stream
        if which == DEFAULT:  # PyCUDA has no object for it that could wait
            self._do(event.synchronize)
        else:
            self._do(self._streams[which].wait_for_event, event)

    def reached(self, event: Any) -> bool:
        return bool(self._do(event.query))

    def elapsed(self, start: Any, end: Any) -> float:
        return float(self._do(end.time_since, start))

    # --- kernels -------------------------------------------------------------------------
    def load(self, ptx: str) -> PycudaModule:
        try:
            return PycudaModule(self.cu.module_from_buffer(ptx.encode() + b"\0"))
        except self.cu.Error as error:
            if any(words in str(error) for words in TOO_NEW):
                raise DeviceError(
                    f"the driver of {self.name} is too old for the code", got=first_line(error),
                    hint="install a newer NVIDIA driver") from error
            if "JIT compilation failed" in str(error):
                raise CompilerBug(f"{self.name} does not accept the PTX: {error}") from error
            self._fail(error)

    def launch(
        self, module: PycudaModule, kernel: str, blocks: Grid, threads: Grid,
        arguments: tuple[Argument, ...], shared: int = 0, stream: int | None = None,
        what: Named | None = None,
    ) -> None:
        function = self._function(module, kernel, len(arguments), shared)

        def made(arguments: tuple[Argument, ...]) -> Callable[[int], None]:
            def do(to: int) -> None:
                self.condition.launches.add(to, kernel, what)
                self._do(
                    function.prepared_async_call, three(blocks), three(threads), self._streams[to],
                    *arguments, shared_size=shared)

            return do

        if self._into_graph(stream):
            self._graph.launches.append((len(self._graph.work), made))
        self._ask(made(arguments), stream)

    def _function(self, module: PycudaModule, kernel: str, arguments: int, shared: int) -> Any:
        """A kernel, prepared for so many arguments of 64 bits and so much shared memory."""
        if kernel not in module.functions:
            try:
                found = module.module.get_function(kernel)
            except self.cu.Error as error:
                if "not found" in str(error):
                    raise CompilerBug(f"there is no kernel {kernel} in its module") from error
                self._fail(error)
            module.functions[kernel] = found.prepare("q" * arguments)
            module.shared[kernel] = self.properties.shared
        if shared > module.shared[kernel]:
            attribute = self.cu.function_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES
            self._do(module.functions[kernel].set_attribute, attribute, shared)
            module.shared[kernel] = shared
        return module.functions[kernel]

    def tensor_map(self, tensor: TensorMap) -> bytes:
        raise Unsupported(
            "PyCUDA has no tensor maps", hint="target=\"cuda\" has them: pip install "
            "'tilewright[cuda]'")

    def capture(self, work: Callable[[], None]) -> Calls:
        self._only_now("capture another")
        self._graph, self._capturing = Calls([], []), True
        try:
            work()
        finally:
            self._capturing = False
        return self._graph

    def replay(self, graph: Calls, stream: int | None = None) -> None:
        self._only_now("replay another")
        for do in graph.work:
            do(self.stream if stream is None else stream)

    def update(self, graph: Calls, launch: int, arguments: tuple[Argument, ...]) -> None:
        self._only_now("change another")
        place, made = graph.launches[launch]
        graph.work[place] = made(arguments)


_drivers: dict[int, PycudaDriver] = {}
"""By the handle of the context."""


def pycuda_driver() -> PycudaDriver:
    """The driver of PyCUDA's current context, the same one always for one context.

    Raises ``DeviceError`` if PyCUDA cannot be imported, or this thread has no context.
    """
    try:
        import pycuda.driver as cu
    except ImportError as error:
        raise DeviceError(
            "this needs the package pycuda, which cannot be imported", got=first_line(error),
            hint=f"pip install 'tilewright[pycuda]'; {SIMULATE}") from None
    try:
        context = cu.Context.get_current()
    except cu.Error as error:
        raise DeviceError("PyCUDA does not start", got=first_line(error), hint=SIMULATE) from None
    if context is None:
        raise DeviceError(
            "this thread has no current context of PyCUDA",
            hint="import pycuda.autoinit, or push a context")
    handle = int(context.handle)
    if handle not in _drivers:
        _drivers[handle] = PycudaDriver(context, cu)
    return _drivers[handle]
