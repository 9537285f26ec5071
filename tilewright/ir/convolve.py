"""Convolutions on nodes: contractions of windows with weights, and their gradients.

Shapes are those of PyTorch and ONNX: ``x`` is (batch, channels, *space), the weights of a
convolution are (out channels, channels / groups, *taps), those of a transposed one
(channels, out channels / groups, *taps). Nothing is flipped: these are cross-correlations, as
networks use them. Settings are per axis of space; padding is a pair (before, behind).

Gradients are functions of their own for a caller who is given the cotangent; differentiating the
nodes of a convolution leads to the same nodes. All shapes are checked by the type rules of the
nodes; :func:`output_space` raises ``ValueError`` where the weights are larger than their space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tilewright.ir.attrs import WindowAttrs
from tilewright.ir.build import contract, pad, reshape, window
from tilewright.ir.graph import Node
from tilewright.ir.infer import windows
from tilewright.ir.sizes import Dim
from tilewright.ir.types import concrete
from tilewright.ir.windows import adjoint, cut

Pairs = Sequence[tuple[int, int]]
BATCH, GROUP, OUT, IN = range(4)
SPACE, TAPS = 10, 20
"""Labels of a contraction: that of axis i of space is ``SPACE + i``, of its taps ``TAPS + i``."""


@dataclass(frozen=True)
class Convolution:
    """The settings of a convolution, one per axis of space.

    padding  zeros (before, behind) the data, never negative
    groups   equal parts of the channels that do not see one another
    """

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilations: tuple[int, ...]
    groups: int = 1

    @property
    def dims(self) -> int:
        """The number of axes of space."""
        return len(self.strides)

    def output_space(self, space: Sequence[Dim], taps: Sequence[int]) -> tuple[Dim, ...]:
        """The sizes of the result's axes of space. Raises ``ValueError`` if one would be empty."""
        result = []
        for d, k, s, (low, high), apart in zip(
            space, taps, self.strides, self.padding, self.dilations, strict=True
        ):
            if windows(d + low + high, k, s, apart) == 0:
                raise ValueError(
                    f"convolution: {k} taps {apart} apart do not fit into {d + low + high} elements"
                )
            result.append(windows(d + low + high, k, s, apart))
        return tuple(result)

    def transposed_space(
        self, space: Sequence[Dim], taps: Sequence[int], extra: Sequence[int]
    ) -> tuple[Dim, ...]:
        """The sizes of a transposed convolution's result, ``extra`` elements added behind."""
        return tuple(
            (d - 1) * s - low - high + apart * (k - 1) + 1 + more
            for d, k, s, (low, high), apart, more in zip(
                space, taps, self.strides, self.padding, self.dilations, extra, strict=True)
        )


def settings(
    dims: int, stride: int | Sequence[int] = 1, padding: int | Sequence[int] | Pairs = 0,
    dilation: int | Sequence[int] = 1, groups: int = 1,
) -> Convolution:
    """Settings from numbers, one for all axes of space or one per axis; padding also from pairs."""
    def each(value: int | Sequence[int]) -> tuple[int, ...]:
        listed = (value,) * dims if isinstance(value, int) else tuple(value)
        return listed * dims if len(listed) == 1 else listed

    around: tuple[int | tuple[int, int], ...]
    around = (padding,) * dims if isinstance(padding, int) else tuple(padding)
    around = around * dims if len(around) == 1 else around
    pairs = tuple((p, p) if isinstance(p, int) else (p[0], p[1]) for p in around)
    result = Convolution(each(stride), pairs, each(dilation), groups)
    if {len(result.strides), len(result.padding), len(result.dilations)} != {dims}:
        raise ValueError(f"convolution: {dims} axes of space need as many settings of each kind")
    if min(*result.strides, *result.dilations, groups) < 1 or min(map(min, pairs)) < 0:
        raise ValueError("convolution: strides, dilations and groups are 1 or more, padding 0")
    return result


def _taps(w: Node) -> tuple[int, ...]:
    """The sizes of the weights' axes of space."""
    return concrete(w.shape[2:])


# --- convolution ------------------------------------------------------------------------------
def convolution(x: Node, w: Node, c: Convolution) -> Node:
    """(batch, channels, *space) with (out, channels / groups, *taps) to (batch, out, *space)."""
    batch, channels, *space = x.shape
    out, own, taps = w.shape[0], w.shape[1], _taps(w)
    if channels != own * c.groups or out % c.groups:
        raise ValueError(
            f"convolution: weights {w.type} do not fit {channels} channels in {c.groups} groups")
    size = c.output_space(space, taps)
    labels = _Labels(c, w.shape)
    result = contract(
        _windows(x, labels, taps, c), labels.of_weights(w), labels.windows, labels.weights,
        labels.result)
    return reshape(result, (batch, out, *size))


