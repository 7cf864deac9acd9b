"""What a cache is made of, as parts that can be files, and a cache of such parts.

A sequence is cut into *parts*: the sink, the index's segments, the tail, and, for layers without an index,
their state at some positions ("window"). All layers' tensors of one stretch of tokens are one part
(`sakuin.snapshot.part` says what it is called). Nothing here touches files. docs/format.md is the format.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from sakuin.backends.base import Backend
from sakuin.cache.layer import LayerCache
from sakuin.cache.offload import split
from sakuin.cache.sequence import QUERY_STEP, SequenceState
from sakuin.cache.whole import WholeCache
from sakuin.config import RetrievalConfig
from sakuin.errors import SakuinError
from sakuin.index.base import StoredSegment, new_index
from sakuin.index.kind import kind_of
from sakuin.snapshot.checks import Checks, damaged
from sakuin.snapshot.manifest import KINDS
from sakuin.snapshot.part import Part
from sakuin.storage import tensorfile

CHECKPOINT, FINER = 16384, 4096
"""Windows are kept about every so many tokens, at ends of segments; the finer where `segment` is set by
hand."""


class Keeper(Protocol):
    """Who keeps what a long prefill has done as it goes, and knows what was done before."""

    def begin(self, ids: Sequence[int]) -> tuple[Any, int, list[Part]] | None:
        """A cache that holds the first of `ids`, how many, and the windows on the way; None where none is
        known."""

    def step(self, cache: Any, done: int, windows: Sequence[Part]) -> None:
        """Called whenever `done` of the tokens are in `cache`."""


def checkpoint_step(config: RetrievalConfig, head_dim: int) -> int:
    """Tokens between the positions at which windows are kept: whole segments, at least `CHECKPOINT` or
    `FINER`."""
    segment = config.segment_tokens(head_dim)
    return segment * -(-(CHECKPOINT if config.segment == "auto" else min(CHECKPOINT, FINER)) // segment)


def stops(backend: Backend, cache: Any, done: int, end: int) -> list[tuple[int, bool]]:
    """Where prefill pauses between `done` and `end`, and whether windows are kept there: at ends of segments,
    if the model has layers that cannot go back to them."""
    whole = backend.retrieval(cache)
    found = [(end, False)] if end > done else []
    if whole is None or not backend.shape.has_windows or not found:
        return found
    step, least = checkpoint_step(whole.config, head_dim_of(backend, whole)), whole.config.exact_above
    at = whole.sealed_end() or whole.config.sink
    while (at := at + step) < end:
        # A pass of so few tokens would not be exact.
        if at - done > least and end - at > least:
            found.insert(-1, (at, True))
    return found


def head_dim_of(backend: Backend, whole: WholeCache) -> int:
    """Dimensions of a head of the layers that have an index; what the model says while they are empty."""
    return whole.head_dim or backend.shape.head_dim


def window_part(backend: Backend, cache: Any, at: int) -> Part:
    """The state of the layers without an index, after `at` tokens."""
    return Part("window", 0, at, backend.window_state(cache))


def sealed_parts(held: WholeCache, full: bool = False) -> list[Part]:
    """The sink and the segments, in order; `full` leaves out what appending may still merge."""
    rows = _rows(held)
    if not rows:
        return []
    sinks = {i: layer.rows[0].sink for i, layer in rows}
    end = next(iter(sinks.values()))[0].shape[1]
    tensors = {
        f"{i}.{n}": x for i, pair in sinks.items() for n, x in zip(("keys", "values"), pair, strict=True)
    }
    parts = [Part("sink", 0, end, tensors)]
    groups: dict[tuple[int, int], dict[int, StoredSegment]] = {}
    for i, layer in rows:
        row, at = layer.rows[0], end
        for segment in row.index.stored():
            if full and segment.n_tokens < row.config.segment_tokens(row.head_dim):
                break
            groups.setdefault((at, at + segment.n_tokens), {})[i] = segment
            at += segment.n_tokens
    for (start, stop), layers in sorted(groups.items()):
        if full and len(layers) < len(rows):
            break  # some layers' worker has not come so far
        kinds = {str(i): segment.kind for i, segment in layers.items()}
        every = [(name, i, x) for i, segment in layers.items() for name, x in segment.tensors.items()]
        # What every step reads lies together, then what is read in rows: keys and values last.
        every.sort(key=lambda one: (_place(one[0], kind_of(layers[one[1]].kind).rows), one[1]))
        tensors = {f"{i}.{name}": x for name, i, x in every}
        parts.append(Part("segment", start, stop, tensors, {"index": json.dumps(kinds)}))
    return parts


def _place(name: str, rows: Sequence[str]) -> float:
    """Where a tensor stands in a file: what is not in `rows` first, the first of them last."""
    return -rows.index(name) if name in rows else -math.inf


def all_parts(backend: Backend, cache: Any, n_tokens: int) -> list[Part]:
    """All parts of a cache that holds `n_tokens` tokens, but the windows before its end."""
    held = _retrieval(backend, cache)
    held.flush()
    parts = sealed_parts(held)
    tail, start = {}, n_tokens
    for i, layer in _rows(held):
        row = layer.rows[0]
        state = row.state()
        start = min(start, n_tokens - state.tail[0].shape[1])
        tail[f"{i}.keys"], tail[f"{i}.values"] = state.tail
        tail[f"{i}.next"] = torch.tensor([state.first_query, int(state.exact_last)])
        if state.queries is not None:
            tail[f"{i}.queries"] = state.queries
        tail |= {f"{i}.{name}": x for name, x in row.index.state().items()}
    parts.append(Part("tail", start, n_tokens, tail))
    if backend.shape.has_windows:
        parts.append(window_part(backend, cache, n_tokens))
    return parts


def _retrieval(backend: Backend, cache: Any) -> WholeCache:
    found = backend.retrieval(cache)
    assert found is not None  # a context with full attention is refused before
    return found


def _rows(held: WholeCache) -> list[tuple[int, LayerCache]]:
    for layer in held.layers.values():
        if len(layer.rows) > 1 or any(layer.padded):
            raise SakuinError("only a cache of one sequence without padding can be stored.")
    return [(i, layer) for i, layer in held.layers.items() if layer.rows]


def restored_cache(backend: Backend, config: RetrievalConfig, parts: Iterable[Part], n_tokens: int) -> Any:
    """A cache of `backend` that holds the first `n_tokens` tokens, of `parts`: sink, segments, and where the
    sequence ends there, tail and window.

    Raises `SakuinError` where the parts do not make such a sequence.
    """
    cache = backend.new_cache(config)
    by_kind: dict[str, list[Part]] = {kind: [] for kind in KINDS}
    for part in parts:
        by_kind[part.kind].append(part)
    like = torch.empty(0, dtype=backend.dtype, device=backend.device)
    checks = Checks(backend, config)
    try:
        for i, layer in _retrieval(backend, cache).layers.items():
            _restore_row(i, layer, by_kind, like, backend.shape.n_query_heads, n_tokens, checks)
        (window,) = by_kind["window"] or [Part("window", 0, n_tokens, {})]
        checks.window(window.tensors)
        backend.restore_windows(cache, window.tensors, n_tokens)
    except SakuinError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise SakuinError(
            f"the snapshot's tensors do not make a sequence of {n_tokens:,} tokens: {_sentence(error)}."
        ) from error
    return cache


def _restore_row(
    i: int,
    layer: LayerCache,
    parts: Mapping[str, list[Part]],
    like: Tensor,
    n_query_heads: int,
    n_tokens: int,
    checks: Checks,
) -> None:
    config = layer.state.config
    (sink,) = parts["sink"]
    keys, values = checks.rows("sink", i, _of_layer(sink, i))
    heads, n_sink, head_dim = keys.shape
    if values.shape[:2] != keys.shape[:2] or (sink.start, sink.end) != (0, n_sink):
        raise damaged(f"the sink of layer {i} has not the shape that it should")
    if n_query_heads % heads:
        raise damaged(f"{n_query_heads} query heads cannot share {heads} stored KV heads")
    index = new_index(heads, head_dim, n_query_heads // heads, config, values.shape[2])
    segments, at = [], n_sink
    for part in parts["segment"]:
        tensors = _of_layer(part, i)
        if not tensors:
            continue
        kind = json.loads(part.facts["index"])[str(i)]
        if config.offload == "disk":
            tensors = split(tensors, kind_of(kind))
        segments.append(StoredSegment(kind, part.end - part.start, tensors))
        if part.start != at:
            raise SakuinError(f"the segments of layer {i} leave a gap at token {at:,}.")
        at = part.end
    own: dict[str, Tensor] = {}
    tail = keys[:, :0].to(like.dtype), values[:, :0].to(like.dtype)
    state = SequenceState((keys, values), tail, None, at + -at % QUERY_STEP)
    if parts["tail"]:
        own = _of_layer(parts["tail"][0], i)
        tail = checks.rows("tail", i, own)
        first_query, exact_last = checks.queries(i, own, keys, n_tokens)
        state = SequenceState((keys, values), tail, own.get("queries"), first_query, exact_last)
    index.restore(segments, own if parts["tail"] else None)
    if index.n_tokens != at - n_sink or at + state.tail[0].shape[1] != n_tokens:
        raise damaged(
            f"layer {i} holds {n_sink + index.n_tokens + state.tail[0].shape[1]:,} tokens where "
            f"{n_tokens:,} are needed"
        )
    layer.restore(like, n_query_heads, index, state)


def _of_layer(part: Part, i: int) -> dict[str, Tensor]:
    head = f"{i}."
    return {name.removeprefix(head): x for name, x in part.tensors.items() if name.startswith(head)}


def part_bytes(part: Part) -> int:
    """About the size of the part's file, from above."""
    return tensorfile.file_size(part.tensors.values())


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).split()).rstrip(".")
    return (
        text
        if isinstance(error, ValueError | TypeError) and text
        else f"{type(error).__name__} {text}".strip()
    )
