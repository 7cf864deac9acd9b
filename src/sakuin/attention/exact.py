"""Exact attention in torch: blockwise over the segments for prefill, and over dense masks where `sdpa`
cannot.

Every function returns what the softmax over all tokens gives, to rounding; none makes a mask or a score
matrix over the whole past. Caches, layers and indexes are not known here. Called by `sakuin.cache.layer`
(retrieval), by `sakuin.index.base` (the static part) and by backends (other caches).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from sakuin.attention.partial import PartialAttention
from sakuin.attention.softmax import Softmax

LEAST_BLOCK = 4096
"""Smaller neighbouring blocks are put together up to this many tokens: fewer and larger matrix products, and
in bf16 fewer roundings (each block's output is rounded once)."""
MOST_SCORES = 1 << 24
"""Scores held at a time by the paths in plain torch (64 MB in fp32)."""


def attend_blocks(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    past: Iterable[tuple[Tensor, Tensor]],
    softmax: Softmax,
) -> Tensor:
    """Causal attention of a chunk of a prompt over all that came before it and over itself.

    q `(n_query_heads, t, head_dim)`, keys and values of the chunk `(n_kv_heads, t, head_dim)`, past: blocks
    of any length `(n_kv_heads, n, head_dim)`, any device and float dtype; the last dimension of values may be
    another. Returns `(n_query_heads, t, value_dim)` in q's dtype.
    """
    out, lse = block_attention(q, keys, values, softmax, causal=True)
    for block_keys, block_values in _gathered(past, q):
        part, part_lse = block_attention(q, block_keys, block_values, softmax)
        both = torch.logaddexp(lse, part_lse)
        out.mul_((lse - both).exp_()[..., None]).addcmul_(part, (part_lse - both).exp_()[..., None])
        lse = both
    if softmax.sinks is not None:
        out.mul_((lse - torch.logaddexp(lse, softmax.sinks.float()[:, None])).exp_()[..., None])
    return out.to(q.dtype)


def block_attention(
    q: Tensor, keys: Tensor, values: Tensor, softmax: Softmax, causal: bool = False
) -> tuple[Tensor, Tensor]:
    """Attention over one block, without the sinks: out fp32 `(n_query_heads, t, value_dim)`, lse fp32
    `(n_query_heads, t)`.

    causal: query i sees all but the last t - 1 - i tokens of the block.
    """
    scaling, softcap = softmax.scaling, softmax.softcap
    # torch aligns its causal flag to the first key, which is the same thing only for a square block.
    if q.device.type == "cpu" and softcap is None and (not causal or q.shape[1] == keys.shape[1]):
        width = values.shape[2]
        q, keys, values = _of_one_width(q, keys, values)
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q[None], keys[None], values[None], 0.0, causal, scale=scaling
        )
        return out[0, :, :, :width].float().contiguous(), lse[0]
    if q.device.type == "cuda" and softcap is None and (not causal or q.shape[1] == keys.shape[1]):
        return _on_gpu(q, keys, values, scaling, causal)
    return _plain(q, keys, values, softmax, causal)


def _of_one_width(*arrays: Tensor) -> list[Tensor]:
    """The same with zeros behind the last dimension where it is shorter than another's, as torch's kernel
    needs it; zeros add nothing to a product."""
    most = max(x.shape[-1] for x in arrays)
    return [x if x.shape[-1] == most else pad(x, (0, most - x.shape[-1])) for x in arrays]


def _on_gpu(q: Tensor, keys: Tensor, values: Tensor, scaling: float, causal: bool) -> tuple[Tensor, Tensor]:
    """As `block_attention` by torch's memory-efficient kernel, the one that takes every float dtype and says
    the lse."""
    group, width = q.shape[0] // keys.shape[0], values.shape[2]
    q, keys, values = _of_one_width(q, keys, values)
    keys, values = (x.repeat_interleave(group, 0)[None] for x in (keys, values))
    out, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
        q[None], keys, values, None, True, 0.0, causal, scale=scaling
    )
    return out[0, :, :, :width].float().contiguous(), lse[0, :, : q.shape[1]].contiguous()  # lse comes padded


def static_attention(
    q: Tensor,
    spans: Iterable[tuple[Tensor, Tensor]],
    softmax: Softmax,
) -> PartialAttention:
    """A decode step over the tokens on the model's device, the step's own t positions last; the sinks are
    part of the lse.

    The same thing as an index's `decode` does to its `Static`, for models that do not run on the CPU.
    """
    keys, values = (torch.cat(list(x), 1) for x in zip(*spans, strict=True))
    out, lse = _plain(q, keys, values, softmax, causal=True)
    if softmax.sinks is not None:
        both = torch.logaddexp(lse, softmax.sinks.float()[:, None])
        out, lse = out * (lse - both).exp()[..., None], both
    return PartialAttention(out, lse)


