"""The devices of this process, by name."""

from __future__ import annotations

from tilewright.errors import UserError
from tilewright.runtime.gpu.device import Device, device_of
from tilewright.runtime.gpu.sim import sim_driver


def device_named(name: str) -> Device:
    """The device of this name. Raises ``UserError`` for one that is not there."""
    if name != "sim":
        raise UserError(f"there is no device '{name}'", expected="sim", got=name)
    return device_of(sim_driver())
