"""The GPUs that the CUDA driver sees, and what they say of themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tilewright.errors import DeviceError
from tilewright.runtime.gpu.cuda_calls import Calls
from tilewright.runtime.gpu.driver import Properties

WHERE = "nvidia-smi -L lists them, and CUDA_VISIBLE_DEVICES may hide them"


@dataclass(frozen=True)
class CudaDevice:
    """A device, before anything is done on it.

    handle      by which the driver knows it
    version     the CUDA version of the driver, 13000 for 13.0
    capability  major and minor number of the compute capability
    pools       whether its memory can be allocated from pools, in the order of a stream
    """

    handle: Any
    version: int
    capability: tuple[int, int]
    properties: Properties
    pools: bool


def cuda_device(call: Calls, ordinal: int) -> CudaDevice:
    """The device of a number. Raises ``DeviceError`` if there is none."""
    count = call("cuDeviceGetCount")
    if ordinal >= count:
        raise DeviceError(
            f"there is no device cuda:{ordinal}",
            expected="cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}",
            got=f"cuda:{ordinal}", hint=WHERE)
    handle = call("cuDeviceGet", ordinal)

    def ask(name: str) -> int:
        attributes = call.cu.CUdevice_attribute
        which = getattr(attributes, f"CU_DEVICE_ATTRIBUTE_{name}")
        return int(call("cuDeviceGetAttribute", which, handle))

    title = call("cuDeviceGetName", 128, handle).split(b"\0")[0].decode(errors="replace")
    properties = Properties(
        title, ask("MULTIPROCESSOR_COUNT"), int(call("cuDeviceTotalMem", handle)),
        ask("L2_CACHE_SIZE"), ask("MAX_SHARED_MEMORY_PER_BLOCK"),
        ask("MAX_SHARED_MEMORY_PER_BLOCK_OPTIN"))
    capability = ask("COMPUTE_CAPABILITY_MAJOR"), ask("COMPUTE_CAPABILITY_MINOR")
    return CudaDevice(
        handle, int(call("cuDriverGetVersion")), capability, properties,
        bool(ask("MEMORY_POOLS_SUPPORTED")))
