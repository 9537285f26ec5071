"""Train a small network on handwritten digits, with plain NumPy code that tilewright compiles.

The data are the 1797 real 8x8 images that come with scikit-learn; a fifth of them is kept for the
test. The network, its loss and the optimiser are ordinary NumPy; tilewright differentiates and
compiles one training step. At the end the program prints what the compiler made of that step, and
times it against the same step written by hand in NumPy.

    python examples/digits.py [--epochs 30] [--seed 0] [--target NAME] [--quiet]

A target is a CPU tier, or a GPU in the simulator: ``--target sim --epochs 1`` trains with the PTX
that an NVIDIA GPU would run, in half a minute, and times nothing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

import tilewright as tw

SIZES = (64, 128, 64, 10)
BATCH = 64
RATE, MOMENTUM, NOISE = 0.05, 0.9, 0.5
GOAL = 0.97

Layers = list[dict[str, np.ndarray]]


# --- the model: NumPy, nothing else ------------------------------------------------------
def logits_of(layers: Layers, x: np.ndarray) -> np.ndarray:
    """Scores of the ten digits, f32[images, 10]."""
    for layer in layers[:-1]:
        x = np.maximum(x @ layer["w"] + layer["b"], 0)
    return x @ layers[-1]["w"] + layers[-1]["b"]


def cross_entropy(layers: Layers, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Mean negative log-probability of the right digits, a scalar."""
    scores = logits_of(layers, x)
    shifted = scores - scores.max(axis=1, keepdims=True)
    log_probability = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return -np.take_along_axis(log_probability, y[:, None], axis=1).mean()


@tw.jit
def predict(layers: Layers, x: np.ndarray) -> np.ndarray:
    """The most likely digit of each image."""
    return np.argmax(logits_of(layers, x), axis=1)


@tw.jit
def step(
    layers: Layers, speeds: Layers, x: np.ndarray, y: np.ndarray, rate: np.ndarray
) -> tuple[np.ndarray, Layers, Layers]:
    """One step of gradient descent with momentum: the loss, new layers and new speeds."""
    loss, grads = tw.value_and_grad(cross_entropy)(layers, x, y)
    speeds = tw.tree.map(lambda s, g: MOMENTUM * s - rate * g, speeds, grads)
    return loss, tw.tree.map(lambda p, s: p + s, layers, speeds), speeds


def for_target(name: str | None) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The training step and the prediction, compiled for a target."""
    if name is None:
        return step, predict
    return tw.jit(step.function, target=name), tw.jit(predict.function, target=name)


# --- the same step by hand, to compare ---------------------------------------------------
def numpy_step(
    layers: Layers, speeds: Layers, x: np.ndarray, y: np.ndarray, rate: np.ndarray
) -> tuple[np.ndarray, Layers, Layers]:
    """What ``step`` does, with the backward pass written out in NumPy."""
    inputs = [x]
    for layer in layers[:-1]:
        inputs.append(np.maximum(inputs[-1] @ layer["w"] + layer["b"], 0))
    scores = inputs[-1] @ layers[-1]["w"] + layers[-1]["b"]
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    probability = powers / powers.sum(axis=1, keepdims=True)
    rows = np.arange(len(y))
    loss = -np.log(probability[rows, y]).mean()
    delta = probability
    delta[rows, y] -= 1
    delta /= np.float32(len(y))
    new_layers, new_speeds = [], []
    for layer, speed, before in zip(layers[::-1], speeds[::-1], inputs[::-1], strict=True):
        grads = {"w": before.T @ delta, "b": delta.sum(axis=0)}
        delta = (delta @ layer["w"].T) * (before > 0)
        new_speeds.append({k: MOMENTUM * speed[k] - rate * grads[k] for k in layer})
        new_layers.append({k: layer[k] + new_speeds[-1][k] for k in layer})
    return loss, new_layers[::-1], new_speeds[::-1]


# --- data and training loop --------------------------------------------------------------
def load(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Standardised training images, test images and their labels."""
    digits = load_digits()
    train, test, train_y, test_y = train_test_split(
        digits.data, digits.target, test_size=0.2, random_state=seed, stratify=digits.target
    )
    mean, spread = train.mean(axis=0), train.std(axis=0)
    spread[spread == 0] = 1
    # Some border pixels are nearly always empty: clipped, a rare dot there is an ordinary value.
    train, test = (np.clip((x - mean) / spread, -2.5, 2.5) for x in (train, test))
    return train.astype(np.float32), test.astype(np.float32), train_y, test_y


