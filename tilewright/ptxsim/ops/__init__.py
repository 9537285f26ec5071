"""The meanings of instructions, by family; importing this room fills the op table."""

from tilewright.ptxsim.ops import (
    arithmetic,
    bulk_copies,
    carry,
    clusters,
    control,
    conversion,
    copies,
    logic,
    matrix,
    mbarriers,
    movement,
    warp,
    warpgroup,
)
from tilewright.ptxsim.table import OPS, meaning_of

__all__ = [
    "OPS", "arithmetic", "bulk_copies", "carry", "clusters", "control", "conversion", "copies",
    "logic", "matrix", "mbarriers", "meaning_of", "movement", "warp", "warpgroup",
]
