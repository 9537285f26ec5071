"""Contractions on GPUs: FMAs, mma, wgmma; every layout, ragged edges, epilogues, named sizes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from contractions import RANDOM, arrays_of, check, compiled, einsum, machine, sliced

import tilewright as tw
from tilewright import config
from tilewright.ir.build import broadcast, contract, part, reshape, take, transpose, window
from tilewright.ir.graph import Graph, Node, captured, input_node
from tilewright.ir.sizes import named
from tilewright.ir.types import DType, TensorType, bf16, bool_, f16, f32, f64, i8, i32, i64

LAYOUTS = ("mk,kn->mn", "km,nk->mn", "mk,nk->mn", "km,kn->nm")
RAGGED, WHOLE = {"m": 37, "n": 39, "k": 21}, {"m": 64, "n": 64, "k": 32}
SMALL = {"m": 18, "n": 17, "k": 9}


@pytest.mark.parametrize("spec, sizes", [
    *((spec, RAGGED) for spec in LAYOUTS), ("mk,kn->mn", WHOLE), ("mk,nk->mn", WHOLE)])
def test_fmas(spec: str, sizes: dict[str, int]) -> None:
    c = compiled(einsum(spec, sizes), machine("sm_50"))
    assert c.has("fma.rn.f32") and c.has("ld.shared.v4") and not c.has("mma")
    check(c)


@pytest.mark.parametrize("dtype", [f64, i32, i8, bool_, bf16, f16], ids=str)
def test_every_type_has_a_way(dtype: DType) -> None:
    check(compiled(einsum("mk,kn->mn", SMALL, dtype), machine("sm_50")))


@pytest.mark.parametrize("architecture, dtype, spec, sizes", [
    ("sm_75", f16, "mk,kn->mn", RAGGED), ("sm_75", f16, "mk,nk->mn", WHOLE),
    ("sm_75", f16, "km,kn->mn", {"m": 72, "n": 40, "k": 40}),
    ("sm_80", bf16, "km,kn->nm", RAGGED), ("sm_80", bf16, "mk,kn->mn", WHOLE),
    ("sm_80", bf16, "km,nk->mn", {"m": 72, "n": 40, "k": 136}),
    ("sm_80", f16, "mk,nk->mn", {"m": 136, "n": 24, "k": 72}),
    ("sm_120", f16, "km,kn->mn", {"m": 40, "n": 136, "k": 104}),
])
def test_mma(architecture: str, dtype: DType, spec: str, sizes: dict[str, int]) -> None:
    c = compiled(einsum(spec, sizes, dtype), machine(architecture))
    assert c.has("ldmatrix") and c.has("mma.sync")
    copied = architecture != "sm_75" and all(d % 8 == 0 for d in sizes.values())
    assert c.has("cp.async") == copied
    check(c)


@pytest.mark.parametrize("spec, sizes", [
    *((spec, RAGGED) for spec in LAYOUTS), ("mk,kn->mn", WHOLE), ("km,nk->mn", WHOLE)])
def test_mma_of_sm_70(spec: str, sizes: dict[str, int]) -> None:
    c = compiled(einsum(spec, sizes, f16), machine("sm_70"))
    assert c.has("mma.sync.aligned.m8n8k4") and not c.has("ldmatrix")
    check(c)


@pytest.mark.parametrize("spec, sizes", [
    ("mk,kn->mn", RAGGED), ("km,nk->mn", WHOLE), ("mk,nk->mn", {"m": 136, "n": 20, "k": 36}),
])
def test_tf32_rounds_the_factors(spec: str, sizes: dict[str, int]) -> None:
    c = compiled(einsum(spec, sizes), machine("sm_80", tf32=True))
    assert c.has("mma.sync.aligned.m16n8k8.row.col.f32.tf32")
    arrays = arrays_of(c.graph)
    check(c, 2e-3)
    # What has few bits is not changed by rounding: the sums themselves are exact.
    short = [a.astype(bf16.numpy).astype(np.float32) for a in arrays]
    want = np.einsum(spec, *(a.astype(np.float64) for a in short))
    np.testing.assert_allclose(c.on_device(short)[0], want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_tf32_is_a_switch() -> None:
    x = np.ones((32, 32), np.float32)
    for on in (0, 1):
        with config.override(tf32=on):
            text = tw.jit(lambda x: x @ x.T, target="sim").lower(x).as_text("ptx")
        assert ("tf32" in text) == bool(on)


@pytest.mark.parametrize("spec, sizes, dtype, multiprocessors", [
    ("mk,kn->mn", {"m": 128, "n": 128, "k": 320}, bf16, 1),
    ("mk,nk->mn", {"m": 264, "n": 128, "k": 96}, f16, 2),
    ("bmk,bnk->bmn", {"b": 3, "m": 120, "n": 72, "k": 72}, bf16, 1),
])
def test_wgmma_with_boxes_of_matrices(
    spec: str, sizes: dict[str, int], dtype: DType, multiprocessors: int
) -> None:
    c = compiled(einsum(spec, sizes, dtype, "residual"), machine("sm_90a", multiprocessors))
    assert c.has("wgmma.mma_async") and c.has("cp.async.bulk.tensor.2d") and c.has("setmaxnreg")
    assert [step.blocks({}) for step in c.program.steps] == [multiprocessors]
    check(c)


def test_wgmma_with_copies_by_all_threads() -> None:
    for graph in (
        sliced("mk,nk->mn", dict.fromkeys("mnk", 128), bf16),
        # Boxes of the second operand would cross from one of the batch to the next.
        einsum("bmk,bkn->bmn", {"b": 2, "m": 120, "n": 200, "k": 136}, f16),
    ):
        c = compiled(graph, machine("sm_90a"))
        assert c.has("wgmma.mma_async") and c.has("cp.async.cg") and not c.has("cp.async.bulk")
        check(c)


@pytest.mark.parametrize("architecture, dtype", [("sm_80", f32), ("sm_80", bf16), ("sm_90a", bf16)])
@pytest.mark.parametrize("epilogue", ["bias", "residual"])
@pytest.mark.parametrize("n", [40, 43])
def test_epilogues(architecture: str, dtype: DType, epilogue: str, n: int) -> None:
    sizes = {"m": 33, "n": n, "k": 16}
    c = compiled(einsum("mk,nk->mn", sizes, dtype, epilogue), machine(architecture))
    assert len(c.plan.launches) == 1
    check(c)


@pytest.mark.parametrize("spec, m", [*zip(LAYOUTS, (2, 3, 8, 4), strict=True), ("mk,nk->mn", 5)])
def test_few_rows(spec: str, m: int) -> None:
    sizes = {"m": m, "n": 36 + m % 4, "k": 200 - m % 4}
    check(compiled(einsum(spec, sizes, epilogue="residual"), machine("sm_80", 8)))


def test_pairs_and_narrow_factors_of_new_architectures() -> None:
    for graph, word in (
        (einsum("mk,nk->mn", {"m": 18, "n": 32, "k": 9}, f32, "residual"), "add.rn.f32x2"),
        (einsum("bmk,bkn->bmn", {"b": 1, "m": 16, "n": 8, "k": 51}, f16), "fma.rn.f32.f16"),
    ):
        c = compiled(graph, machine("sm_120"))
        assert c.has(word) or c.has(word.replace(".rn", ""))
        check(c)


@pytest.mark.parametrize("spec, dtype, k", [
    ("mk,kn->mn", f32, 500), ("bmk,bkn->bmn", bf16, 1544)])
def test_long_sums_are_shared_by_blocks(spec: str, dtype: DType, k: int) -> None:
    sizes = {"b": 2, "m": 9, "n": 9 if dtype is f32 else 16, "k": k}
    c = compiled(einsum(spec, sizes, dtype, "residual"), machine("sm_80", 64))
    assert len(c.program.steps) == 2
    check(c)


ODD_SPECS = {
    "two of each": ("abcd,cdef->abef", {"a": 3, "b": 5, "c": 4, "d": 7, "e": 6, "f": 9}),
    "apart": ("acbd,ecdf->aebf", {"a": 3, "b": 5, "c": 4, "d": 8, "e": 6, "f": 8}),
    "batch last": ("mkb,knb->mnb", {"b": 3, "m": 18, "n": 17, "k": 11}),
    "nothing summed": ("am,an->amn", {"a": 3, "m": 20, "n": 33}),
    "tiny": ("bmk,bkn->bmn", {"b": 100, "m": 3, "n": 4, "k": 5}),
    "one wide axis": ("amk,kn->man", {"a": 1, "m": 40, "n": 17, "k": 1}),
    "nothing to sum": ("mk,kn->mn", {"m": 20, "n": 17, "k": 0}),
    "no rows": ("mk,kn->mn", {"m": 0, "n": 17, "k": 3}),
}


@pytest.mark.parametrize("name", ODD_SPECS)
def test_axes_of_all_kinds(name: str) -> None:
    check(compiled(einsum(*ODD_SPECS[name], epilogue="residual"), machine("sm_80")))


VIEWS: dict[str, tuple[tuple[int, ...], Callable[[Node], Node]]] = {
    "transpose": ((64, 40), lambda x: transpose(x, (1, 0))),
    "reshape": ((5, 8, 64), lambda x: reshape(x, (40, 64))),
    "broadcast": ((64,), lambda x: broadcast(x, (40, 64), (1,))),
    "slice": ((44, 64), lambda x: part(x, (3, 0), (43, 64), (1, 1))),
    "every second": ((40, 128), lambda x: part(x, (0, 0), (40, 128), (1, 2))),
    "windows": ((103,), lambda x: window(x, (0,), (64,), (1,), (1,))),
    "chosen rows": ((50, 64), lambda x: take(x, CHOSEN, 0)),
}
CHOSEN = captured(RANDOM.integers(0, 50, 40), TensorType(i64, (40,)))


@pytest.mark.parametrize("dtype", [f32, bf16], ids=str)
@pytest.mark.parametrize("name", VIEWS)
def test_operands_that_are_views(name: str, dtype: DType) -> None:
    shape, view = VIEWS[name]
    x, y = input_node("x", TensorType(dtype, shape)), input_node("y", TensorType(dtype, (64, 24)))
    made = contract(view(x), y, (0, 1), (1, 2), (0, 2))
    check(compiled(Graph((x, y), (made,)), machine("sm_80")))


@pytest.mark.parametrize("axes, dtype, architecture", [
    ("m", bf16, "sm_80"), ("mk", f16, "sm_90a"), ("mkn", f32, "sm_80"), ("k", f32, "sm_80")])
def test_named_sizes(axes: str, dtype: DType, architecture: str) -> None:
    sizes = {a: named(a) if a in axes else 24 for a in "mkn"}
    graph = einsum("mk,kn->mn", sizes, dtype, "residual")
    c = compiled(graph, machine(architecture), **dict.fromkeys(axes, 32))
    for number in (1, 0, 33):
        check(c, **dict.fromkeys(axes, number))
