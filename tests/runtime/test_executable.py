"""Executables: every sort of input, donation, copies, errors; natively and through Python."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from runtime_programs import adder, copier, failing, updater

from tilewright.errors import CompilerBug, DTypeError, OutOfBounds, ShapeError
from tilewright.runtime.executable import Executable

A = np.arange(64, dtype=np.float32).reshape(8, 8)
B = np.linspace(-3, 3, 64, dtype=np.float32).reshape(8, 8)

WAYS: list[Callable[[Executable], Callable[..., list[np.ndarray]]]] = [
    lambda run: lambda *arrays: run(arrays), lambda run: run._call_slowly,
]
both_ways = pytest.mark.parametrize("way", WAYS, ids=["native", "python"])


def read_only(a: np.ndarray) -> np.ndarray:
    copy = a.copy()
    copy.flags.writeable = False
    return copy


def misaligned(a: np.ndarray) -> np.ndarray:
    room = np.zeros(a.nbytes + 1, np.uint8)
    shifted = room[1:].view(a.dtype).reshape(a.shape)
    shifted[...] = a
    assert not shifted.flags.aligned
    return shifted


def every_other(a: np.ndarray) -> np.ndarray:
    wide = np.full((16, 24), np.nan, a.dtype)
    wide[::2, ::3] = a
    return wide[::2, ::3]


class Mine(np.ndarray):
    """A subclass."""


ODD = {
    "plain": lambda a: a,
    "transposed": lambda a: a.T.copy().T,
    "negative strides": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    "gaps": every_other,
    "byte swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "read only": read_only,
    "misaligned": misaligned,
    "subclass": lambda a: a.view(Mine),
    "list": lambda a: [[np.float32(v) for v in row] for row in a],
    "broadcast": lambda a: a,
}


@both_ways
@pytest.mark.parametrize("odd", ODD)
def test_inputs_in_any_form(odd: str, way) -> None:
    given = ODD[odd](A)
    result = way(adder())(given, B)
    np.testing.assert_array_equal(result[0], A + B)
    assert type(result[0]) is np.ndarray and result[0].flags.writeable
    np.testing.assert_array_equal(np.asarray(given), A)


@both_ways
def test_inputs_that_overlap(way) -> None:
    room = np.arange(72, dtype=np.float32)
    x, y = room[:64].reshape(8, 8), room[8:].reshape(8, 8)
    np.testing.assert_array_equal(way(adder())(x, y)[0], x + y)
    np.testing.assert_array_equal(way(adder())(x, x)[0], x + x)


@both_ways
def test_a_broadcast_view(way) -> None:
    x = np.broadcast_to(np.float32(2), (8, 8))
    np.testing.assert_array_equal(way(adder())(x, B)[0], x + B)


@both_ways
@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0), (1, 1, 1), (17,), (300, 7)])
def test_shapes(shape: tuple[int, ...], way) -> None:
    x = np.full(shape, 1.5, np.float32)
    (result,) = way(adder(shape))(x, x)
    assert (result.shape, result.dtype) == (shape, np.float32)
    assert (result == 3).all()


@both_ways
def test_other_types_are_refused(way) -> None:
    with pytest.raises(DTypeError, match="input 1 has the wrong dtype"):
        way(adder())(A, B.astype(np.float64))
    with pytest.raises(ShapeError, match="input 0 has the wrong shape"):
        way(adder())(A[:4], B)
    with pytest.raises(TypeError, match="expected 2 arrays, got 1"):
        way(adder())(A)


def test_both_ways_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(Executable, "_run", lambda self, arrays: taken.append(arrays) or [])
    run = adder()
    run([A, B])
    assert taken == []
    run([A.T, B])
    assert len(taken) == 1


@both_ways
def test_an_error_code_is_raised_with_the_line_of_the_user(way) -> None:
    with pytest.raises(OutOfBounds) as caught:
        way(failing(3))()
    assert isinstance(caught.value, IndexError)
    assert str(caught.value).startswith(
        "index 9 is outside axis 0 of size 4\n  at:       model.py:7 in loss"
    )


@both_ways
def test_an_unknown_error_code_is_our_fault(way) -> None:
    with pytest.raises(CompilerBug, match="error 4"):
        way(failing(4))()


@both_ways
def test_an_error_on_a_team(way) -> None:
    for _ in range(3):
        with pytest.raises(OutOfBounds):
            way(failing(3, flops=10**9))()
    np.testing.assert_array_equal(way(adder((8, 8), 10**9))(A, B)[0], A + B)


X, Y = np.arange(64, dtype=np.float32), np.ones(64, np.float32)


@both_ways
def test_a_donated_input_becomes_a_result(way) -> None:
    given = X.copy()
    updated, other = way(updater())(given, Y)
    assert updated is given
    np.testing.assert_array_equal(updated, X + 1)
    np.testing.assert_array_equal(other, X + 2)
    assert not np.shares_memory(updated, other)


@both_ways
@pytest.mark.parametrize("odd", ["read only", "misaligned", "byte swapped", "gaps"])
def test_a_donated_input_that_cannot_be_taken_is_copied(odd: str, way) -> None:
    if odd == "gaps":
        given = np.repeat(X, 2)[::2]
    else:
        given = ODD[odd](X)
    updated, other = way(updater())(given, Y)
    np.testing.assert_array_equal(updated, X + 1)
    np.testing.assert_array_equal(other, X + 2)
    np.testing.assert_array_equal(given, X)
    assert updated.flags.writeable and not np.shares_memory(updated, given)


@both_ways
@pytest.mark.parametrize("shift", [0, 1, 63])
def test_a_donated_input_that_overlaps_another_is_copied(shift: int, way) -> None:
    room = np.arange(160, dtype=np.float32)
    x, y = room[shift:shift + 64], room[:64]
    for given, other in ((x, y), (y, x)):
        before = given.copy(), other.copy()
        updated, _ = way(updater())(given, other)
        np.testing.assert_array_equal(updated, before[0] + before[1])
        np.testing.assert_array_equal(room, np.arange(160))


def test_neighbours_do_not_overlap() -> None:
    room = np.arange(128, dtype=np.float32)
    for x, y in ((room[:64], room[64:]), (room[64:], room[:64])):
        updated, _ = updater()([x, y])
        assert updated is x


@both_ways
def test_results_never_alias(way) -> None:
    constant = np.array([7], np.float32)
    x = np.array([5], np.float32)
    results = way(copier(constant))(x)
    assert [float(r[0]) for r in results] == [5, 7, 5, 5]
    for i, a in enumerate((*results, x, constant)):
        for b in (*results, x, constant)[:i]:
            assert not np.shares_memory(a, b)
    results[1][0] = 0
    assert way(copier(constant))(x)[1][0] == 7


def test_a_constant_is_aligned_and_safe_from_changes() -> None:
    constant = np.array([7], np.float32)
    run = copier(constant)
    constant[0] = 1
    assert run.constants[0].ctypes.data % 64 == 0
    assert run([np.zeros(1, np.float32)])[1][0] == 7
