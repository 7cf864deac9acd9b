"""What every index checks of the keys and values that enter it, and the dtype it stores them in.

Called by the indexes and by `build_index`; each function raises one sentence that names the value and the
remedy.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sakuin.arguments import integer, real, shown
from sakuin.config import RetrievalConfig
from sakuin.dtypes import torch_dtype
from sakuin.index.base import Index, check_array

HEAD_DIM_MAX = 256
GROUP_MAX = 16


def check_geometry(n_kv_heads: int, head_dim: int, group_size: int) -> None:
    """Raise a `ValueError` unless the native core covers these heads."""
    if n_kv_heads < 1:
        raise ValueError(f"there must be at least one KV head, got {n_kv_heads}")
    if not 8 <= head_dim <= HEAD_DIM_MAX or head_dim % 8:
        raise ValueError(f"head_dim must be a multiple of 8 from 8 to {HEAD_DIM_MAX}, got {head_dim}")
    if not 1 <= group_size <= GROUP_MAX:
        raise ValueError(f"a query group must have 1 to {GROUP_MAX} query heads, got {group_size}")


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


def stored_pair(index: Index, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """`keys` and `values`, which must have one shape, as `stored` has each."""
    check_array("keys", keys, None, None)
    check_array("values", values, None, None)
    if keys.shape != values.shape:
        raise ValueError(
            f"keys and values must have one shape, got {tuple(keys.shape)} and {tuple(values.shape)}"
        )
    k, v = (
        stored(name, x, index.n_kv_heads, index.head_dim, index.config)
        for name, x in (("keys", keys), ("values", values))
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
