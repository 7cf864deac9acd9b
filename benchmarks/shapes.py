"""Layers of the shapes that real models have, out of traces of the two small ones that every machine can
run.

- head_dim 64 with a group of 7: smollm2's KV heads; the query heads of one at three neighbouring positions
  are one group.
- head_dim 256 with a group of 4: gemma3-270m as it is.
- head_dim 128 with a group of 4: no such model is at hand. Two KV heads of smollm2 stand side by side
  (`paired`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import console, load
from sakuin import merge
from sakuin.attention.partial import PartialAttention
from sakuin.evaluate import Layer, Trace, capture

EVERY = 16
"""Of the asked positions in running text, every so many are steps; of the retrieval steps all."""
PAIRS = ((0, 0), (1, 1), (2, 2), (1, 0))
"""Query heads of the first and of the second KV head that together are one of head_dim 128."""

HEADS_128 = (((7, 2), (17, 1)), ((2, 1), (12, 0)), ((12, 1), (22, 2)), ((17, 0), (27, 0)))
"""Layer and KV head of smollm2, twice: what stands side by side. The first two are those that look for the
fact most: beside a head that does not, what a head does at retrieval steps is lost."""


def traced(name: str, length: int, folder: Path | None = None) -> Trace:
    """A trace of six layers of full attention, or of as many as there are; kept in `folder` if it is given,
    and taken from there."""
    path = folder and folder / f"{name}-{length}.safetensors"
    if path and path.is_file():
        return Trace.load(path)
    console.print(f"capturing a trace of {length:,} tokens from {name}")
    trace = capture(*load(name, "fp32"), length)
    if path:
        trace.save(path)
    return trace


def paired(trace: Trace, heads: tuple[tuple[int, int], tuple[int, int]]) -> Layer:
    """One KV head of twice the head_dim, out of two: keys, values and queries of a token are those of both
    side by side, so that a score is the sum of two.

    Such sums are sharper than either, and where both give the sink most of the attention the sum gives it
    nearly all. So queries are scaled until the mean entropy of the softmax over the offloaded tokens is the
    mean of the two heads', and the static part's lse is moved until the offloaded tokens' mean log odds
    against it are.
    """
    parts = [trace.layers[number].head(head) for number, head in heads]

    def both(*xs: Tensor) -> Tensor:
        return torch.cat(xs, -1)

    def queries(*xs: Tensor) -> Tensor:
        return both(*(x[list(picked)] for x, picked in zip(xs, zip(*PAIRS, strict=True), strict=True)))

    layer = replace(
        parts[0],
        keys=both(*(part.keys for part in parts)),
        values=both(*(part.values for part in parts)),
        queries=queries(*(part.queries for part in parts)),
        sink=both(*(part.sink for part in parts)),
        recent=both(*(part.recent for part in parts)),
        asked=queries(*(part.asked for part in parts)),
        scaling=(2 * parts[0].keys.shape[2]) ** -0.5,
    )
    wanted = fmean(_entropy(_scores(part)) for part in parts)
    scores, low, high = _scores(layer), 0.1, 2.0
    for _ in range(16):
        middle = (low + high) / 2
        low, high = (middle, high) if _entropy(scores * middle) > wanted else (low, middle)
    layer = replace(layer, queries=layer.queries * low, asked=layer.asked * low)
    odds = fmean(_log_odds(part) for part in parts)
    return replace(layer, raised=_log_odds(layer) - odds)


def _scores(layer: Layer) -> Tensor:
    """Of some asked positions with the offloaded tokens, `(group, t, n)`."""
    return layer.asked[:, layer.some_asked(EVERY)] @ layer.keys[0].float().T * layer.scaling


def _entropy(scores: Tensor) -> float:
    shares = scores.log_softmax(-1)
    return -(shares.exp() * shares).sum(-1).mean().item()


def _log_odds(layer: Layer) -> float:
    lse = layer.static().lse[:, layer.some_asked(EVERY)]
    return (_scores(layer).logsumexp(-1) - lse).mean().item()


@dataclass
class Steps:
    """Decode steps of one KV head, and what exact attention makes of them.

    layer : its keys and values; `asked` `(group, t, head_dim)` are the steps' queries.
    static : the exact part beside the index, `(group, t)`.
    truth : fp32 `(group, t, head_dim)`, exact attention over everything.
    retrieval : how many of the t steps, at the end, are retrieval steps.
    """

    layer: Layer
    static: PartialAttention
    truth: Tensor
    retrieval: int

    @classmethod
    def of(cls, layer: Layer, group: int) -> Steps:
        """Steps of a layer of one KV head; where `group` is larger than the layer's, the query heads of
        neighbouring positions stand side by side, as heads of one group."""
        positions = -(-group // layer.group_size)
        t = layer.asked.shape[1]
        first = t - layer.retrieval
        kept = [*range(positions - 1, first, EVERY), *range(first + positions - 1, t)]

        def grouped(x: Tensor) -> Tensor:
            return torch.cat([x[:, [p - i for p in kept]] for i in range(positions)])[:group].contiguous()

        static = layer.static()
        static = PartialAttention(grouped(static.out), grouped(static.lse))
        layer = replace(
            layer,
            asked=grouped(layer.asked),
            queries=torch.cat([layer.queries] * positions)[:group],
        )
        truth = merge([static, layer.exact()]).out
        return cls(layer, static, truth, t - first - positions + 1)

    def errors(self, part: PartialAttention) -> Tensor:
        """Relative L2 errors of the whole output `(group, t)` with `part` for the offloaded tokens."""
        out = merge([self.static, part]).out
        return (out - self.truth).norm(dim=-1) / self.truth.norm(dim=-1)


def fact_mass(layer: Layer, about: dict[str, Any]) -> float:
    """The share of the attention that the planted fact's tokens get at the retrieval steps of a layer as
    captured, mean over the steps, for the query head that gives them most."""
    first, last = (position - about["sink"] for position in about["fact"])
    q = layer.asked[:, -layer.retrieval :]
    lse = torch.logaddexp(layer.static().lse, layer.exact().lse)[:, -layer.retrieval :]
    keys = layer.keys[:, first:last].float().repeat_interleave(layer.group_size, 0)
    z = q @ keys.transpose(1, 2) * layer.scaling
    return (z - lse[..., None]).exp().sum(-1).mean(1).max().item()
