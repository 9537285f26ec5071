"""What the compiler knows of a machine: data, no code generation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A machine to compile for.

    vector_bytes  bytes of a vector register
    registers     number of vector registers
    l1, l2, l3    bytes of data cache of one core (l3: shared)
    masked        partial vectors are loaded and stored by masked instructions at full speed
    fma           has fused multiply-add
    contract      an elementwise sum may take a product unrounded; accumulated sums always may
    bf16_dot      has a bf16 dot product instruction (vdpbf16ps)
    triple, cpu, features   in LLVM's words
    """

    name: str
    vector_bytes: int
    registers: int
    l1: int
    l2: int
    l3: int
    triple: str
    cpu: str
    features: str
    masked: bool = True
    fma: bool = True
    bf16_dot: bool = False
    contract: bool = True

    def lanes(self, itemsize: int) -> int:
        """Elements of this many bytes in a vector register."""
        return max(1, self.vector_bytes // itemsize)
