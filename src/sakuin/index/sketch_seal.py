"""Sealing for the `sketch` index: the linear algebra that finds a segment's basis, and the tensors that a
sealed segment is made of.

The basis makes the index attention-aware: its coordinates are those in which an error of a key costs the same
logit error in every direction, for the queries this context has seen, sorted by how much logit variance they
carry (docs/method.md). What follows from the coordinates (bits, quantizers, lists, packing) is native
(native/index/sketch/seal.cpp).

Called by `sakuin.index.sketch` alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sakuin.config import RetrievalConfig
from sakuin.index import _native
from sakuin.index.choice import HeadShape
from sakuin.index.int8 import SCALES, Int8KV
from sakuin.index.large_pages import in_large_pages
from sakuin.index.query_moment import QueryMoment, axes_of, second_moment
from sakuin.index.scratch import scratch
from sakuin.index.sizes import Layout

LIST = 64
"""Keys in a list: they share a mean value, and two of the kernels' blocks of 32."""

_VALUE_FEATURES = 8
_SAMPLE = 512  # values from which their axes are found
_VALUE_WEIGHT = 0.7


@dataclass(frozen=True)
class Basis:
    """Coordinates of the keys of a segment: `q.k = (q @ project).y + q.mean`, all `(n_kv_heads, head_dim,
    ...)`.

    project : fp16, columns of length 1.
    weight : fp32 `(n_kv_heads, head_dim)`, the logit variance that a unit of squared error in a coordinate
        costs.
    """

    project: Tensor
    weight: Tensor

    @cached_property
    def inverse(self) -> Tensor:
        """fp64, of `project` as rounded, so that rounding costs nothing: y = inverse @ (k - mean)."""
        # By QR: MKL's LU, behind torch.linalg.inv, was seen to fail from head_dim 256 on with two threads.
        q, r = torch.linalg.qr(self.project.double())
        inverse: Tensor = torch.linalg.solve_triangular(r, q.transpose(1, 2), upper=True)
        return inverse


def find_basis(centred: Tensor, root: Tensor) -> Basis:
    """The basis for keys `centred` fp32 `(n_kv_heads, n, head_dim)` under the queries' second moment, `root`
    root^T, fp64."""
    covariance = second_moment(centred).double()
    seen = root.transpose(1, 2) @ covariance @ root
    size = seen.diagonal(dim1=1, dim2=2).amax(1).clamp(min=1e-300)
    _, vectors = axes_of(seen / size[:, None, None])
    # The inverse of root^T, by its columns' lengths: they are the axes of the moment, at right angles.
    axes = root / root.square().sum(1, keepdim=True)
    project = axes @ vectors.flip(-1).double()
    project = (project / project.norm(dim=1, keepdim=True)).half().contiguous()
    exact = project.double()
    weight = (root.transpose(1, 2) @ exact).square().sum(1)
    return Basis(project, weight.float().contiguous())


