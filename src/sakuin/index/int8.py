"""Keys and values in 8 bits (`kv_dtype="int8"`): how they become whole numbers, and what these stand for.

Keys have channels that reach much further than others, values have tokens that do (KIVI, arXiv 2402.02750).
So a key is `zero + scale * number` with one zero and one scale for each channel of a segment, whose range is
cut into 254 steps, and a value is `scale * number` with one scale for each token. Kernels never see them: the
scales of keys go into the query, their zeros add a constant to a query's scores, and the scales of values go
into the weights.

Numbers are rounded once. Where segments are merged, keys are rounded again, to the range of all of them: by
half a step at most each time, and not at all in a channel whose range stays. Values keep their scales.

Called by the indexes that can store so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sakuin.index import _native

SCALES = ("key_scale", "key_zero", "value_scale")
"""The fields of `Int8KV` beside keys and values, in order."""
_LARGEST = 127


@dataclass(frozen=True)
class Int8KV:
    """Keys and values of n tokens in 8 bits.

    keys, values : int8 `(n_kv_heads, n, head_dim)`, contiguous.
    key_scale, key_zero : fp32 `(n_kv_heads, head_dim)`.
    value_scale : fp32 `(n_kv_heads, n)`.
    """

    keys: Tensor
    values: Tensor
    key_scale: Tensor
    key_zero: Tensor
    value_scale: Tensor

    @classmethod
    def of(cls, keys: Tensor, values: Tensor) -> Int8KV:
        """The nearest to `keys` and `values` `(n_kv_heads, n, head_dim)` of a float dtype; n at least 1."""
        keys, values = keys.float(), values.float()
        low, high = keys.amin(1) / 2, keys.amax(1) / 2  # halves: the whole range may be more than fp32 holds
        zero, key_scale = high + low, _step(high - low)
        value_scale = _step(values.abs().amax(2))
        return cls(
            _numbers((keys - zero[:, None]) / key_scale[:, None]),
            _numbers(values / value_scale[:, :, None]),
            key_scale,
            zero,
            value_scale,
        )

    def span(self) -> _native.Span:
        """For `sakuin.index._native.flat_attend`."""
        return _native.Span(self.keys, self.values, self.key_scale, self.key_zero, self.value_scale)

    def decode(self) -> tuple[Tensor, Tensor]:
        """Keys and values in fp32."""
        return (
            torch.addcmul(self.key_zero[:, None], self.keys.float(), self.key_scale[:, None]),
            self.values.float().mul_(self.value_scale[:, :, None]),
        )


def floats_of(fields: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Keys and values of a segment with these fields, as they are stored; those in int8 in fp32."""
    if "key_scale" not in fields:
        return fields["keys"], fields["values"]
    return Int8KV(*(fields[name] for name in ("keys", "values", *SCALES))).decode()


def span_of(fields: Mapping[str, Tensor]) -> _native.Span:
    """The same for `sakuin.index._native.flat_attend`."""
    return _native.Span(fields["keys"], fields["values"], *(fields.get(name) for name in SCALES))


def _step(reach: Tensor) -> Tensor:
    step = reach / _LARGEST
    return torch.where(step > 0, step, 1.0)


def _numbers(x: Tensor) -> Tensor:
    return x.round_().clamp_(-_LARGEST, _LARGEST).to(torch.int8)
