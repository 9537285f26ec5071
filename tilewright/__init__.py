"""tilewright: a tensor compiler for neural networks."""