def _value_features(values: Tensor, weight: Tensor) -> Tensor:
    """The values' leading principal coordinates `(n_kv_heads, _, n)`, about, scaled so that lists keep close
    values together as well."""
    sample = values[:, :: max(1, values.shape[1] // _SAMPLE)] - values.mean(1, keepdim=True)
    covariance = sample.transpose(1, 2) @ sample
    covariance /= covariance.diagonal(dim1=1, dim2=2).amax(1).clamp(min=1e-30)[:, None, None]
    axes = covariance[:, :, : 2 * _VALUE_FEATURES]
    for _ in range(8):  # towards the leading axes, twice as many as are kept
        axes, _ = torch.linalg.qr(covariance @ axes)
    _, turned = axes_of(axes.transpose(1, 2) @ covariance @ axes)
    axes = (axes @ turned).flip(-1)[:, :, :_VALUE_FEATURES]
    # Centred only here: a centred copy of the values would cost more than the product.
    top: Tensor = axes.transpose(1, 2).contiguous() @ values.transpose(1, 2)
    middle = top.mean(2, keepdim=True)
    top -= middle
    spread = _deviation(top).amax(1)
    # What rounding leaves of values that are all equal is no spread.
    spread = torch.maximum(spread, middle.abs().amax((1, 2)) * 1e-6).clamp(min=1e-30)
    top *= (weight / spread)[:, None, None]
    return top


def _deviation(x: Tensor) -> Tensor:
    """The root mean square along the last dimension."""
    size: Tensor = torch.linalg.vector_norm(x, dim=-1) / math.sqrt(x.shape[-1])
    return size


def _check_squares(name: str, x: Tensor) -> None:
    if not torch.isfinite(torch.linalg.vector_norm(x)):
        raise ValueError(
            f"the {name} are too large for the sketch index (beyond about 1e18); use index='flat' for them"
        )


def made_by_sealing(shape: HeadShape, n: int, config: RetrievalConfig) -> Layout:
    """What the native core writes of a segment of n tokens, beside keys and values."""
    heads, d = shape.n_kv_heads, shape.head_dim
    lists, chunks, value_bytes = -(-n // LIST), -(-d // 16), -(-shape.value_dim // 16) * 8
    subs = max(4, round(config.sketch_bits_for(d) * d / 16) * 4)
    code_bytes = math.ceil(config.code_bits_for(d) * chunks / 2 - 1e-6) * 4
    bits, floats = torch.uint16, torch.float32  # bits: those of bf16 numbers
    return {
        "order": ((heads, n), torch.uint16),
        "sketch": ((heads, lists, subs * 32 + 32), torch.uint8),
        "sub_coordinate": ((heads, subs, 2), torch.int16),
        "sub_step": ((heads, subs, 2), floats),
        "residue": ((heads, d), floats),
        "codes": ((heads, n, code_bytes), torch.uint8),
        "code_plan": ((heads, 3), torch.int32),
        "code_coordinate": ((heads, chunks * 16), torch.int16),
        "code_step": ((heads, chunks * 16), floats),
        "value_codes": ((heads, n, value_bytes), torch.uint8),
        "value_params": ((heads, n, 2), bits),
        "list_codes": ((heads, lists, value_bytes), torch.uint8),
        "list_params": ((heads, lists, 2), bits),
        "within": ((heads, d), floats),
        "tilt": ((heads, min(d, 16), shape.value_dim), bits),
        "code_residue": ((heads, d), floats),
        "spread": ((heads, 3), floats),
    }


def seal(
    keys: Tensor,
    values: Tensor,
    config: RetrievalConfig,
    moment: QueryMoment,
    basis: Basis | None,
    n_threads: int,
) -> tuple[_native.SketchSegment, Basis]:
    """A sealed segment of `keys` `(n_kv_heads, n, head_dim)` and `values` `(n_kv_heads, n, value_dim)`, and
    its basis (`basis` where one is given)."""
    heads, n, d = keys.shape
    keys, values = keys.detach().contiguous(), values.detach().contiguous()
    keys_f32 = scratch("keys", keys.shape).copy_(keys)
    values_f32 = values
    if values.dtype != torch.float32:
        values_f32 = scratch("values", values.shape).copy_(values)
    int8 = Int8KV.of(keys_f32, values_f32) if config.kv_dtype == "int8" else None
    mean = keys_f32.mean(1)
    centred = keys_f32.sub_(mean[:, None])
    _check_squares("keys", centred)
    _check_squares("values", values_f32)
    if basis is None:
        basis = find_basis(centred, moment.root())
    y = torch.bmm(basis.inverse.float(), centred.transpose(1, 2), out=scratch("y", (heads, d, n)))
    _check_squares("keys", y)
    leading = basis.weight[:, 0].sqrt() * _deviation(y[:, 0])
    features = _value_features(values_f32, leading * _VALUE_WEIGHT)

    if int8 is not None:
        keys, values = int8.keys, int8.values  # what is attended exactly; all else knows the originals
    pair: Layout = {"keys": (keys.shape, keys.dtype), "values": (values.shape, values.dtype)}
    shape = HeadShape(d, 1, heads, values.shape[2])
    fields = in_large_pages({**pair, **made_by_sealing(shape, n, config)})
    fields |= {"mean": mean.contiguous(), "basis": basis.project.view(torch.uint16)}
    if int8 is not None:
        fields |= {name: getattr(int8, name) for name in SCALES}
    segment = _native.sketch_seal(
        fields,
        y=y,
        weight=basis.weight,
        features=features,
        keys=keys,
        values=values,
        values_f32=values_f32,
        n_threads=n_threads,
    )
    if int8 is not None:
        # Rows stand in the order of the lists, which is known only now.
        int8.value_scale.copy_(int8.value_scale.gather(1, fields["order"].long()))
    return segment, basis
