"""What a launch needs besides the driver: arguments in memory, and whom messages blame."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np

from tilewright import config
from tilewright.errors import CompilerBug, DeviceError
from tilewright.runtime.gpu.driver import Argument, Named

STRUCTURE = 64
"""The alignment of structures that are passed by value."""

MOST_REMEMBERED = 64
MOST_NAMED = 5
MOST_REPORTED = 2


class Arguments:
    """Room for a kernel's arguments, as cuLaunchKernel takes them: an array of their addresses.

    addresses  where that array is
    """

    def __init__(self, arguments: Sequence[Argument]) -> None:
        layout, offsets, end = "<", [], 0
        for argument in arguments:
            size, grain = (len(argument), STRUCTURE) if isinstance(argument, bytes) else (8, 8)
            start = -(-end // grain) * grain
            layout += f"{start - end}x" + (f"{size}s" if isinstance(argument, bytes) else "q")
            offsets.append(start)
            end = start + size
        self.format = struct.Struct(layout)
        room = np.zeros(end + STRUCTURE, np.uint8)
        skip = -room.ctypes.data % STRUCTURE
        self.bytes = room[skip : skip + end].data
        self.array = np.array(offsets, np.uint64) + np.uint64(room.ctypes.data + skip)
        self.addresses = self.array.ctypes.data

    def fill(self, arguments: Sequence[Argument]) -> None:
        """Put the arguments of a launch in their places."""
        try:
            self.format.pack_into(self.bytes, 0, *arguments)
        except struct.error as error:
            raise CompilerBug(f"a kernel was given arguments of another kind: {error}") from error


@dataclass(frozen=True)
class Launched:
    """A launch: the stream, the entry of the module, and for what."""

    stream: int
    entry: str
    what: Named | None

    def __str__(self) -> str:
        return self.entry if self.what is None else f"{self.what.name}, {self.what.loc}"


def reports(whats: Iterable[Named | None], error: Exception) -> list[str]:
    """What is to be said of the programs of these kernels, each once; of a few of them."""
    found = [getattr(what, "report", None) for what in whats]
    distinct = [report for report in dict.fromkeys(found) if report is not None]
    return [line for report in distinct[:MOST_REPORTED] for line in report(error)]


class Launches:
    """The newest launches that nobody waited for yet."""

    def __init__(self) -> None:
        self.recent: deque[Launched] = deque(maxlen=MOST_REMEMBERED)

    def add(self, stream: int, entry: str, what: Named | None) -> None:
        """Note a launch."""
        self.recent.append(Launched(stream, entry, what))

    def again(self, stream: int, graph: Sequence[Launched]) -> None:
        """Note the launches of a graph."""
        self.recent.extend(replace(launch, stream=stream) for launch in graph)

    def take(self, stream: int) -> tuple[Launched, ...]:
        """Those of a stream, which are noted no longer."""
        taken = tuple(launch for launch in self.recent if launch.stream == stream)
        if taken:
            left = [launch for launch in self.recent if launch.stream != stream]
            self.recent = deque(left, MOST_REMEMBERED)
        return taken

    def suspects(self, last: bool = False) -> list[str]:
        """Lines that name the kernels that may have failed, the newest first.

        last  the host waits for every launch, so that it is the last one
        """
        recent = list(self.recent)[-1:] if last else self.recent
        names = list(dict.fromkeys(str(launch) for launch in reversed(recent)))
        if len(names) == 1:
            return [f"  kernel:   {names[0]}"]
        lines = [f"            {name}" for name in names[:MOST_NAMED]]
        if lines:
            lines.insert(0, "  kernels:  one of these, the last launched first:")
        if len(names) > MOST_NAMED:
            lines.append(f"            and {len(names) - MOST_NAMED} before them")
        return lines


class Condition:
    """Whether this process can use a device, and what may be to blame if not.

    launches  the newest that nobody waited for
    lost      what ended the use of the device, if something did
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.launches = Launches()
        self.lost: str | None = None

    def check(self) -> None:
        """Raise ``DeviceError`` if the device is lost."""
        if self.lost is not None:
            raise DeviceError(
                f"this process cannot use {self.device} any more", got=self.lost,
                hint="an error before this one says why; start a new process")

    def lose(self, text: str, cause: Exception, ours: bool = True) -> NoReturn:
        """Note that the device is lost, and raise what made it so.

        text  what CUDA says
        ours  whether a kernel's code is to blame, if one was under way
        """
        self.lost = text
        waits = config.cuda_waits()
        lines = self.launches.suspects(last=waits)
        suspects = list(self.launches.recent)[-1 if waits else 0:]
        hint = f"this process cannot use {self.device} any more"
        if len(lines) > 1:
            hint += "; with CUDA_LAUNCH_BLOCKING=1 in the environment the error names the kernel"
        if not lines:
            raise DeviceError(f"{self.device} failed: {text}", hint=hint) from cause
        what = "\n".join([f"a kernel failed on {self.device}: {text}", *lines])
        if not ours:
            raise DeviceError(what, hint=hint) from cause
        more = reports((launch.what for launch in reversed(suspects)), cause)
        raise CompilerBug("\n".join([f"{what}\n  hint:     {hint}", *more])) from cause
