"""The two languages: what tensor programs and kernels are made of."""
from tilewright.ir import ops as ops
