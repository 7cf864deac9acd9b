"""What every index checks of the keys and values that enter it, and the dtype it stores them in.

Called by the indexes and by `build_index`; each function raises one sentence that names the value and the
remedy.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sakuin.arguments import integer, real, shown
from sakuin.config import RetrievalConfig
from sakuin.dtypes import torch_dtype
from sakuin.index import _native
from sakuin.index.base import Index, check_array


def check_geometry(n_kv_heads: int, head_dim: int, group_size: int, value_dim: int | None = None) -> None:
    """Raise a `ValueError` unless the native core covers these heads, keys of `head_dim` and values of
    `value_dim` (None: as many) dimensions."""
    least, most, step = _native.LEAST_HEAD_DIM, _native.MOST_HEAD_DIM, _native.HEAD_DIM_STEP
    if n_kv_heads < 1:
        raise ValueError(f"there must be at least one KV head, got {n_kv_heads}")
    if not least <= head_dim <= most or head_dim % step:
        raise ValueError(f"head_dim must be a multiple of {step} from {least} to {most}, got {head_dim}")
    if value_dim is not None and (not least <= value_dim <= most or value_dim % step):
        raise ValueError(
            f"the values' head_dim must be a multiple of {step} from {least} to {most}, got {value_dim}"
        )
    if not 1 <= group_size <= _native.MOST_GROUP:
        raise ValueError(f"a query group must have 1 to {_native.MOST_GROUP} query heads, got {group_size}")


def check_finite(name: str, x: Tensor) -> None:
    """Raise a `ValueError` if `x` holds NaN or infinity."""
    # One sum shows both. It may also overflow by itself, so that only the exact test may refuse.
    if not torch.isfinite(x.sum(dtype=torch.float32)) and not torch.isfinite(x).all():
        what = "NaN" if torch.isnan(x).any() else "infinite numbers"
        raise ValueError(
            f"{name} hold {what}, and retrieval attention needs finite numbers; look for an overflow in the "
            "model, or load it in bfloat16 or float32"
        )


def check_k(k: int, n_tokens: int) -> int:
    """`k` as a plain int; a `ValueError` unless `search` can return k of `n_tokens` keys."""
    number = integer(k)
    if number is None or not 1 <= number <= n_tokens:
        raise ValueError(f"k must be a whole number from 1 to the index's {n_tokens} tokens, got {shown(k)}")
    return number


def check_crop(n_tokens: int, have: int) -> None:
    """Raise a `ValueError` unless `crop` can keep `n_tokens` of the index's tokens."""
    number = integer(n_tokens)
    if number is None or not 0 <= number <= have:
        raise ValueError(f"crop takes 0 to the index's {have} tokens, got {shown(n_tokens)}")


def check_attend(
    index: Index,
    q: Tensor,
    scaling: float,
    softcap: float | None,
    static_lse: Tensor | None,
    mass: Tensor | None,
) -> None:
    """Raise a `ValueError` unless `Index.attend` can take these beside `q`. Native kernels check the same
    themselves."""
    if real(scaling) is None:
        raise ValueError(f"scaling must be a finite number, got {shown(scaling)}")
    if softcap is not None and (real(softcap) or 0.0) <= 0:
        raise ValueError(f"softcap must be above 0 or None, got {shown(softcap)}")
    if static_lse is not None and (not isinstance(static_lse, Tensor) or static_lse.shape != q.shape[:2]):
        raise ValueError(f"static_lse must have shape {tuple(q.shape[:2])}, got {_form(static_lse)}")
    shape = (index.n_kv_heads, index.n_tokens)
    if mass is not None and not isinstance(mass, Tensor):
        raise ValueError(f"mass must be float32 of shape {shape}, got {_form(mass)}")
    if mass is not None and (mass.dtype != torch.float32 or mass.shape != shape):
        raise ValueError(
            f"mass must be float32 of shape {shape}, got {mass.dtype} of shape {tuple(mass.shape)}"
        )


def _form(value: object) -> str:
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else shown(value)


def check_stored(index: Index, tensors: Mapping[str, Tensor]) -> None:
    """Raise a `ValueError` unless keys and values of a stored segment are of the index's heads."""
    for name, width in (("keys", index.head_dim), ("values", index.value_dim)):
        heads, _, found = tensors[name].shape
        if (heads, found) != (index.n_kv_heads, width):
            raise ValueError(
                f"a stored segment has heads of shape {(heads, found)} where "
                f"{(index.n_kv_heads, width)} are needed"
            )


def stored_pair(index: Index, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """`keys` and `values`, which must be of the same tokens, as `stored` has each."""
    check_array("keys", keys, None, None)
    check_array("values", values, None, None)
    if keys.shape[:2] != values.shape[:2]:
        raise ValueError(
            f"keys and values must have the same heads and tokens, got {tuple(keys.shape)} and "
            f"{tuple(values.shape)}"
        )
    k, v = (
        stored(name, x, index.n_kv_heads, width, index.config)
        for name, x, width in (("keys", keys, index.head_dim), ("values", values, index.value_dim))
    )
    return k, v


def stored(name: str, x: Tensor, n_kv_heads: int, head_dim: int, config: RetrievalConfig) -> Tensor:
    """A contiguous copy of keys or values `(n_kv_heads, n, head_dim)` in the dtype of `config.kv_dtype`; in
    their own for `"int8"`, which needs all keys of a segment (`sakuin.index.int8`)."""
    check_array(name, x, n_kv_heads, head_dim)
    check_finite(name, x)
    dtype = torch_dtype(config.kv_dtype) or x.dtype
    copy = x.detach().to(dtype, copy=True, memory_format=torch.contiguous_format)
    if dtype == torch.float16 and x.dtype != torch.float16 and not torch.isfinite(copy).all():
        largest = float(x.abs().max())
        raise ValueError(
            f"{name} reach {largest:g}, which float16 does not hold; use kv_dtype='bf16' or 'fp32'"
        )
    return copy
