"""Kernels and plans to machine code for the CPU: a plan enters, a native program leaves."""

from tilewright.codegen.cpu.program import NativeProgram, build, load
from tilewright.codegen.cpu.tiers import TIERS, host_target

__all__ = ["TIERS", "NativeProgram", "build", "host_target", "load"]
