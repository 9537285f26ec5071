"""Objects of the CUDA driver: kernels, modules, events, and whose turn it is."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, Protocol

from tilewright.runtime.gpu.cuda_calls import Calls
from tilewright.runtime.gpu.launching import Arguments


class Owner(Protocol):
    """The driver: its calls, its context, and what it is to destroy."""

    call: Calls
    context: Any
    garbage: list[tuple[str, Any]]


class Owned:
    """An object of the CUDA driver, destroyed by a later call when nothing refers to it."""

    def __init__(self, owner: Owner, handle: Any, destroy: str) -> None:
        self.owner, self.handle, self.destroy = owner, handle, destroy

    def __del__(self) -> None:
        self.owner.garbage.append((self.destroy, self.handle))


class Function:
    """A kernel: its handle, the dynamic shared memory that it may use, room for arguments."""

    def __init__(self, handle: Any, shared: int) -> None:
        self.handle, self.shared = handle, shared
        self.arguments: Arguments | None = None


class Module(Owned):
    """A module of kernels."""

    def __init__(self, owner: Owner, handle: Any) -> None:
        super().__init__(owner, handle, "cuModuleUnload")
        self.functions: dict[str, Function] = {}


class Turn:
    """The lock of a device. Who holds it has the device's context."""

    def __init__(self, owner: Owner) -> None:
        self.owner, self.lock = owner, threading.RLock()

    def __enter__(self) -> None:
        self.lock.acquire()
        try:
            self.owner.call("cuCtxPushCurrent", self.owner.context)
        except BaseException:
            self.lock.release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.owner.call.cu.cuCtxPopCurrent()
        self.lock.release()
