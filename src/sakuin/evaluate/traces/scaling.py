"""Longer traces than a machine can prefill, for measuring how an index scales.

The offloaded keys and values of a real trace are resampled in runs, with jitter that is fitted to the trace;
queries stay real. Such a trace says what time and bytes do as the context grows. What it says of errors is
weaker: its keys are no more varied than the trace's.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sakuin.evaluate.traces.trace import Layer, Trace

RUN = 256
"""Neighbouring tokens that are taken together, so that runs of similar keys stay runs."""
_SAMPLE = 2048


def longer(trace: Trace, n_tokens: int, seed: int = 0) -> Trace:
    """`trace` with `n_tokens` offloaded tokens in every layer.

    The first ones are the trace's own. Then runs of 256 neighbouring tokens follow, picked at random, with
    Gaussian jitter on keys and values: along the principal axes of the differences between tokens and their
    nearest neighbours in the trace, of the variance that these differences have there, halved, since both
    ends of a difference vary. So a resampled key lies about as far from its original as keys of the text lie
    from each other's nearest. The static part keeps its share of the softmax: its lse is raised by
    log(n_tokens / tokens of the trace).
    """
    layers = {}
    for number, layer in trace.layers.items():
        n = layer.keys.shape[1]
        if n_tokens < n:
            raise ValueError(f"n_tokens must be at least the trace's {n} offloaded tokens, got {n_tokens}")
        random = torch.Generator().manual_seed(seed * 1000 + number)
        layers[number] = Layer(
            *_resampled(layer, n_tokens, random),
            layer.queries,
            layer.query_positions * n_tokens // n,
            layer.sink,
            layer.recent,
            layer.asked,
            layer.retrieval,
            layer.scaling,
            layer.softcap,
            layer.raised + math.log(n_tokens / n),
        )
    return Trace(layers, {**trace.about, "resampled_to": n_tokens, "seed": seed})


def _resampled(layer: Layer, n_tokens: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    heads, n, d = layer.keys.shape
    keys = torch.empty(heads, n_tokens, d, dtype=layer.keys.dtype)
    values = torch.empty_like(keys)
    keys[:, :n], values[:, :n] = layer.keys, layer.values
    run = min(RUN, n)
    # A run may pass the end and go on at the start, so that every token is as likely as any other.
    starts = torch.randint(0, n, (-(-(n_tokens - n) // run),), generator=random)
    for head in range(heads):
        key_jitter, value_jitter = _jitter(layer.keys[head].float(), layer.values[head].float(), random)
        at = n
        for start in starts.tolist():
            take = min(run, n_tokens - at)
            picked = (start + torch.arange(take)) % n
            for rows, out, shape in ((layer.keys, keys, key_jitter), (layer.values, values, value_jitter)):
                noise = torch.randn(take, d, generator=random) @ shape
                out[head, at : at + take] = (rows[head, picked].float() + noise).to(out.dtype)
            at += take
    return keys, values


def _jitter(keys: Tensor, values: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """What unit noise is multiplied with, `(d, d)`, for keys and values: a root of half the covariance of the
    differences between sampled tokens and those whose keys are their nearest."""
    sample = torch.randperm(len(keys), generator=random)[:_SAMPLE]
    distance = torch.cdist(keys[sample], keys)
    distance[torch.arange(len(sample)), sample] = torch.inf
    nearest = distance.argmin(1)

    def root(x: Tensor) -> Tensor:
        differences = x[sample] - x[nearest]
        strength, axes = torch.linalg.eigh((differences.T @ differences).double() / len(sample) / 2)
        matrix: Tensor = ((axes * strength.clamp(min=0).sqrt()) @ axes.T).float()
        return matrix

    return root(keys), root(values)
