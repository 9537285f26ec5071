"""PTX text and arguments in, what a GPU would leave in memory out: a simulator in NumPy."""
