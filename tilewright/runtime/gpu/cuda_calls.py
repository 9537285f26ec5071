"""Calls of the CUDA driver by way of cuda-bindings, and what its result codes stand for.

The codes are those of ``CUresult`` in the CUDA driver API, "Data types used by CUDA driver".
"""

from __future__ import annotations

from typing import Any, NoReturn

from tilewright.errors import CompilerBug, DeviceError, OutOfMemory
from tilewright.runtime.gpu.launching import Condition

NO_DEVICE = 100
OUT_OF_MEMORY = 2
NOT_FOUND = 500
NOT_READY = 600
TIMEOUT = 702

FATAL = frozenset({
    214, 220, 700, TIMEOUT, 709, 710, 714, 715, 716, 717, 718, 719, 721, 810, 911,
})
"""After one of these the process can do nothing more on the device: errors of memory hardware and
links, addresses and instructions that are illegal, traps, kernels that took too long.
"""

NOT_OURS = frozenset({214, 220, TIMEOUT, 709, 810, 911})
"""Of them those that no kernel's code is to blame for."""

OURS = frozenset({1, 201, 400, NOT_FOUND, 701, *range(900, 910)})
"""Values, handles and contexts that are invalid, what is not found, launches that ask for too much,
and work that cannot be captured: the driver was called wrongly.
"""

GONE = frozenset({3, 4})
"""CUDA is not initialised, or is shut down."""

FORKED = "CUDA does not outlive a fork: start processes by spawn, or use it in those alone"

PTX_TOO_NEW = frozenset({209, 222})
"""The driver does not know the version of the PTX, or its architecture."""

PTX_WRONG = frozenset({200, 218, 300})
"""The driver does not accept the PTX."""

SIMULATE = "target=\"sim\" runs the same code without a GPU"


class Refused(Exception):
    """A call of the CUDA driver failed.

    call  the function
    code  its result
    text  what CUDA says of that
    """

    def __init__(self, call: str, code: int, text: str) -> None:
        self.call, self.code, self.text = call, code, text
        super().__init__(f"{call}: {text}")


def bindings() -> Any:
    """cuda-bindings' module of the driver API, initialised.

    Raises ``DeviceError`` if the package, the driver or a GPU is missing.
    """
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise DeviceError(
            "CUDA needs the package cuda-bindings, which cannot be imported", got=error,
            hint=f"pip install 'tilewright[cuda]'; {SIMULATE}") from None
    try:
        (code,) = driver.cuInit(0)
    except RuntimeError as error:  # how the package says that it found no driver library
        raise DeviceError(
            "there is no NVIDIA driver on this machine", got=first_line(error),
            hint=f"nvidia-smi tells whether one is installed and runs; {SIMULATE}") from None
    if code == NO_DEVICE:
        raise DeviceError(
            "the NVIDIA driver finds no GPU", got=described(driver, code),
            hint="nvidia-smi -L lists them, and CUDA_VISIBLE_DEVICES may hide them; " + SIMULATE)
    if code:
        raise DeviceError(
            "the NVIDIA driver does not start", got=described(driver, code),
            hint=f"nvidia-smi tells whether it runs; {SIMULATE}")
    return driver


class Calls(Condition):
    """The functions of the CUDA driver for one device, whose failures are errors.

    cu  cuda-bindings' module of the driver API
    """

    def __init__(self, cu: Any, device: str) -> None:
        super().__init__(device)
        self.cu = cu

    def __call__(self, name: str, *arguments: Any) -> Any:
        """The result of a function. Raises the error that its code stands for."""
        try:
            return self.plain(name, *arguments)
        except Refused as refused:
            self.fail(refused)

    def plain(self, name: str, *arguments: Any) -> Any:
        """The result of a function without its code: None, one value, or a tuple.

        Raises :class:`Refused` if the code is not success; ``DeviceError`` if the driver has no
        such function, or the device is lost.
        """
        self.check()
        try:
            code, *results = getattr(self.cu, name)(*arguments)
        except RuntimeError as error:  # how the package says that the library lacks a function
            raise DeviceError(
                f"the NVIDIA driver is too old: it has no {name}", got=first_line(error),
                hint="install a newer driver, or cuda-bindings of the driver's own CUDA version",
            ) from None
        if code:
            raise Refused(name, int(code), described(self.cu, code))
        if not results:
            return None
        return results[0] if len(results) == 1 else tuple(results)

    def fail(self, refused: Refused) -> NoReturn:
        """Raise the error that a code stands for."""
        code, text = refused.code, refused.text
        if code in FATAL:
            self.lose(text, refused, ours=code not in NOT_OURS)
        if code == OUT_OF_MEMORY:
            raise OutOfMemory(
                f"the memory of {self.device} is used up", got=f"{refused.call}: {text}",
                hint="end other programs that use the device") from refused
        what = f"{refused.call} failed on {self.device}: {text}"
        if refused.call == "cuLaunchKernel":
            what += f"\n  kernel:   {self.launches.recent[-1]}"
        if code in OURS:
            raise CompilerBug(what) from refused
        raise DeviceError(what, hint=FORKED if code in GONE else None) from refused


def described(cu: Any, code: Any) -> str:
    """What CUDA says of a result, with its name."""
    text = cu.cuGetErrorString(code)[1]
    words = text.decode() if text else f"the unknown error {int(code)}"
    return f"{words} ({getattr(code, 'name', int(code))})"


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return str(error).strip().split("\n")[0]
