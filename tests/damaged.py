"""What hypothesis may do to the tensors that a native segment is made of."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from test_native_fuzz import ANYTHING
from torch import Tensor


def flip_bits(data: st.DataObject, fields: dict[str, Tensor]) -> None:
    """Flip some bits in up to four of `fields`, in place."""
    for name in data.draw(st.lists(st.sampled_from(sorted(fields)), min_size=1, max_size=4)):
        flat = fields[name].view(-1).view(torch.uint8)
        for _ in range(data.draw(st.integers(1, 5))):
            flat[data.draw(st.integers(0, len(flat) - 1))] ^= data.draw(st.integers(1, 255))


def misshape(data: st.DataObject, fields: dict[str, Tensor]) -> tuple[str, str]:
    """Take one of `fields` away, or put one of another shape, dtype or layout, or anything, in its place:
    which, and what was done to it."""
    name = data.draw(st.sampled_from(sorted(fields)))
    x = fields[name]
    kind = data.draw(
        st.sampled_from(["missing", "longer", "shorter", "dtype", "strided", "flat", "empty", "other"])
    )
    axis = data.draw(st.integers(0, x.dim() - 1))
    if kind == "missing":
        del fields[name]
    elif kind == "longer":
        fields[name] = torch.cat([x, x.narrow(axis, 0, 1)], axis)
    elif kind == "shorter":
        fields[name] = x.narrow(axis, 0, x.shape[axis] - 1).contiguous()
    elif kind == "dtype":
        fields[name] = x.to(torch.float64 if x.dtype != torch.float64 else torch.int64)
    elif kind == "strided":
        fields[name] = x.repeat_interleave(2, -1)[..., ::2]
    elif kind == "flat":
        fields[name] = x.reshape(-1)
    elif kind == "empty":
        fields[name] = x[:0]
    else:
        fields[name] = data.draw(ANYTHING)
    return name, kind
