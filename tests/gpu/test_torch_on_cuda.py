"""PyTorch's tensors on a GPU as arguments, pretended: PyTorch's build here has no CUDA.

The tensors say that they are on a GPU and have addresses of a pretended one; what they cannot do
without CUDA (autograd's engine, an operator of PyTorch on them) is not tested here. What the engine
calls is: forward and backward, the latter on another thread and its current stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeCuda
from foreign_arrays import Elsewhere, ForeignArray

import tilewright as tw
from tilewright.errors import OutOfBounds, Unsupported, UserError
from tilewright.runtime.gpu.devices import device_named

torch = pytest.importorskip("torch")
from tilewright.torch import gpu as torch_gpu  # noqa: E402
from tilewright.torch.differentiable import Entry, _Backward, _Kept  # noqa: E402
from tilewright.torch.dtypes import OURS, THEIRS  # noqa: E402

RANDOM = np.random.default_rng(8)


def f32(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape, dtype=np.float32)


class Tensor(torch.Tensor):  # type: ignore[misc]
    """A tensor that is on a GPU by its own account."""

    array: ForeignArray
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def of(array: ForeignArray) -> Any:
        kind = THEIRS[next(d for d in THEIRS if d.numpy == array.dtype)]
        tensor = torch.Tensor._make_wrapper_subclass(
            Tensor, array.shape, dtype=kind, device=f"cuda:{array.package.number}")
        tensor.array = array
        return tensor

    def data_ptr(self) -> int:
        return self.array.address

    @classmethod
    def __torch_dispatch__(cls, function: Any, *rest: Any) -> Any:
        raise AssertionError(f"PyTorch is asked for {function}")


class Package(Elsewhere):
    """PyTorch: its allocator, its current stream."""

    def tensor(self, host: np.ndarray) -> Any:
        return Tensor.of(self.array(host, late=True))

    def contents(self, tensor: Any) -> np.ndarray:
        assert type(tensor) is Tensor and tensor.is_cuda
        assert OURS[tensor.dtype].numpy == tensor.array.dtype
        return self.get(tensor.array)


@pytest.fixture
def package(fake_cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    made = Package(fake_cuda)
    monkeypatch.setattr(torch_gpu, "GUEST", replace(
        torch_gpu.GUEST, empty=lambda dtype, shape, number: Tensor.of(made.empty(shape, dtype)),
        stream=lambda number: made.stream))
    yield made


def test_tensors_in_and_out(package: Package) -> None:
    """On PyTorch's stream, in its memory, without a copy."""
    @tw.jit(donate_argnames="p")
    def step(p: Any, x: Any, rate: Any) -> Any:
        return {"w": p["w"] - rate * x.T @ (x @ p["w"])}, x.sum()

    w, x = f32(3, 2), f32(4, 3)
    p = {"w": package.tensor(w)}
    there = p["w"]
    for _ in range(4):
        made = package.made
        p, total = step(p, package.tensor(x), 0.1)
        w = w - np.float32(0.1) * x.T @ (x @ w)
        assert package.made == made + 2 and p["w"] is there  # x and the sum
    np.testing.assert_allclose(package.contents(p["w"]), w, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(package.contents(total), x.sum(), rtol=1e-4, atol=1e-5)


def test_what_may_stand_beside_them(package: Package) -> None:
    f = tw.jit(lambda x, y, rate: (x + y) * rate, target="cuda")
    x = f32(3)
    result = f(package.tensor(x), x, torch.tensor(2.0))
    np.testing.assert_allclose(package.contents(result), 4 * x)
    assert f(torch.from_numpy(x), x, 2.0).tolist() == pytest.approx((4 * x).tolist())
    with pytest.raises(UserError) as raised:
        f(package.tensor(x), torch.from_numpy(x), 1.0)
    message = str(raised.value)
    assert message.startswith("the arguments of <lambda> are on several devices")
    assert "got:      y on the CPU" in message and "y.to('cuda:0')" in message
    assert "test_torch_on_cuda.py" in message
    other = Package(package.cuda, 1).tensor(x)
    with pytest.raises(UserError, match="x is"):
        f(package.tensor(x), other, 1.0)
    with pytest.raises(UserError, match="compiled for avx2, and its argument x is on cuda:0"):
        tw.jit(lambda x: x, target="avx2")(package.tensor(x))
    with pytest.raises(Unsupported, match="is a tensor on meta"):
        tw.jit(lambda x: x)(torch.empty(2, device="meta"))


def test_a_failed_check_is_raised_by_the_call(package: Package) -> None:
    f = tw.jit(lambda x, i: x[i])
    with pytest.raises(OutOfBounds, match="index outside an axis of size 3"):
        f(package.tensor(f32(3)), package.tensor(np.array([0, 3])))


def test_functions_on_tensors(package: Package) -> None:
    """``tw.torch.function``: one entry per device; the same arguments on the CPU are another."""
    f = tw.torch.function(lambda x, y: np.exp(x) @ y["w"])
    x, w = f32(2, 3), f32(3, 2)
    result = f(package.tensor(x), {"w": package.tensor(w)})
    np.testing.assert_allclose(package.contents(result), np.exp(x) @ w, rtol=1e-5)
    here = f(torch.from_numpy(x), {"w": torch.from_numpy(w)})
    assert here.device.type == "cpu"
    np.testing.assert_allclose(here.numpy(), np.exp(x) @ w, rtol=1e-5)
    mixed = f(package.tensor(x), {"w": w})
    np.testing.assert_allclose(package.contents(mixed), np.exp(x) @ w, rtol=1e-5)
    with pytest.raises(UserError, match="got:      y\\['w'\\] on the CPU"):
        f(package.tensor(x), {"w": torch.from_numpy(w)})


def test_a_function_and_its_gradient(package: Package) -> None:
    """The programs that autograd runs; it does not run itself without PyTorch's CUDA."""
    f = tw.jit(lambda x, y: (np.tanh(x) * y).sum())
    x, y = f32(5), f32(5)
    entry = Entry(f.trace(x, y), "cuda:0")
    (value,) = entry.run([package.tensor(x), package.tensor(y)])
    np.testing.assert_allclose(package.contents(value), (np.tanh(x) * y).sum(), rtol=1e-4)
    seed = package.tensor(np.array(1, np.float32))
    (gradient,) = entry.pulled((0,), (True,)).run([package.tensor(x), package.tensor(y), seed])
    np.testing.assert_allclose(package.contents(gradient), y / np.cosh(x) ** 2, rtol=1e-4)
    assert device_named("cuda").memory.used < 1 << 16


class Context:
    """What autograd gives a function to keep things in."""

    def save_for_backward(self, *tensors: Any) -> None:
        self.saved_tensors = tensors


def test_a_backward_on_another_thread_and_stream(package: Package) -> None:
    """As autograd calls it: its thread has a current stream of its own, and nobody has waited."""
    x, w = f32(4, 3), f32(3, 2)
    entry = Entry(tw.jit(lambda x, w: (np.tanh(x @ w) ** 2).sum(axis=1)).trace(x, w), "cuda:0")
    forward, backward = Context(), Context()
    (result,) = _Kept.forward(forward, entry, (0, 1), package.tensor(x), package.tensor(w))
    assert len(forward.saved_tensors) > 2, "the forward keeps something for the backward"

    def on_its_thread() -> Any:
        package.stream = 78
        package.chip.streams[78] = package.chip.sim.new_stream()
        seed = package.tensor(np.arange(1, 5, dtype=np.float32))
        return _Backward.forward(
            backward, entry, forward.wrt, forward.given, *forward.saved_tensors, seed)

    with ThreadPoolExecutor(1) as engine:
        gradients = engine.submit(on_its_thread).result()
    hidden = np.tanh(x @ w)
    inner = 2 * hidden * (1 - hidden ** 2) * np.arange(1, 5, dtype=np.float32)[:, None]
    for gradient, want in zip(gradients, (inner @ w.T, x.T @ inner), strict=True):
        np.testing.assert_allclose(package.contents(gradient), want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(package.contents(result), (hidden ** 2).sum(axis=1), rtol=1e-4)
