"""Capturing a trace: a model reads a long real text, and what chosen layers see of it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sakuin.backends.open import backend_of
from sakuin.backends.transformers.hooks import AttentionCall, attention_hook
from sakuin.evaluate.texts.planted import PlantedText
from sakuin.evaluate.traces.trace import RUNNING, Layer, Trace

STRIDE = 4
"""Every so many positions of the offloaded tokens a query is kept, for building an index."""
CHUNK = 2048
"""Positions of one pass of reading."""


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
    config = model.config.get_text_config(decoder=True)
    window = getattr(config, "max_position_embeddings", length)
    if length > window:
        raise ValueError(f"a trace of {length} tokens is longer than the model's window of {window}")
    least = sink + 64 + recent + RUNNING + 1
    if length < least:
        raise ValueError(
            f"a trace of {length} tokens leaves too few to offload; take at least {least} tokens"
        )
    # The last position is the one that predicts the answer's last token.
    planted = PlantedText.make(tokenizer, length + 1, text)
    first = planted.question_at - RUNNING
    end = first - recent
    if end - sink < 64:
        raise ValueError(
            f"a trace of {length} tokens leaves too few to offload; take at least "
            f"{length - (end - sink) + 64} tokens"
        )
    chosen = _chosen(config, layers)
    seen = _run(model, torch.tensor([planted.ids[:-1]]), chosen)
    found = {}
    for number, (q, k, v, scaling, softcap) in seen.items():
        positions = torch.arange(0, end - sink, STRIDE)
        kv = torch.stack([k, v]).bfloat16()
        found[number] = Layer(
            keys=kv[0, :, sink:end].contiguous(),
            values=kv[1, :, sink:end].contiguous(),
            queries=q[:, sink + positions].contiguous(),
            query_positions=positions,
            sink=kv[:, :, :sink].contiguous(),
            recent=kv[:, :, end:].contiguous(),
            asked=q[:, first:].contiguous(),
            retrieval=length - planted.answer_at + 1,
            scaling=scaling,
            softcap=softcap,
        )
    about = {
        "model": f"{config.model_type}, {config.num_hidden_layers} layers, hidden size {config.hidden_size}",
        "length": length,
        "sink": sink,
        "recent": recent,
        "fact": list(planted.fact),
    }
    return Trace(found, about)


def _chosen(config: Any, layers: Sequence[int] | None) -> tuple[int, ...]:
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    full = [number for number, kind in enumerate(kinds) if kind == "full_attention"]
    if layers is None:
        count = min(6, len(full))
        return tuple(full[(2 * i + 1) * len(full) // (2 * count)] for i in range(count))
    for number in layers:
        if number not in full:
            raise ValueError(
                f"layer {number} is not one of full attention; these are: {', '.join(map(str, full))}"
            )
    return tuple(layers)


_Seen = tuple[Tensor, Tensor, Tensor, float, float | None]


def _run(model: Any, ids: Tensor, layers: tuple[int, ...]) -> dict[int, _Seen]:
    """Queries fp32, keys and values `(heads, n, head_dim)`, scaling and softcap of each layer."""
    queries: dict[int, list[Tensor]] = {number: [] for number in layers}
    last: dict[int, tuple[Tensor, Tensor, float, float | None]] = {}

    def keep(call: AttentionCall) -> None:
        if call.layer in queries:
            queries[call.layer].append(call.q[0].float())
            last[call.layer] = (call.keys[0], call.values[0], call.scaling, call.softcap)

    # In chunks: one pass would build masks of the length squared for sliding layers.
    backend = backend_of(model)
    cache = backend.new_cache(None)
    with attention_hook(model, keep):
        for at in range(0, ids.shape[1], CHUNK):
            backend.forward(cache, ids[0, at : at + CHUNK].tolist())
    return {number: (torch.cat(queries[number], 1), *last[number]) for number in layers}
