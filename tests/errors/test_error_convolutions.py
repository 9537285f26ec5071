"""The exact text of errors of convolutions and pools."""

from __future__ import annotations

import numpy as np
import pytest
from error_harness import message, text

import tilewright as tw

X = np.ones((1, 4, 5, 6), np.float32)
W = np.ones((6, 4, 3, 3), np.float32)


def test_channels_that_differ() -> None:
    def call():
        return tw.nn.conv(X, W[:, :3])

    assert message(tw.ShapeError, call) == text("""
        tw.nn.conv: the channels of data and weights do not fit
          expected: 3 channels in x
          got:      f32[1, 4, 5, 6] and f32[6, 3, 3, 3]
          at:       HERE in call
                    return tw.nn.conv(X, W[:, :3])
    """)


def test_groups_that_do_not_divide() -> None:
    def call():
        return tw.nn.conv(X, W[:, :1], groups=4)

    assert message(tw.ShapeError, call) == text("""
        tw.nn.conv: the channels of data and weights do not fit in 4 groups
          expected: 4 channels in x, and as many in w as 4 divides
          got:      f32[1, 4, 5, 6] and f32[6, 1, 3, 3]
          at:       HERE in call
                    return tw.nn.conv(X, W[:, :1], groups=4)
    """)


def test_data_without_a_batch() -> None:
    def call(x):
        return tw.nn.conv(x, W)

    assert message(tw.ShapeError, tw.jit(call), X[0]) == text("""
        tw.nn.conv: data and weights do not have the same axes of space
          expected: x of (batch, channels, *space) and w of (channels, channels, *taps)
          got:      f32[4, 5, 6] (argument x) and f32[6, 4, 3, 3]
          at:       HERE in call
                    return tw.nn.conv(x, W)
          hint:     x[None] adds a batch of one
    """)


def test_window_larger_than_the_data() -> None:
    def call():
        return tw.nn.conv(X, W, padding=(0, 1), dilation=3)

    assert message(tw.ShapeError, call) == text("""
        tw.nn.conv: a window is larger than axis 2 of the data
          expected: 7 elements or more
          got:      5, in f32[1, 4, 5, 6]
          at:       HERE in call
                    return tw.nn.conv(X, W, padding=(0, 1), dilation=3)
    """)


def test_padding_of_a_pool_beyond_half_a_window() -> None:
    def call():
        return tw.nn.max_pool(X, 2, padding=2)

    assert message(tw.ShapeError, call) == text("""
        tw.nn.max_pool: padding does not fit
          expected: at most half of a window of 2
          got:      2
          at:       HERE in call
                    return tw.nn.max_pool(X, 2, padding=2)
    """)


@pytest.mark.parametrize(("call", "kind", "part"), [
    (lambda: tw.nn.conv(X, W, stride=0), tw.ShapeError, "an int of 1 or more, or 2 of them"),
    (lambda: tw.nn.conv(X, W, stride=(1, 2, 3)), tw.ShapeError, "stride does not fit"),
    (lambda: tw.nn.conv(X, W, stride=1.5), tw.DTypeError, "stride is not made of integers"),
    (lambda: tw.nn.conv(X, W, padding=-1), tw.ShapeError, "padding does not fit"),
    (lambda: tw.nn.conv(X, W, padding=[1, (1, 2, 3)]), tw.ShapeError, "a number or pair"),
    (lambda: tw.nn.conv(X, W, padding="full"), tw.ShapeError, "'valid' or 'same'"),
    (lambda: tw.nn.conv(X, W[:, :, :0]), tw.ShapeError, "the weights are empty"),
    (lambda: tw.nn.conv(X > 0, W > 0), tw.DTypeError, "neither operand has numbers"),
    (lambda: tw.nn.conv_transpose(X, W, padding="same"), tw.ShapeError, "numbers, pairs or"),
    (lambda: tw.nn.conv_transpose(X, W[:4], output_padding=1), tw.ShapeError, "less than the str"),
    (lambda: tw.nn.conv_transpose(X, W[:4], padding=4), tw.ShapeError, "nothing would be left"),
    (lambda: tw.nn.conv_transpose(X, W), tw.ShapeError, "6 channels in x"),
    (lambda: tw.nn.max_pool(X[0, 0], 2), tw.ShapeError, "no axes of space"),
    (lambda: tw.nn.avg_pool(X, 9), tw.ShapeError, "larger than axis 2"),
    (lambda: tw.nn.avg_pool(X, 2, divisor=0), tw.ShapeError, "divisor does not fit"),
    (lambda: tw.nn.adaptive_pool(X, 2, "min"), tw.ShapeError, "'avg' or 'max'"),
    (lambda: tw.nn.adaptive_pool(X[:, :, :0], 2), tw.ShapeError, "an axis of space is empty"),
])
def test_what_is_refused(call, kind: type[Exception], part: str) -> None:
    with pytest.raises(kind, match=part) as raised:
        call()
    assert "tests/errors" in str(raised.value)