def convolution_input_grad(
    grad: Node, w: Node, shape: Sequence[Dim], c: Convolution
) -> Node:
    """The gradient of ``x``, of this shape, from that of the result."""
    labels = _Labels(c, w.shape)
    _, _, *space = shape
    taps = _taps(w)
    seen = contract(
        labels.of_result(grad), labels.of_weights(w), labels.result, labels.weights,
        labels.windows)
    spans = [(low, d) for d, (low, _) in zip(space, c.padding, strict=True)]
    result = adjoint(seen, _attrs(labels, taps, c), spans)
    return reshape(result, tuple(shape))


def convolution_weight_grad(
    grad: Node, x: Node, shape: Sequence[int], c: Convolution
) -> Node:
    """The gradient of the weights, of this shape, from that of the result."""
    labels = _Labels(c, shape)
    _, _, *taps = shape
    seen = _windows(x, labels, taps, c)
    # A transposed convolution's result may have room for more windows: output_padding >= stride.
    spare = {
        axis: (0, grad.shape[2 + i]) for i in range(c.dims)
        if seen.shape[axis := labels.windows.index(SPACE + i)] != grad.shape[2 + i]
    }
    result = contract(
        cut(seen, spare) if spare else seen, labels.of_result(grad), labels.windows, labels.result,
        labels.weights)
    return reshape(result, tuple(shape))


# --- transposed convolution -------------------------------------------------------------------
def transposed_convolution(
    x: Node, w: Node, c: Convolution, output_padding: Sequence[int] | None = None
) -> Node:
    """The adjoint of a convolution with these weights (channels, out / groups, *taps)."""
    batch, channels, *space = x.shape
    given, own, taps = w.shape[0], w.shape[1], _taps(w)
    if channels != given or channels % c.groups:
        raise ValueError(
            f"transposed convolution: weights {w.type} do not fit {channels} channels "
            f"in {c.groups} groups")
    size = c.transposed_space(space, taps, output_padding or [0] * c.dims)
    if min(size) < 1:
        raise ValueError(f"transposed convolution: the result would have the sizes {size}")
    return convolution_input_grad(x, w, (batch, own * c.groups, *size), c)


def transposed_input_grad(grad: Node, w: Node, shape: Sequence[Dim], c: Convolution) -> Node:
    """The gradient of a transposed convolution's ``x``, of this shape."""
    result = convolution(grad, w, c)
    return cut(result, {2 + i: (0, shape[2 + i]) for i in range(c.dims)})


def transposed_weight_grad(grad: Node, x: Node, shape: Sequence[int], c: Convolution) -> Node:
    """The gradient of a transposed convolution's weights, of this shape."""
    return convolution_weight_grad(x, grad, shape, c)


# --- parts ------------------------------------------------------------------------------------
class _Labels:
    """The labels of the contraction, and the shapes that go with them.

    Without groups there is no label for them; where a group has one channel, none for that.
    """

    def __init__(self, c: Convolution, weights: Sequence[Dim]) -> None:
        self.dims, self.groups = c.dims, c.groups
        self.out, self.own = weights[0] // c.groups, weights[1]
        group = (GROUP,) if c.groups > 1 else ()
        inner = () if group and self.own == 1 else (IN,)
        outer = () if group and self.out == 1 else (OUT,)
        space = tuple(SPACE + i for i in range(c.dims))
        taps = tuple(TAPS + i for i in range(c.dims))
        self.lead = 1 + len(group) + len(inner)
        self.windows = (BATCH, *group, *inner, *space, *taps)
        self.weights = (*group, *outer, *inner, *taps)
        self.result = (BATCH, *group, *outer, *space)

    def _split(self, x: Node, labels: Sequence[int], sizes: Sequence[Dim]) -> Node:
        """``x`` with these sizes for its channels, as far as there are labels for them."""
        shape = x.shape
        named = dict(zip((BATCH, GROUP, OUT, IN), (shape[0], self.groups, *sizes), strict=True))
        head = [named[label] for label in labels if label < SPACE]
        return reshape(x, (*head, *shape[len(shape) - self.dims:]))

    def of_data(self, x: Node) -> Node:
        """``x`` with an axis for each label but those of taps."""
        return self._split(x, self.windows, (self.out, self.own))

    def of_weights(self, w: Node) -> Node:
        """The weights with an axis for each label."""
        return self._split(w, self.weights, (self.out, self.own))

    def of_result(self, y: Node) -> Node:
        """The result, or its cotangent, with an axis for each label."""
        return self._split(y, self.result, (self.out, self.own))


def _attrs(labels: _Labels, taps: Sequence[int], c: Convolution) -> WindowAttrs:
    axes = tuple(range(labels.lead, labels.lead + c.dims))
    return WindowAttrs(axes, tuple(taps), c.strides, c.dilations)


def _windows(x: Node, labels: _Labels, taps: Sequence[int], c: Convolution) -> Node:
    """The windows of the padded data."""
    split = labels.of_data(x)
    low = [0] * labels.lead + [p[0] for p in c.padding]
    high = [0] * labels.lead + [p[1] for p in c.padding]
    a = _attrs(labels, taps, c)
    padded = pad(split, low, high, [0] * split.type.rank)
    return window(padded, a.axes, a.sizes, a.strides, a.dilations)
