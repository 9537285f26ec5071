"""Random kernels for blocks of threads, right by construction: the same in any order."""

from __future__ import annotations

import numpy as np

DTYPES = {"f32": np.float32, "i32": np.int32, "f64": np.float64, "bf16": np.float32,
          "u8": np.uint8, "i64": np.int64}
SIZE = 4096


class Writer:
    """Text of a kernel with ``blocks`` blocks of ``threads`` threads.

    values  names of numbers that are at hand, by their type
    """

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.threads = int(self.random.choice([32, 64, 96]))
        self.blocks = int(self.random.integers(1, 4))
        self.lines: list[str] = []
        self.depth = 3
        self.count = 0
        self.stores = 0
        self.values: dict[str, list[str]] = {}
        self.shared: list[str] = []

    def pick(self, *choices: str) -> str:
        return str(self.random.choice(choices))

    def number(self, low: int, high: int) -> int:
        return int(self.random.integers(low, high))

    def name(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def write(self, line: str) -> None:
        self.lines.append("  " * self.depth + line)

    # --- expressions --------------------------------------------------------------------
    def place(self) -> str:
        """Index arithmetic of this thread, anything from 0 to some hundreds."""
        a, c = self.number(1, 5), self.number(1, 9)
        return self.pick(
            f"t * {a} + {c}", f"b * {self.threads} + t", f"t // {c} + b", f"t % {c} * {a}",
            f"xor(t, {c})", f"min(t, {c * 7}) + {a}", f"({self.threads - 1} - t) // {a}",
            f"(t + b * {c}) % {self.threads}")

    def condition(self) -> str:
        """What differs between threads."""
        return self.pick(
            f"t % {self.number(2, 5)} == {self.number(0, 2)}", f"t < {self.number(1, 60)}",
            f"{self.place()} >= {self.number(5, 50)}", f"(t & {1 << self.number(0, 4)}) != 0")

    def value(self, dtype: str) -> str:
        """A number: one at hand, one from memory, or made of such."""
        kind = self.number(0, 6)
        if kind < 3 and self.values.get(dtype):
            return self.pick(*self.values[dtype])
        if kind == 3:
            return f"{self.number(0, 9)}:{dtype}".replace(":i64", "")
        if kind == 4:
            op = self.pick("max", "min")
            return f"{op}({self.value(dtype)}, {self.value(dtype)})"
        if kind == 5 and dtype != "bf16":
            return f"({self.value(dtype)} + {self.value(dtype)})"
        return f"x_{dtype}[{self.place()}{self.pick('', f' if {self.condition()}')}]"

    # --- statements ---------------------------------------------------------------------
    def named(self, dtype: str, text: str) -> None:
        name = self.name("v")
        self.write(f"let {name}: {dtype} = {text}")
        self.values.setdefault(dtype, []).append(name)

    def statement(self, together: bool) -> None:
        """Any statement; ``together``: all threads come by here."""
        dtype = self.pick(*DTYPES)
        kinds = ["let", "branch", "loop", "vector", "stack"] + ["swap", "shuffle"] * 2 * together
        getattr(self, self.pick(*kinds))(dtype, together)

    def let(self, dtype: str, together: bool) -> None:
        self.named(dtype, self.value(dtype))

    def swap(self, dtype: str, together: bool) -> None:
        """Through the memory of the block."""
        tile, c = f"tile_{dtype}", self.number(1, self.threads)
        to = self.pick("t", f"{self.threads - 1} - t", f"(t + {c}) % {self.threads}")
        self.write("barrier")
        self.write(f"{tile}[{to}] = {self.value(dtype)}")
        self.write("barrier")
        self.named(dtype, f"{tile}[{self.pick(f'xor(t, {self.number(1, 32)})', f'{c}')}]")

    def shuffle(self, dtype: str, together: bool) -> None:
        mode = self.pick("xor", "up", "down", "lane")
        lane = self.pick(str(self.number(0, 32)), "t % 32" if mode == "lane" else "b")
        self.named(dtype, f"shuffle {mode}({self.value(dtype)}, {lane})")

    def branch(self, dtype: str, together: bool) -> None:
        """Register buffers that both arms change."""
        buffer = self.name("r")
        self.write(f"alloc {buffer}: {dtype}[2] register")
        self.write(f"{buffer}[0] = {self.value(dtype)}")
        self.write(f"{buffer}[1] = {self.value(dtype)}")
        self.write(f"if {self.condition()} {{")
        self.inside(lambda: self.write(f"{buffer}[0] = {self.value(dtype)}"))
        if self.number(0, 2):
            self.write("} else {")
            self.inside(lambda: self.write(f"{buffer}[1] = {self.value(dtype)}"))
        self.write("}")
        self.named(dtype, f"max({buffer}[0], {buffer}[1])")

    def inside(self, last) -> None:  # noqa: ANN001
        """A body of its own, whose names end with it."""
        before = {d: list(names) for d, names in self.values.items()}
        self.depth += 1
        for _ in range(self.number(0, 2)):
            self.statement(False)
        last()
        self.depth -= 1
        self.values = before

    def loop(self, dtype: str, together: bool) -> None:
        """A sum over a number of steps that may differ between threads."""
        total, i = self.name("s"), self.name("i")
        self.write(f"alloc {total}: {dtype}[1] register")
        self.write(f"{total}[0] = {self.value(dtype)}")
        stop = self.pick("3", "b + 2", "t % 4", "(t + 7) // 8")
        kind = " unroll" if stop == "3" and self.number(0, 2) else ""
        self.write(f"for {i} in 0..{stop}{kind} {{")
        op = "max=" if dtype == "bf16" else self.pick("+=", "max=")
        self.inside(lambda: self.write(f"{total}[0] {op} x_{dtype}[{i} * 3 + {self.place()}]"))
        self.write("}")
        self.named(dtype, f"{total}[0]")

    def vector(self, dtype: str, together: bool) -> None:
        """Several elements at once."""
        buffer, v, width = self.name("w"), self.name("v"), int(self.pick("2", "4", "8"))
        start, scale = self.place(), self.number(1, 5)
        trip = width * self.number(1, 3) if self.number(0, 2) else width + 1
        space = "stack" if trip % width else "register"
        mask = self.pick("", f" if {self.condition()}", f" if {v} < {self.number(1, 9)}")
        self.write(f"alloc {buffer}: {dtype}[{trip}] {space}")
        self.write(f"for {v} in 0..{trip} vector({width}, 1) {{")
        self.write(f"  {buffer}[{v}] = x_{dtype}[({start}) * {scale} + {v}{mask}]")
        self.write("}")
        self.named(dtype, f"max({buffer}[0], {buffer}[{trip - 1}])")

    def stack(self, dtype: str, together: bool) -> None:
        """Memory of a thread, at a place that is known late."""
        buffer, i = self.name("m"), self.name("i")
        self.write(f"alloc {buffer}: {dtype}[8] stack")
        self.write(f"for {i} in 0..8 {{")
        self.write(f"  {buffer}[{i}] = x_{dtype}[{i} + t]")
        self.write("}")
        self.named(dtype, f"{buffer}[({self.place()}) % 8]")

    # --- the whole ----------------------------------------------------------------------
    def kernel(self) -> str:
        for dtype in DTYPES:
            self.named(dtype, f"x_{dtype}[{self.place()}]")
        for _ in range(8):
            self.statement(True)
        at = f"b * {self.threads} + t"
        for dtype, names in self.values.items():
            for n, name in enumerate(names[:4]):
                self.write(f"y_{dtype}[{n * 512} + {at}] = {name}")
        params = [f"x_{d}: {d}[{SIZE}] in, y_{d}: {d}[{SIZE // 2}] out" for d in DTYPES]
        tiles = [f"    alloc tile_{d}: {d}[{self.threads}] shared" for d in DTYPES]
        return "\n".join([
            f"kernel f({', '.join(params)}) {{", f"  for b in 0..{self.blocks} block {{", *tiles,
            f"    for t in 0..{self.threads} thread {{", *self.lines, "    }", "  }", "}", ""])