def start(seed: int) -> tuple[Layers, Layers]:
    """Random layers and speeds of zero."""
    random = np.random.default_rng(seed)
    layers = [
        {"w": (random.standard_normal((a, b)) * (2 / a) ** 0.5).astype(np.float32),
         "b": np.zeros(b, np.float32)}
        for a, b in zip(SIZES, SIZES[1:], strict=False)
    ]
    return layers, [{k: np.zeros_like(v) for k, v in layer.items()} for layer in layers]


def batches(
    x: np.ndarray, y: np.ndarray, random: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Whole mini-batches in random order, with a little noise on the images."""
    order = random.permutation(len(x))
    for i in range(0, len(x) - BATCH + 1, BATCH):
        chosen = order[i:i + BATCH]
        noise = random.standard_normal((BATCH, x.shape[1]), dtype=np.float32)
        yield x[chosen] + np.float32(NOISE) * noise, y[chosen]


def train(epochs: int, seed: int, quiet: bool, target: str | None = None) -> float:
    """Train, report the test accuracy after each epoch, and return the last one."""
    one_step, most_likely = for_target(target)
    train_x, test_x, train_y, test_y = load(seed)
    layers, speeds = start(seed)
    random = np.random.default_rng(seed)
    accuracy = 0.0
    progress = tqdm(range(epochs), unit="epoch", disable=quiet or None, file=sys.stdout)
    for epoch in progress:
        rate = np.float32(RATE * (1 - epoch / epochs))
        losses = []
        for x, y in batches(train_x, train_y, random):
            loss, layers, speeds = one_step(layers, speeds, x, y, rate)
            losses.append(float(loss))
        accuracy = float((most_likely(layers, test_x) == test_y).mean())
        tqdm.write(f"epoch {epoch + 1:3}  loss {statistics.mean(losses):.4f}  "
                   f"test accuracy {accuracy:.2%}", file=sys.stdout)
    return accuracy


def times(
    loops: dict[str, Callable[..., Any]], arguments: tuple[Any, ...], rounds: int = 20,
    steps: int = 20,
) -> dict[str, float]:
    """Microseconds per step of each loop in its best round; every round runs all of them."""
    best = dict.fromkeys(loops, float("inf"))
    for _ in range(rounds):
        for name, one_step in loops.items():
            layers, speeds, *batch = arguments
            begin = time.perf_counter()
            for _ in range(steps):
                _, layers, speeds = one_step(layers, speeds, *batch)
            best[name] = min(best[name], (time.perf_counter() - begin) / steps * 1e6)
    return best


def main() -> int:
    """Run the program; 1 if the network stays below the goal."""
    parser = argparse.ArgumentParser(description="Train on scikit-learn's digits with tilewright.")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no IR")
    parser.add_argument("--target", help="a CPU tier, sim, or sim:sm_90a; this machine if left out")
    options = parser.parse_args()

    accuracy = train(options.epochs, options.seed, options.quiet, options.target)
    one_step = for_target(options.target)[0]
    x, _, y, _ = load(options.seed)
    arguments = (*start(options.seed), x[:BATCH], y[:BATCH], np.float32(RATE))
    if not options.quiet:
        lowered = one_step.lower(*arguments)
        print("\n# The training step as a graph, differentiated\n")
        print(lowered.as_text("graph"))
        print("\n# The training step as kernels, scheduled for the target\n")
        print(lowered.as_text("loops"))
    print(f"\ntest accuracy   {accuracy:.2%} after {options.epochs} epochs (goal {GOAL:.0%})")
    if (options.target or "").startswith("sim"):
        return 0 if accuracy >= GOAL else 1
    took = times({"tilewright": one_step, "numpy": numpy_step}, arguments)
    ours, plain = took["tilewright"], took["numpy"]
    print(f"time per step   {ours:.0f} us with tilewright, {plain:.0f} us with plain NumPy: "
          f"{plain / ours:.1f} times as fast")
    return 0 if accuracy >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
