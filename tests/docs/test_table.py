"""The README's table is made of a results file and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import table  # noqa: E402
import workloads  # noqa: E402

PEAK = {
    "threads": 2, "gflops": {"float32": 400.0, "float64": 200.0},
    "copy_gbs": {str(2 ** 25): 160.0, str(2 ** 28): 50.0}, "read_gbs": 60.0,
}


def row(workload: str, peer: str, milliseconds: float, digest: float = 1.0) -> dict[str, object]:
    return {"workload": workload, "peer": peer, "threads": 2, "min_ms": milliseconds,
            "digest": digest}


def result(*rows: dict[str, object]) -> dict[str, object]:
    return {"date": "2026-01-02", "command": "python benchmarks/run.py", "cores": 2,
            "processor": "Example", "peaks": [PEAK], "rows": list(rows)}


def test_a_line_compares_with_the_best_peer_and_the_floor() -> None:
    s = table.summary([row("softmax_4096x1024", "tilewright", 1.0),
                       row("softmax_4096x1024", "jax", 3.0),
                       row("softmax_4096x1024", "numpy", 9.0)], [PEAK])
    assert (s.best_peer, s.advantage) == ("jax", 3.0)
    assert s.floor == pytest.approx(32 * 2 ** 20 / 50e6)
    assert s.cached_floor == pytest.approx(32 * 2 ** 20 / 160e6)
    assert s.above_floor == pytest.approx(1.0 / s.floor)


def test_the_floor_of_a_product_is_arithmetic_in_its_own_type() -> None:
    single, _ = table.floors("linear_1024x1024x1024_float32", PEAK)
    double, _ = table.floors("matmul_1024_float64", PEAK)
    assert single == pytest.approx(2 * 1024 ** 3 / 400e6)
    assert double == pytest.approx(2 * single)


def test_a_peer_with_another_result_is_named() -> None:
    rows = [row("mlp_train", p, 1.0, d) for p, d in
            (("tilewright", 2.5), ("jax", 1.0), ("numpy", 1.001))]
    assert table.disagreeing(rows) == ("tilewright",)
    assert table.disagreeing([row("mlp_train", p, 1.0, float("nan")) for p in ("jax", "numpy")])


def test_markdown_replaces_what_stands_between_the_markers() -> None:
    new = table.markdown(result(row("mlp_train", "tilewright", 5.0), row("mlp_train", "jax", 7.0)))
    assert "| `mlp_train` | 2 | 5 | jax 7 | 1.4 |" in new
    page = f"before\n{table.START}\nold\n{table.END}\nafter\n"
    replaced = table.replace_between(page, new)
    assert replaced.startswith("before\n") and replaced.endswith("after\n")
    assert "old" not in replaced and new in replaced
    with pytest.raises(ValueError):
        table.replace_between("no markers", new)


def test_the_readme_has_the_markers() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    table.replace_between(readme, "")


def test_every_workload_makes_the_same_inputs_twice() -> None:
    first, second = (workloads.inputs_of("mlp_train") for _ in range(2))
    assert (first[1] == second[1]).all() and first[1].dtype == "float32"
    assert [w.shape for w, _ in first[0]] == [(784, 1024), (1024, 1024), (1024, 10)]


def test_names_are_those_of_the_table() -> None:
    assert all(name == w.name for name, w in workloads.WORKLOADS.items())
    named = {"linear_512x3072x768_float32", "matmul_1024_float64", "black_scholes_4M", "gpt_train",
             "mlp_train", "dispatch_x1000", "dispatch_tree_x1000", "shifted_difference_256"}
    assert named <= set(workloads.WORKLOADS)
