"""Arrays in a simulator's memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.ptxsim import tensormap
from tilewright.ptxsim.simulator import Simulator
from tilewright.ptxsim.tensormap import DataType

DATA_TYPES = {
    "float32": DataType.FLOAT32, "bfloat16": DataType.BFLOAT16, "float16": DataType.FLOAT16,
    "int32": DataType.INT32, "uint16": DataType.UINT16, "uint8": DataType.UINT8,
}


class OnDevice:
    """A row-major array in a simulator's memory, to be seen through a tensor map."""

    def __init__(self, simulator: Simulator, array: np.ndarray) -> None:
        self.simulator, self.array = simulator, array
        self.address = simulator.memory.allocate(array.nbytes)
        simulator.memory.put(self.address, array)

    def map(self, box: tuple[int, ...], **how: Any) -> bytes:
        """A tensor map with a box, innermost dimension first."""
        array = self.array
        return tensormap.encode(
            DATA_TYPES[array.dtype.name], self.address, array.shape[::-1],
            array.strides[-2::-1], box, **how,
        )

    def back(self) -> np.ndarray:
        """What the memory holds now."""
        raw = self.simulator.memory.get(self.address, self.array.nbytes)
        return raw.view(self.array.dtype).reshape(self.array.shape)
