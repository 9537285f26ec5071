"""The devices of this process, by name."""

from __future__ import annotations

from tilewright.runtime.gpu.device import Device, device_of
from tilewright.runtime.gpu.drivers import driver_named


def device_named(name: str) -> Device:
    """The device of ``sim``, ``cuda``, ``cuda:1`` or ``pycuda``.

    Raises ``UserError`` for another name, ``DeviceError`` for a device that cannot be used.
    """
    return device_of(driver_named(name))
