"""The helpers of tests/codegen: kernels in machine code, cases of vector functions."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "codegen"))
