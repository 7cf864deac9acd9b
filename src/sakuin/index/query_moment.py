"""What an index remembers of the queries it has seen: their second moment. It says how much a difference
between two keys matters to these queries.

Called by `sakuin.index.sketch` and `sakuin.index.graph`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sakuin.index.scratch import scratch

_FLOOR = 1e-4  # of the largest query variance: below it a direction is treated as this strong
_BLOCK = 64  # rows of a product that are found together


def second_moment(x: Tensor) -> Tensor:
    """The sum of x x^T over rows `(heads, n, d)`: fp32 `(heads, d, d)`, symmetric.

    In strips of 64 rows from the diagonal on: a fifth less time than the whole product at d = 256.
    """
    d = x.shape[2]
    if d <= _BLOCK:
        return x.transpose(1, 2) @ x
    total = torch.empty(x.shape[0], d, d, dtype=x.dtype, device=x.device)
    for i in range(0, d, _BLOCK):
        j = min(i + _BLOCK, d)
        strip = x[:, :, i:j].transpose(1, 2) @ x[:, :, i:]
        total[:, i:j, i:] = strip
        total[:, j:, i:j] = strip[:, :, j - i :].transpose(1, 2)
    return total


class QueryMoment:
    """Running second moment of each query group's queries, fp64 `(n_kv_heads, head_dim, head_dim)`."""

    def __init__(self, n_kv_heads: int, head_dim: int) -> None:
        self.total = torch.zeros(n_kv_heads, head_dim, head_dim, dtype=torch.float64)
        self.count = 0

    def add(self, queries: Tensor) -> None:
        """Add `queries` `(n_query_heads, m, head_dim)`; a `ValueError` if their squares are not finite."""
        heads, _, d = self.total.shape
        grouped = scratch("queries", queries.shape).copy_(queries.detach()).reshape(heads, -1, d)
        total = self.total + second_moment(grouped).double()
        if not torch.isfinite(total.sum()):
            raise ValueError(
                "queries hold NaN, infinite numbers or numbers beyond about 1e18; look for an overflow in "
                "the model"
            )
        self.total = total
        self.count += grouped.shape[1]

    def root(self) -> Tensor:
        """R with R R^T the mean of q q^T, made positive definite; the identity for a head whose queries are
        unknown or all zero."""
        heads, d, _ = self.total.shape
        identity = torch.eye(d, dtype=torch.float64).expand(heads, d, d)
        if self.count == 0:
            return identity
        # Scaled to fit float32, in which axes are found twice as fast and well enough: any basis would do.
        scale = (self.total.diagonal(dim1=1, dim2=2).amax(1) / self.count).clamp(min=1e-300)
        values, vectors = axes_of(self.total / self.count / scale[:, None, None])
        floored = torch.maximum(values, values[:, -1:] * _FLOOR).double() * scale[:, None]
        root = vectors.double() * floored.clamp(min=0).sqrt()[:, None]
        return torch.where((floored[:, -1] > 0)[:, None, None], root, identity)

    def stored(self) -> dict[str, Tensor]:
        """The moment as tensors; none while no query is known."""
        if not self.count:
            return {}
        return {"moment": self.total, "moment_count": torch.tensor([self.count])}

    def rounded(self) -> dict[str, Tensor]:
        """As `stored`, in fp32: what a segment keeps, so that a sequence that is cut at its end can go on."""
        return {name: x.float() if x.is_floating_point() else x for name, x in self.stored().items()}

    @classmethod
    def of(cls, n_kv_heads: int, head_dim: int, stored: Mapping[str, Tensor]) -> QueryMoment:
        """The moment that `stored` or `rounded` gave; a `ValueError` where it is none."""
        moment = cls(n_kv_heads, head_dim)
        if "moment" in stored:
            total, count = stored["moment"], stored["moment_count"]
            if total.shape != moment.total.shape or count.shape != (1,):
                raise ValueError(f"a stored moment has the wrong shape {tuple(total.shape)}")
            moment.total, moment.count = total.double(), int(count)
        return moment

    def copy(self) -> QueryMoment:
        """An independent copy."""
        other = QueryMoment(0, 0)
        other.total, other.count = self.total, self.count  # `add` replaces the tensor, never writes into it
        return other


def axes_of(x: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, the least first, and eigenvectors of symmetric `x`: in float32, and as it comes where MKL
    says that it does not converge there, which happens with many equal eigenvalues."""
    try:
        values, vectors = torch.linalg.eigh(x.float())
    except RuntimeError:  # torch.linalg.LinAlgError, which its types do not export
        values, vectors = (y.float() for y in torch.linalg.eigh(x.double()))
    return values, vectors
