"""Graph -> Graph, graph -> groups, kernels -> plan: one pass, one file."""
