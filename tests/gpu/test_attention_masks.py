"""Masks that hide whole blocks of keys: what is left out, and that nothing is missing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from attention_cases import exact, groups, qkv, softmax
from contractions import compiled, machine

import tilewright as tw
from tilewright import config
from tilewright.codegen.gpu.assembler import assemble

Array = Any
ROWS = 100
KEYS = 200
NAN, NOTHING = np.float32(np.nan), np.float32(-np.inf)


def places(s: Array) -> tuple[Array, Array]:
    return tw.numpy.iota(s.shape, 0), tw.numpy.iota(s.shape, 1)


def later(s: Array) -> Array:
    row, key = places(s)
    return np.where(row + 3 >= key, s, NOTHING)


def constant(s: Array) -> Array:
    return np.where(np.tril(np.ones(s.shape, bool), 3), s, NOTHING)


def forbidden(s: Array) -> Array:
    return np.where(np.triu(np.ones(s.shape, bool), 4), NOTHING, s)


def window(s: Array) -> Array:
    row, key = places(s)
    return np.where((key <= row + 3) & ~(key < row - 5), s, NOTHING)


def twice(s: Array) -> Array:
    row, key = places(s)
    return np.where(key - row < 4, np.where(row - key <= 5, s, np.float32(-1e9)), NOTHING)


def steep(s: Array) -> Array:
    row, key = places(s)
    return np.where(2 * row >= 3 * key - 7, s, np.float32(-1e9))


def masked(mask: Callable[[Array], Array]) -> Callable[..., Array]:
    def attend(q: Array, k: Array, v: Array) -> Array:
        s = mask((q @ k.T).astype(np.float32) * np.float32(0.3))
        return softmax(s).astype(v.dtype) @ v
    return attend


@pytest.mark.parametrize("mask", [later, constant, forbidden, window, twice, steep])
def test_values_and_what_is_not_read(mask: Callable[[Array], Array]) -> None:
    function = masked(mask)
    q, k, v = qkv(ROWS, KEYS, 16, 16)
    assert groups(function, q, k, v) == ["attention"]
    want = exact(function, [q, k, v])
    # No row of the first block sees key 128, none at all sees key 199.
    v[199] = NAN
    with config.override(verify=1):
        found = tw.jit(function, target="sim")(q, k, v).astype(np.float32)
    np.testing.assert_allclose(found, want, rtol=0.03, atol=0.03)


@pytest.mark.parametrize("mask", [window, twice])
def test_keys_before_a_window_are_not_read_either(mask: Callable[[Array], Array]) -> None:
    function = masked(mask)
    q, k, v = qkv(150, 150, 16, 16)
    want = exact(function, [q, k, v])
    v[:64] = NAN
    found = tw.jit(function, target="sim")(q, k, v).astype(np.float32)
    assert np.isnan(found[:64]).all()
    np.testing.assert_allclose(found[128:], want[128:], rtol=0.03, atol=0.03)


@pytest.mark.parametrize("fill", [-1e9, np.finfo(np.float32).min, -40.0])
def test_rows_that_see_nothing_attend_to_all_keys_alike(fill: float) -> None:
    def attend(q: Array, k: Array, v: Array, seen: Array) -> Array:
        s = (q @ k.T).astype(np.float32)
        row, key = places(s)
        causal = np.where(row >= key, np.where(seen, s, np.float32(fill)), np.float32(fill))
        return softmax(causal).astype(v.dtype) @ v

    q, k, v = qkv(150, 150, 16, 16)
    seen = np.ones((150, 150), bool)
    seen[5], seen[70], seen[149] = False, False, False
    assert groups(attend, q, k, v, seen) == ["attention"]
    want = tw.jit(attend)(*(a.astype(np.float32) for a in (q, k, v)), seen)
    found = tw.jit(attend, target="sim")(q, k, v, seen).astype(np.float32)
    np.testing.assert_allclose(found, want, rtol=0.03, atol=0.03)
    if fill < -50:
        np.testing.assert_allclose(
            found[5], v.astype(np.float32).mean(0), rtol=0.03, atol=0.01)


def test_rows_before_the_first_key_are_nan() -> None:
    def attend(q: Array, k: Array, v: Array) -> Array:
        s = (q @ k.T).astype(np.float32)
        row, key = places(s)
        return softmax(np.where(row - 70 >= key, s, NOTHING)).astype(v.dtype) @ v

    q, k, v = qkv(140, 140, 16, 16)
    found = tw.jit(attend, target="sim")(q, k, v).astype(np.float32)
    assert np.isnan(found[:70]).all()
    np.testing.assert_allclose(found[70:], exact(attend, [q, k, v])[70:], rtol=0.03, atol=0.03)


def test_layers_that_are_equal_but_for_a_constant() -> None:
    def layer(q: Array, k: Array, v: Array, diagonal: int) -> Array:
        s = (q @ k.T).astype(np.float32) * np.float32(0.3)
        seen = np.tril(np.ones(s.shape, bool), diagonal)
        return softmax(np.where(seen, s, NOTHING)).astype(v.dtype) @ v

    def layers(q: Array, k: Array, v: Array) -> tuple[Array, Array]:
        return layer(q, k, v, 3), layer(k, q, v, 70)

    arrays = qkv(150, 150, 16, 16)
    want = tw.jit(layers)(*(a.astype(np.float32) for a in arrays))
    found = tw.jit(layers, target="sim")(*arrays)
    for x, y in zip(found, want, strict=True):
        np.testing.assert_allclose(x.astype(np.float32), y, rtol=0.03, atol=0.03)


def test_any_order_gives_the_same_bits() -> None:
    arrays = qkv(20, 140, 16, 16)
    c = compiled(tw.jit(masked(steep)).trace(*arrays), machine("sm_80"))
    (want,) = c.on_device(arrays)
    np.testing.assert_array_equal(c.on_device(arrays, 1, "lazy")[0], want)


@pytest.mark.parametrize("architecture", ["sm_80", "sm_120"])
@pytest.mark.skipif(shutil.which("ptxas") is None, reason="there is no ptxas")
def test_registers_with_a_mask_of_numbers(architecture: str) -> None:
    arrays = qkv(4096, 4096, 128, 128)
    text = tw.jit(masked(steep), target=f"sim:{architecture}").lower(*arrays).as_text("ptx")
    (report,) = assemble(text, architecture).reports.values()
    assert report.stack == report.spill_stores == report.spill_loads == 0
    assert report.registers <= 168
