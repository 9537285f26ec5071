"""Code for GPUs: kernels as LLVM IR, LLVM IR as PTX, and what an architecture has."""

from tilewright.codegen.gpu.program import GpuProgram, build, load
from tilewright.codegen.gpu.targets import named

__all__ = ["GpuProgram", "build", "load", "named"]
