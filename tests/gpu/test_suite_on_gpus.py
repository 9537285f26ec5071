"""The workloads of the benchmarks at tiny sizes on GPUs, in every order of warps and copies."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contractions import check, compiled, machine

import tilewright as tw

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import tilewright_steps as steps
import workloads as w

RANDOM = np.random.default_rng(5)
Function = Callable[..., Any]


def trained(loss: Function, update: Function) -> Function:
    """A training step on (parameters, *states of the optimiser)."""
    def step(state: tuple[Any, ...], *batch: Any) -> Any:
        value, grads = tw.value_and_grad(loss)(state[0], *batch)
        return value, update(grads, *state)
    return step


def state(parameters: Any, states: int) -> tuple[Any, ...]:
    return parameters, *(tw.tree.map(np.zeros_like, parameters) for _ in range(states))


def gpt(states: int = 0) -> tuple[Any, ...]:
    parameters = w.gpt_weights(RANDOM, 1, 16, 24, 6)
    return (state(parameters, states) if states else parameters), RANDOM.integers(0, 24, (2, 6))


LAYERS = w.layers(RANDOM, (20, 24, 10))
IMAGES, LABELS = w.normal(RANDOM, 12, 20), RANDOM.integers(0, 10, 12)
BUILT = steps.steps()

CASES: dict[str, tuple[Function, tuple[Any, ...]]] = {
    "linear": (lambda x, w: x @ w.T, (w.normal(RANDOM, 21, 20), w.normal(RANDOM, 17, 20))),
    "matmul": (lambda a, b: a @ b, tuple(RANDOM.standard_normal((2, 18, 18)))),
    "gemv": (lambda a, b: a @ b, (w.normal(RANDOM, 40, 33), w.normal(RANDOM, 33))),
    "batched": (lambda a, b: np.einsum("bik,bjk->bij", a, b),
                (w.normal(RANDOM, 3, 17, 8), w.normal(RANDOM, 3, 17, 8))),
    "layer_norm": (lambda x, r, g, b: steps.gelu(steps.layer_norm(x + r, g, b)) + r,
                   tuple(w.normal(RANDOM, *s) for s in ((5, 70), (5, 70), (70,), (70,)))),
    "softmax": (steps.softmax, (w.normal(RANDOM, 6, 150),)),
    "cross_entropy": (lambda x, y: tw.value_and_grad(tw.nn.cross_entropy)(x, y),
                      (w.normal(RANDOM, 7, 90), RANDOM.integers(0, 5, 7))),
    "black_scholes": (steps.black_scholes, tuple(RANDOM.uniform(0.5, 2, (3, 50)).astype("f"))),
    "shifted_difference": (steps.shifted_difference, (w.normal(RANDOM, 5, 6, 9),)),
    "column_sum": (lambda x: x.sum(0), (w.normal(RANDOM, 70, 33),)),
    "embedding_grad": (tw.grad(lambda x, i: np.square(np.take(x, i, axis=0)).sum()),
                       (w.normal(RANDOM, 9, 12), RANDOM.integers(0, 9, 31))),
    "mlp_train": (steps.mlp_train, (LAYERS, IMAGES, LABELS)),
    "momentum_train": (trained(steps.mlp_loss, steps.momentum), (state(LAYERS, 1), IMAGES, LABELS)),
    "gpt_forward": (steps.gpt, gpt()),
    "gpt_train": (trained(steps.gpt_loss, steps.adam), gpt(2)),
    "decode": (steps.decode, ([(w.normal(RANDOM, 24, 40), w.normal(RANDOM, 40, 24))] * 2,
                              w.normal(RANDOM, 1, 24))),
}


@pytest.mark.parametrize("name, architecture", [
    *((name, "sm_80") for name in CASES), ("momentum_train", "sm_50"), ("gpt_forward", "sm_90a")])
def test_it_is_right_in_every_order(name: str, architecture: str) -> None:
    function, inputs = CASES[name]
    graph = tw.jit(function).trace(*inputs)
    check(compiled(graph, machine(architecture)), 1e-4, interpreted=not name.startswith("gpt"))


def test_nothing_of_the_suite_is_left_out() -> None:
    covered = {*CASES, "dispatch", "dispatch_tree", "layer_norm_gelu_residual",
               "cross_entropy_grad", "batched_matmul"}
    assert set(BUILT) <= covered