def static_mass(q: Tensor, keys: Tensor, lse: Tensor, softmax: Softmax) -> Tensor:
    """Share of the softmax with `lse` `(n_query_heads, t)` that each token received, `(n_kv_heads, n)`, heads
    and positions summed."""
    t = q.shape[1]
    z = _scores(q, keys, softmax)
    hidden = _hidden(t, keys.shape[1], q.device)
    z = z.view(keys.shape[0], -1, t, keys.shape[1]).masked_fill(hidden, -torch.inf)
    return (z - lse.view(keys.shape[0], -1, t, 1)).exp().sum((1, 2))


def dense_attention(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    softmax: Softmax,
    *,
    causal: bool,
    dropout: float = 0.0,
) -> Tensor:
    """The math of eager attention with softcap or attention sinks, for batches under any cache and any mask.

    q `(batch, n_query_heads, t, head_dim)`, keys and values `(batch, n_kv_heads, n, head_dim)`, mask bool
    (True: seen) or additive `(batch or 1, heads or 1, t, n)`; without one, `causal` aligned to the first key
    as in sdpa. Returns q's shape, with the last dimension of values, and its dtype.
    """
    batch, heads, t, _ = q.shape
    kv_heads, n = keys.shape[1], keys.shape[2]
    group = heads // kv_heads
    step = max(1, min(t, MOST_SCORES // max(1, batch * heads * n)))
    outs = []
    for start in range(0, t, step):
        part = q[:, :, start : start + step]
        rows = part.shape[2]
        z = part.reshape(batch, kv_heads, group * rows, -1) @ keys.mT
        z = z.float().mul(softmax.scaling).view(batch, heads, rows, n)
        if softmax.softcap is not None:
            z = softmax.softcap * torch.tanh(z / softmax.softcap)
        if mask is not None:
            seen = mask[:, :, start : start + step]
            # The lowest number, not -inf: a padded query sees nothing, and softmax would make NaN of its row.
            z = z.masked_fill(~seen, torch.finfo(z.dtype).min) if seen.dtype == torch.bool else z + seen
        elif causal and t > 1:
            late = (
                torch.arange(n, device=q.device) > torch.arange(start, start + rows, device=q.device)[:, None]
            )
            z = z.masked_fill(late, -torch.inf)
        if softmax.sinks is not None:
            aux = softmax.sinks.float().view(1, heads, 1, 1).expand(batch, heads, rows, 1)
            z = torch.cat([z, aux], -1)
        weights = torch.softmax(z, -1)
        if softmax.sinks is not None:
            weights = weights[..., :-1]
        if dropout:
            weights = torch.nn.functional.dropout(weights, dropout)
        weights = weights.to(values.dtype).reshape(batch, kv_heads, group * rows, n)
        outs.append((weights @ values).view(batch, heads, rows, -1))
    return torch.cat(outs, 2).to(q.dtype)


def _gathered(blocks: Iterable[tuple[Tensor, Tensor]], like: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The same tokens in fewer blocks, of `like`'s dtype and on its device: small neighbours are put
    together."""
    waiting: list[tuple[Tensor, Tensor]] = []
    n = 0
    for keys, values in blocks:
        waiting.append((keys.to(like.device, like.dtype), values.to(like.device, like.dtype)))
        n += keys.shape[1]
        if n >= LEAST_BLOCK:
            yield _together(waiting)
            waiting, n = [], 0
    if n:
        yield _together(waiting)


def _together(blocks: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    if len(blocks) == 1:
        return blocks[0]
    return torch.cat([keys for keys, _ in blocks], 1), torch.cat([values for _, values in blocks], 1)


def _plain(q: Tensor, keys: Tensor, values: Tensor, softmax: Softmax, causal: bool) -> tuple[Tensor, Tensor]:
    heads, t, _ = q.shape
    kv_heads, n, width = values.shape
    out = torch.empty((heads, t, width), dtype=torch.float32, device=q.device)
    lse = torch.empty((heads, t), dtype=torch.float32, device=q.device)
    step = max(1, min(t, MOST_SCORES // max(1, heads * n)))
    for start in range(0, t, step):
        part = q[:, start : start + step]
        rows = part.shape[1]
        z = _scores(part, keys, softmax).view(kv_heads, -1, rows, n)
        if causal:
            z.masked_fill_(_hidden(t, n, q.device)[start : start + step], -torch.inf)
        part_lse = z.logsumexp(-1)
        weights = z.sub_(part_lse[..., None]).exp_()
        part_out = weights.view(kv_heads, -1, n) @ values.float()
        out[:, start : start + step] = part_out.view(heads, rows, width)
        lse[:, start : start + step] = part_lse.view(heads, rows)
    return out, lse


def _scores(q: Tensor, keys: Tensor, softmax: Softmax) -> Tensor:
    """Logits fp32 `(n_kv_heads, group x t, n)`."""
    z = (q.reshape(keys.shape[0], -1, q.shape[2]).float() @ keys.float().mT).mul_(softmax.scaling)
    cap = softmax.softcap
    return z if cap is None else z.div_(cap).tanh_().mul_(cap)


def _hidden(t: int, n: int, device: torch.device) -> Tensor:
    """True where position i of t, the last of n tokens, may not look, bool `(t, n)`."""
    return torch.arange(n, device=device) > torch.arange(n - t, n, device=device)[:, None]
