"""The drivers of this process by the names of targets, and targets made of what they say."""

from __future__ import annotations

from tilewright.codegen.gpu.architectures import (
    cuda_text,
    gpu_target,
    of_capability,
    ptx_of_driver,
    version_text,
)
from tilewright.codegen.gpu.targets import named
from tilewright.compiler.cost import scaled
from tilewright.compiler.target import DEVICES, Target, checked_name, device_of, meant
from tilewright.errors import DeviceError, UserError
from tilewright.runtime.gpu.driver import Driver


def driver_named(device: str) -> Driver:
    """The driver of ``sim``, ``cuda`` or ``cuda:1``, the same one always; of ``pycuda``, that of
    PyCUDA's current context. ``sim:sm_90a`` is ``sim``, which runs code for any architecture.

    Raises ``UserError`` for another name, ``DeviceError`` for a device that cannot be used.
    """
    checked_name(device, "a device")
    if device.partition(":")[0] == "sim":
        from tilewright.runtime.gpu.sim import sim_driver

        named(device)
        return sim_driver()
    if device == "pycuda":
        from tilewright.runtime.gpu.pycuda import pycuda_driver

        return pycuda_driver()
    kind, _, number = (device_of(device) or "").partition(":")
    if kind != "cuda" or not number.isdecimal():
        raise UserError(
            f"there is no device '{device}'", expected="sim, cuda, cuda:1, pycuda", got=device,
            hint=meant(device, ("cpu", *DEVICES)))
    from tilewright.runtime.gpu.cuda import cuda_driver

    return cuda_driver(int(number))


def target_of(name: str) -> Target:
    """The target of a GPU's name: ``sim``, ``sim:sm_90a``, ``cuda``, ``cuda:1``, ``pycuda``.

    Raises ``UserError`` for another name, ``DeviceError`` for a device that cannot be used.
    """
    if name.partition(":")[0] == "sim":
        return named(name)
    driver = driver_named(name)
    # What an architecture has alone, above all wgmma, is of use only with tensor maps.
    alone = driver.name != "pycuda"
    found, own = of_capability(*driver.capability, driver.ptx, alone), driver.properties
    return gpu_target(
        found.name, device=driver.name, ptx=driver.ptx, multiprocessors=own.multiprocessors,
        l2=own.l2, shared_most=own.shared_most)


def seen() -> list[str]:
    """Lines for a person: the GPUs of this machine, or why there are none to work with."""
    from tilewright.runtime.gpu.cuda_calls import Calls, bindings
    from tilewright.runtime.gpu.cuda_devices import cuda_device

    try:
        call = Calls(bindings(), "CUDA")
        found = [cuda_device(call, i) for i in range(call("cuDeviceGetCount"))]
    except DeviceError as error:
        return [f"{'none':<12}{error.what}", *([f"{'':<12}{error.hint}"] if error.hint else [])]
    version = found[0].version
    lines = [
        f"{'driver':<12}CUDA {cuda_text(version)}, PTX {version_text(ptx_of_driver(version))}"]
    for i, each in enumerate(found):
        own, capability = each.properties, each.capability
        code = of_capability(*capability, ptx_of_driver(version)).name
        lines.append(
            f"{f'cuda:{i}':<12}{own.title}, compute capability {capability[0]}.{capability[1]} "
            f"({code}), {own.multiprocessors} multiprocessors, {scaled(own.memory, 'B')}")
    return lines
