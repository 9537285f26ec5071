"""A recorded case in the simulator."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright.ptxsim import tensormap
from tilewright.ptxsim.recording import KERNEL, Case
from tilewright.ptxsim.simulator import Simulator
from tilewright.ptxsim.tensormap import DataType, OutOfBoundsFill, Swizzle


def replay(case: Case, simulator: Simulator) -> tuple[NDArray[Any], ...]:
    """What the simulator leaves in the outputs of a case."""
    outputs = case.blank()
    arrays = (*case.inputs, *outputs)
    addresses = []
    for array in arrays:
        addresses.append(simulator.memory.allocate(array.nbytes))
        simulator.memory.put(addresses[-1], array)
    maps = [
        tensormap.encode(
            DataType[m.data_type], addresses[m.array], m.dims, m.strides, m.box,
            m.element_strides, swizzle=Swizzle[m.swizzle], fill=OutOfBoundsFill[m.fill],
        ) for m in case.maps
    ]
    program = simulator.load(case.ptx)
    simulator.launch(program, KERNEL, (1,), (case.threads,), [*maps, *addresses])
    left = []
    for array, address in zip(outputs, addresses[len(case.inputs) :], strict=True):
        raw = simulator.memory.get(address, array.nbytes)
        left.append(np.asarray(raw.view(array.dtype).reshape(array.shape)))
    return tuple(left)
