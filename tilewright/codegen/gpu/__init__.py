"""Code for NVIDIA GPUs: what an architecture has, and LLVM IR to PTX that is known to assemble."""
