"""Capturing a trace: a model reads a long real text, and what chosen layers see of it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sakuin.backends.base import Backend
from sakuin.backends.hooks import AttentionCall
from sakuin.backends.open import backend_of
from sakuin.backends.shape import ModelShape
from sakuin.evaluate.texts.planted import PlantedText
from sakuin.evaluate.traces.trace import RUNNING, Layer, Trace

STRIDE = 4
"""Every so many positions of the offloaded tokens a query is kept, for building an index."""
CHUNK = 2048
"""Positions of one pass of reading."""
_LEAST = 64
"""Offloaded tokens that a trace has at least."""


def capture(
    model: Any,
    tokenizer: Any,
    length: int,
    layers: Sequence[int] | None = None,
    *,
    text: str | None = None,
    sink: int = 128,
    recent: int = 512,
) -> Trace:
    """Run `model` over `length` tokens of `text` with a planted fact and keep what `layers` see.

    The asked positions are the last 512 of running text, the question, and the answer, whose tokens are
    retrieval steps. Offloaded are the tokens from `sink` on up to `recent` tokens before the first of them.

    Parameters
    ----------
    model, tokenizer
        As `sakuin.load` gives them, on the CPU; any attention implementation, which the model keeps.
    layers
        Numbers of full-attention layers; six of them, evenly spread, if None.
    text
        Technical English of about 110,000 tokens if None.

    Raises
    ------
    ValueError
        If the text or the model's window is too short, or a layer is not one of full attention.
    """
    backend = backend_of(model)
    shape = backend.shape
    if shape.window is not None and length > shape.window:
        raise ValueError(f"a trace of {length} tokens is longer than the model's window of {shape.window}")
    _check_length(length, sink + _LEAST + recent + RUNNING + 1)
    if shape.value_dim != shape.head_dim:
        raise ValueError(
            f"a trace holds keys and values of one head_dim, and this model's have {shape.head_dim} and "
            f"{shape.value_dim}: take another model"
        )
    # The last position is the one that predicts the answer's last token.
    planted = PlantedText.make(tokenizer, length + 1, text)
    first = planted.question_at - RUNNING
    end = first - recent
    _check_length(length, length - (end - sink) + _LEAST)
    calls = _run(backend, planted.ids[:-1], _chosen(shape, layers))
    retrieval = length - planted.answer_at + 1
    found = {number: _layer(call, sink, end, first, retrieval) for number, call in calls.items()}
    about = {
        "model": f"{shape.family}, {len(shape.layers)} layers, hidden size {shape.hidden}",
        "backend": backend.name,
        "length": length,
        "sink": sink,
        "recent": recent,
        "fact": list(planted.fact),
    }
    return Trace(found, about)


def _check_length(length: int, least: int) -> None:
    if length < least:
        raise ValueError(
            f"a trace of {length} tokens leaves too few to offload; take at least {least} tokens"
        )


def _layer(call: AttentionCall, sink: int, end: int, first: int, retrieval: int) -> Layer:
    """What a layer saw, of a call whose queries are those of all tokens: offloaded are the tokens from `sink`
    to `end`, asked are the positions from `first` on."""
    q, kv = call.q[0], torch.stack([call.keys[0], call.values[0]]).bfloat16()
    positions = torch.arange(0, end - sink, STRIDE)
    return Layer(
        keys=kv[0, :, sink:end].contiguous(),
        values=kv[1, :, sink:end].contiguous(),
        queries=q[:, sink + positions].contiguous(),
        query_positions=positions,
        sink=kv[:, :, :sink].contiguous(),
        recent=kv[:, :, end:].contiguous(),
        asked=q[:, first:].contiguous(),
        retrieval=retrieval,
        scaling=call.softmax.scaling,
        softcap=call.softmax.softcap,
    )


def _chosen(shape: ModelShape, layers: Sequence[int] | None) -> tuple[int, ...]:
    full = [number for number, kind in enumerate(shape.layers) if kind == "full"]
    if layers is None:
        count = min(6, len(full))
        return tuple(full[(2 * i + 1) * len(full) // (2 * count)] for i in range(count))
    for number in layers:
        if number not in full:
            raise ValueError(
                f"layer {number} is not one of full attention; these are: {', '.join(map(str, full))}"
            )
    return tuple(layers)


def _run(backend: Backend, ids: Sequence[int], layers: tuple[int, ...]) -> dict[int, AttentionCall]:
    """The last call of each layer, with the queries, fp32, of all tokens."""
    queries: dict[int, list[Tensor]] = {number: [] for number in layers}
    last: dict[int, AttentionCall] = {}

    def keep(call: AttentionCall) -> None:
        if call.layer in queries:
            queries[call.layer].append(call.q.to(torch.float32, copy=True))  # its memory is the model's
            last[call.layer] = call

    # In chunks: one pass would build masks of the length squared for sliding layers.
    cache = backend.new_cache(None)
    with backend.attention_hook(keep):
        for at in range(0, len(ids), CHUNK):
            backend.forward(cache, ids[at : at + CHUNK])
    return {number: replace(last[number], q=torch.cat(queries[number], 2)) for number in layers}
