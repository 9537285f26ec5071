"""A device with what is kept for it: memory, modules, numbers, calls under way; arrays on it."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from tilewright.cache import key_of
from tilewright.runtime.gpu.driver import Driver
from tilewright.runtime.gpu.ledger import Ledger, Ticket
from tilewright.runtime.gpu.memory import Block, DeviceMemory

MOST_NUMBERS = 256
IN_TURN = (None, 0, 1)
"""CUDA's default stream by its names: the driver's own stream takes turns with it unasked."""


class _Visits(threading.local):
    """Who makes the memory of results on this thread."""

    make: Callable[[np.dtype, tuple[int, ...]], Borrowed] | None = None


class Resident:
    """A C-contiguous array on a device.

    memory   its memory, which lives as long as somebody holds it; has an ``address``
    tickets  the calls that it comes from, as far as it is not known how they ended
    """

    __slots__ = ("device", "memory", "dtype", "shape", "tickets")

    def __init__(
        self, device: Device, memory: Any, dtype: np.dtype, shape: tuple[int, ...],
        tickets: frozenset[Ticket] = frozenset(),
    ) -> None:
        self.device, self.memory, self.dtype, self.shape = device, memory, dtype, shape
        self.tickets = tickets

    @property
    def address(self) -> int:
        address: int = self.memory.address
        return address

    @property
    def nbytes(self) -> int:
        return bytes_of(self.dtype, self.shape)

    def read(self) -> np.ndarray:
        """A copy, once all calls that it comes from are over.

        Raises the error of a check that failed in one of them, and ``CompilerBug`` for a kernel
        that went wrong.
        """
        array = np.empty(self.shape, self.dtype)
        with self.device.driver.lock:
            self.device.check(self.tickets)
            self.device.driver.read(self.address, array)
        return array

    def moved(self, device: Device) -> Resident:
        """The array on a device: itself, or a copy."""
        return self if device is self.device else device.place(self.read())


class Borrowed:
    """Memory of another package: ``owner`` is its array, which keeps it alive."""

    __slots__ = ("address", "owner")

    def __init__(self, address: int, owner: Any) -> None:
        self.address, self.owner = address, owner


class Adopted(Borrowed):
    """The same, for work that its package does not wait for: the owner lives until it is done."""

    __slots__ = ("device",)

    def __init__(self, device: Device, address: int, owner: Any) -> None:
        super().__init__(address, owner)
        self.device = device

    def __del__(self) -> None:
        self.device.retired.append(self.owner)


class Device:
    """A driver and what is kept for it. Whoever calls a method must hold ``driver.lock``."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.memory = DeviceMemory(driver)
        self.ledger = Ledger(self.memory)
        self._modules: WeakValueDictionary[str, Any] = WeakValueDictionary()
        self._numbers: OrderedDict[tuple[str, bytes], Resident] = OrderedDict()
        self._visits = _Visits()
        # Owners whose memory is not needed any more, noted on any thread; then, in the order of the
        # work, those whose memory is free when an event is reached.
        self.retired: deque[Any] = deque()
        self._leaving: deque[tuple[Any, list[Any]]] = deque()

    @property
    def name(self) -> str:
        return self.driver.name

    def __repr__(self) -> str:
        return f"<device {self.name}>"

    # --- arrays -------------------------------------------------------------------------------
    def fresh(self, dtype: np.dtype, shape: tuple[int, ...]) -> Resident:
        """An array, contents undefined. Raises ``OutOfMemory``."""
        return Resident(self, self.memory.take(bytes_of(dtype, shape)), dtype, shape)

    def result(self, dtype: np.dtype, shape: tuple[int, ...]) -> Resident:
        """An array for a result: the visitor's, if there is one. Raises ``OutOfMemory``."""
        make = self._visits.make
        if make is None:
            return self.fresh(dtype, shape)
        return Resident(self, make(dtype, shape), dtype, shape)

    def place(self, array: np.ndarray, result: bool = False) -> Resident:
        """A copy of an array, for a result if it may become one. Raises ``OutOfMemory``."""
        with self.driver.lock:
            made = (self.result if result else self.fresh)(array.dtype, array.shape)
            self.driver.write(made.address, np.ascontiguousarray(array))
        return made

    def number(self, array: np.ndarray) -> Resident:
        """An array on the device that nobody changes; a 0-d one is copied once and kept."""
        if array.ndim:
            return self.place(array)
        key = (array.dtype.str, array.tobytes())
        found = self._numbers.get(key)
        if found is None:
            found = self._numbers[key] = self.place(array)
            if len(self._numbers) > MOST_NUMBERS:
                self._numbers.popitem(last=False)
        else:
            self._numbers.move_to_end(key)
        return found

    def copy(self, source: Resident) -> Resident:
        """A copy on the same device, which may become a result."""
        made = self.result(source.dtype, source.shape)
        self.driver.copy(made.address, source.address, source.nbytes)
        made.tickets = source.tickets
        return made

    # --- other packages -----------------------------------------------------------------------
    @contextmanager
    def visit(
        self, stream: int | None, make: Callable[[np.dtype, tuple[int, ...]], Borrowed]
    ) -> Iterator[None]:
        """Calls of this thread are work of another package's stream, and ``make`` gives the memory
        of their results.
        """
        before, self._visits.make = self._visits.make, make
        try:
            with self.driver.lock:
                self.follow(stream)
            yield
        finally:
            self._visits.make = before
            with self.driver.lock:
                self.lead(stream)

    def follow(self, stream: int | None) -> None:
        """What is asked for from here on waits for the work of a foreign stream so far."""
        if stream not in IN_TURN:
            self.driver.wait(self.driver.record(stream))

    def lead(self, stream: int | None) -> None:
        """What a foreign stream is asked for from here on waits for our work so far."""
        if stream not in IN_TURN:
            self.driver.wait(self.driver.record(), stream)

    def let_go(self) -> None:
        """Forget foreign arrays that no work needs any more."""
        if self.retired:
            owners = [self.retired.popleft() for _ in range(len(self.retired))]
            self._leaving.append((self.driver.record(), owners))
        while self._leaving and self.driver.reached(self._leaving[0][0]):
            self._leaving.popleft()

    # --- programs -----------------------------------------------------------------------------
    def module(self, text: str) -> Any:
        """The module of a PTX text, which those who hold it share."""
        key = key_of(text)
        found = self._modules.get(key)
        if found is None:
            found = self._modules[key] = self.driver.load(text)
        return found

    def check(self, tickets: Iterable[Ticket]) -> None:
        """Wait for calls; raise the error of a check that failed in one of them."""
        for ticket in tickets:
            ticket.check()


def bytes_of(dtype: np.dtype, shape: tuple[int, ...]) -> int:
    """Bytes of an array."""
    count = dtype.itemsize
    for size in shape:
        count *= size
    return count


def device_of(driver: Driver) -> Device:
    """The device of a driver, the same one always."""
    with driver.lock:
        kept = vars(driver)
        found = kept.get("device")
        if found is None:
            found = kept["device"] = Device(driver)
    assert isinstance(found, Device)
    return found


__all__ = ["Adopted", "Block", "Borrowed", "Device", "Resident", "bytes_of", "device_of"]
