"""PyTorch's own samples of its operators: all of the operator compiled, results as eager's."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import opinfo
import pytest
import torch

from tilewright.torch.decompositions import decompositions
from tilewright.torch.table import find

TABLE = Path(__file__).parents[2] / "docs" / "torch-operators.md"

COMPILED = """
    _segment_reduce.lengths abs acos add addcdiv addcmul addmm all amax amin aminmax angle any
    arange argmax argmin as_strided as_strided_scatter atan2 atanh baddbmm bernoulli bmm
    bucketize cat cdist ceil cfloat cholesky_inverse clamp clamp_max clamp_min clone complex
    constant_pad_nd copysign cos count_nonzero cross cummax cumprod cumsum diag diag_embed
    diagonal diagonal_scatter diff digamma dist div.floor_rounding div.no_rounding_mode dot eq
    erf erfc erfinv exp expand expm1 eye fft.fft fft.hfftn fft.irfft2 fill flatten flip floor
    floor_divide fmax fmin fmod frac frexp gather grid_sampler_2d gt hash_tensor heaviside
    histogram histogramdd hypot i0 igamma index_add index_copy index_reduce.amax
    index_reduce.mean index_select isclose isin isinf isnan kron kthvalue lerp lgamma
    linalg.cholesky linalg.det linalg.eig linalg.eigh linalg.householder_product linalg.inv
    linalg.ldl_solve linalg.lu linalg.lu_solve linalg.pinv linalg.qr linalg.solve
    linalg.solve_triangular linalg.svd linalg.vecdot linalg.vector_norm linspace log log1p
    log_softmax logaddexp logcumsumexp logical_and logical_not logit logspace logsumexp
    lu_unpack masked.argmax masked.norm masked.softmax masked.sum masked.var masked_fill
    masked_scatter matmul matrix_exp max.reduction_with_dim maximum mean median minimum mm mode
    movedim mul mvlgamma.mvlgamma_p_3 nan_to_num nanmedian nansum ne neg nextafter
    nn.functional.adaptive_avg_pool2d nn.functional.adaptive_max_pool2d
    nn.functional.alpha_dropout nn.functional.avg_pool2d nn.functional.batch_norm
    nn.functional.bilinear nn.functional.binary_cross_entropy
    nn.functional.binary_cross_entropy_with_logits nn.functional.celu
    nn.functional.channel_shuffle nn.functional.conv1d nn.functional.conv2d
    nn.functional.conv_transpose2d nn.functional.cosine_similarity nn.functional.cross_entropy
    nn.functional.dropout nn.functional.elu nn.functional.embedding nn.functional.embedding_bag
    nn.functional.fractional_max_pool2d nn.functional.gaussian_nll_loss nn.functional.gelu
    nn.functional.glu
    nn.functional.group_norm nn.functional.hardshrink nn.functional.hardsigmoid
    nn.functional.hardtanh nn.functional.huber_loss nn.functional.interpolate.bilinear
    nn.functional.interpolate.nearest nn.functional.kl_div nn.functional.l1_loss
    nn.functional.layer_norm nn.functional.leaky_relu nn.functional.linear
    nn.functional.local_response_norm nn.functional.logsigmoid nn.functional.max_pool2d
    nn.functional.mish nn.functional.mse_loss nn.functional.nll_loss nn.functional.normalize
    nn.functional.pad.circular nn.functional.pad.constant nn.functional.pad.reflect
    nn.functional.pad.replicate nn.functional.pdist nn.functional.pixel_shuffle
    nn.functional.pixel_unshuffle nn.functional.poisson_nll_loss nn.functional.prelu
    nn.functional.rms_norm nn.functional.scaled_dot_product_attention nn.functional.silu
    nn.functional.smooth_l1_loss nn.functional.softplus nn.functional.softshrink
    nn.functional.threshold nn.functional.unfold nonzero_static norm permute polar
    polygamma.polygamma_n_1 polygamma.polygamma_n_2 pow prod put quantile reciprocal remainder
    renorm repeat reshape resize_as_ roll rot90 round rsqrt rsub scatter scatter_add
    scatter_reduce.amin scatter_reduce.mean scatter_reduce.prod scatter_reduce.sum searchsorted
    select select_scatter sigmoid sign signbit sin sinc slice slice_scatter softmax sort
    special.airy_ai special.bessel_j1 special.bessel_y0 special.erfcx
    special.hermite_polynomial_h special.log_ndtr special.modified_bessel_k1 special.ndtri
    special.shifted_chebyshev_polynomial_w special.spherical_bessel_j0 special.zeta sqrt squeeze
    stack std stft sub sum sum_to_size t take take_along_dim tan tanh tile topk transpose
    trapezoid triangular_solve tril triu trunc unbind unfold unsqueeze var view where xlogy
""".split()
"""Operators of which every sample is compiled."""


@functools.cache
def by_name() -> dict[str, Any]:
    return {opinfo.name_of(op): op for op in opinfo.operators(torch.float32)}


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_and_as_eager(name: str) -> None:
    for sample in opinfo.samples(by_name()[name], torch.float32, 2):
        outcome = opinfo.check(by_name()[name], sample)
        assert outcome.kind in ("compiled", "skipped"), outcome


def test_wrong_results_are_seen() -> None:
    """The judge of all of this: a result that is off by a little is wrong."""
    op = by_name()["exp"]
    sample = opinfo.Sample(op, next(opinfo.samples(op, torch.float32)))
    expected = sample.run(sample.call)
    off = sample.run(lambda *tensors: sample.call(*tensors) * 1.0001)
    assert not opinfo._difference(op, sample, expected, expected)
    assert opinfo._difference(op, sample, off, expected).startswith("results[0]")


def documented() -> dict[str, list[str]]:
    """The operators of the table of the docs, and what it says runs in PyTorch without a row."""
    found = {}
    for line in TABLE.read_text().splitlines():
        cells = [c.strip() for c in line.split("|")]
        if len(cells) > 3 and cells[1].startswith("`"):
            found[cells[1].strip("`")] = re.findall(r"`([\w.]+)`(?! \()", cells[-2])
    return found


def test_the_table_of_the_docs_is_of_these_rows() -> None:
    table = documented()
    assert len(table) > 600
    for name, targets in table.items():
        for target in targets:
            packet, _, overload = target.rpartition(".")
            op = getattr(getattr(torch.ops.aten, packet, None), overload, None)
            assert op is None or (find(op) is None and op not in decompositions()), (
                f"{name}: {target} is compiled by now: run tests/pytorch/opinfo_run.py")
