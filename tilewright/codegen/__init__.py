"""Kernels enter; LLVM IR text and machine code leave. A target is a folder."""
