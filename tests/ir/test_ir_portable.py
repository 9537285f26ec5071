"""Graphs as tuples: what another process makes of them is the same graph."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tilewright as tw
from tilewright.ir.digest import graph_text
from tilewright.ir.graph import CONSTANTS, Graph
from tilewright.ir.interp import run_graph
from tilewright.ir.portable import pack, unpack
from tilewright.ir.text import parse, show
from tilewright.ir.types import DTYPES, TensorType, f32

ROOT = Path(__file__).parents[2]
CORPUS = sorted((ROOT / "tests" / "corpus").glob("*.tw"))


def read(path: Path) -> Graph:
    graph = parse(path.read_text())
    assert isinstance(graph, Graph)
    return graph


@pytest.mark.parametrize("path", CORPUS, ids=lambda p: p.stem)
def test_a_packed_graph_is_the_same(path: Path) -> None:
    graph = read(path)
    assert unpack(pack(graph)) == graph
    again = unpack(pickle.loads(pickle.dumps(pack(graph))))
    assert again == graph
    assert again.name == graph.name
    assert show(again) == show(graph)


def test_another_process_makes_the_same_graph(tmp_path: Path) -> None:
    graph = captured()
    (tmp_path / "graph").write_bytes(pickle.dumps(pack(graph)))
    code = (
        "import pickle, sys\nimport tilewright.ir.ops\n"
        "from tilewright.ir.portable import unpack\nfrom tilewright.ir.text import show\n"
        f"print(show(unpack(pickle.load(open({str(tmp_path / 'graph')!r}, 'rb')))), end='')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          cwd=ROOT)
    assert done.stdout == show(graph)


def captured() -> Graph:
    """A graph with a captured array."""
    table = np.array([1.0, 2.5, -3.0, 0.125], np.float32)
    return tw.jit(lambda x: x * table).lower(np.ones(4, np.float32)).graph


def test_captured_arrays_come_along(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = captured()
    raw = pickle.dumps(pack(graph))
    (digest,) = {n.attrs.digest for n in graph.nodes() if n.op.name == "const"}
    monkeypatch.delitem(CONSTANTS, digest)
    again = unpack(pickle.loads(raw))
    assert not CONSTANTS[digest].flags.writeable
    assert graph_text(again) == graph_text(graph)
    x = np.arange(4, dtype=np.float32)
    np.testing.assert_array_equal(
        run_graph(again, [x])[0], x * np.array([1.0, 2.5, -3.0, 0.125], np.float32))


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=lambda d: d.name)
def test_a_copied_element_type_is_itself(dtype: object) -> None:
    assert pickle.loads(pickle.dumps(dtype)) is dtype
    assert copy.deepcopy(dtype) is dtype
    assert pickle.loads(pickle.dumps(TensorType(f32, (3,)))).dtype is f32
