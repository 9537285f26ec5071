"""What every test of machine code starts from."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from kernel_parts import RANDOM


@pytest.fixture(autouse=True)
def numbers_of_its_own(request: pytest.FixtureRequest) -> None:
    """A test draws the same numbers whichever tests ran before it in this process."""
    seed = zlib.crc32(request.node.name.encode())
    RANDOM.bit_generator.state = np.random.default_rng(seed).bit_generator.state
