"""Least squares for matrices of full rank, whose results have known sizes.

PyTorch traces ``linalg.lstsq`` with no driver: those which find a rank give results of a size that
depends on it. The driver ``gels`` does not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tilewright.torch.instead import instead_of

aten = torch.ops.aten

NAME = "torch.linalg.lstsq"


@instead_of(aten.linalg_lstsq.default, torch._C.DispatchKey.AutogradCPU)
def lstsq(
    self: Tensor, b: Tensor, rcond: float | None = None, *, driver: str | None = None
) -> tuple[Tensor, ...]:
    """x with the least |a x - b|, of the least |x| if there are several, by Q and R of a or a^T.

    Also the squares of what is left, and nothing as ranks and singular values. A zero on the
    diagonal of R raises as in PyTorch when the graph has run; of zeros alone x is 0.
    """
    a = self
    vector = b.ndim == a.ndim - 1
    if driver != "gels" or not _fits(a, b.unsqueeze(-1) if vector else b):
        return NotImplemented
    b = b.unsqueeze(-1) if vector else b
    m, n = a.shape[-2:]
    lead = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = a.expand(*lead, m, n), b.expand(*lead, *b.shape[-2:])
    x = _solved(a, b)
    left = (a @ x - b).square().sum(-2) if m > n else a.new_empty(0)
    rows = x.mT  # LAPACK leaves x, by columns, where b was
    x = (torch.nn.functional.pad(rows, (0, m - n))[..., :n] if m > n else rows.contiguous()).mT
    x = x.squeeze(-1) if vector else x
    return x, left, a.new_empty(0, dtype=torch.int64), a.new_empty(0)


def _fits(a: Tensor, b: Tensor) -> bool:
    """Whether these are matrices with elements, for each other."""
    if a.ndim < 2 or a.ndim != b.ndim or a.dtype != b.dtype or a.dtype not in (
        torch.float32, torch.float64
    ):
        return False
    known = all(isinstance(d, int) and d for d in (*a.shape, *b.shape))
    return known and a.shape[-2] == b.shape[-2] and all(
        c == d or 1 in (c, d) for c, d in zip(a.shape[:-2], b.shape[:-2], strict=True))


def _solved(a: Tensor, b: Tensor) -> Tensor:
    (m, n), none = a.shape[-2:], (a == 0).all(-1, keepdim=True).all(-2, keepdim=True)
    a = torch.where(none, torch.eye(m, n, dtype=a.dtype), a)
    q, r = torch.linalg.qr(a if m >= n else a.mT)
    count = r.shape[-1]
    zeros = r.diagonal(dim1=-2, dim2=-1) == 0
    first = torch.where(zeros, torch.arange(1, count + 1), count + 1).amin(-1)
    codes = torch.where(first > count, 0, first).to(torch.int32)
    aten._linalg_check_errors(codes, NAME, is_matrix=codes.numel() == 1)
    if m >= n:
        x = torch.linalg.solve_triangular(r, q.mT @ b, upper=True)
    else:
        x = q @ torch.linalg.solve_triangular(r.mT, b, upper=False)
    return x.masked_fill(none, 0)
