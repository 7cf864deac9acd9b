"""Traces: the queries, keys and values that chosen layers of a real model see over a long real text.

Indexes are measured on these and not on noise, because what makes them hard is real: queries that differ from
keys, heads that differ from each other, and steps of retrieval among steps of running text, which are kept
apart here (docs/indexes.md). A trace is one safetensors file.

Used by the tests and benchmarks, and by anyone with `sakuin.evaluate.capture`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sakuin.attention.partial import PartialAttention
from sakuin.index import Index, build_index
from sakuin.storage.paths import is_file

FORMAT = "sakuin-trace-1"
RUNNING = 512
"""Asked positions in running text: the last ones before the question."""
EVERY = 8
"""Of the asked positions in running text, every so many are looked at where all would take too long."""

_TENSORS = ("keys", "values", "queries", "query_positions", "sink", "recent", "asked")


@dataclass
class Layer:
    """What one layer saw, after RoPE. H_kv KV heads, H_q query heads, n offloaded tokens.

    keys, values : bf16 `(H_kv, n, head_dim)`, the offloaded tokens, which an index holds.
    queries, query_positions : fp32 `(H_q, m, head_dim)` and int64 `(m,)`, queries of these tokens' positions
        and which they are, counted from the first offloaded token.
    sink : bf16 `(2, H_kv, n_sink, head_dim)`, keys and values before the offloaded tokens.
    recent : bf16 `(2, H_kv, n_recent, head_dim)`, those after them, the last of which are the asked
        positions' own.
    asked : fp32 `(H_q, t, head_dim)`, queries of the last t positions.
    retrieval : how many of them, at the end, are retrieval steps.
    scaling, softcap : as the layer attends.
    raised : what is added to the static part's lse; above 0 where the offloaded tokens were multiplied and
        the static part is to keep its share of the softmax (`sakuin.evaluate.longer`).
    """

    keys: Tensor
    values: Tensor
    queries: Tensor
    query_positions: Tensor
    sink: Tensor
    recent: Tensor
    asked: Tensor
    retrieval: int
    scaling: float
    softcap: float | None = None
    raised: float = 0.0

    @property
    def group_size(self) -> int:
        """Query heads per KV head."""
        return self.asked.shape[0] // self.keys.shape[0]

    def head(self, head: int) -> Layer:
        """The same with one KV head and its query group."""
        query_heads = slice(head * self.group_size, (head + 1) * self.group_size)
        return Layer(
            self.keys[head : head + 1],
            self.values[head : head + 1],
            self.queries[query_heads],
            self.query_positions,
            self.sink[:, head : head + 1],
            self.recent[:, head : head + 1],
            self.asked[query_heads],
            self.retrieval,
            self.scaling,
            self.softcap,
            self.raised,
        )

    def some_asked(self, every: int = EVERY) -> list[int]:
        """Of the asked positions one in `every` in running text, and all retrieval steps."""
        t = self.asked.shape[1]
        return [*range(0, t - self.retrieval, every), *range(t - self.retrieval, t)]

    def index(self, kind: str, **knobs: Any) -> Index:
        """An index of `kind` over the offloaded tokens, built with the layer's queries."""
        return build_index(
            kind,
            self.keys,
            self.values,
            queries=self.queries,
            query_positions=self.query_positions,
            **knobs,
        )

    def static(self) -> PartialAttention:
        """Exact attention of the asked positions over the sink tokens and what came after the offloaded ones,
        up to their own: `out` fp32 `(H_q, t, head_dim)`, `lse` fp32 `(H_q, t)`."""
        keys, values = torch.cat([self.sink, self.recent], 2).float().repeat_interleave(self.group_size, 1)
        z = self._capped(self.asked @ keys.transpose(1, 2) * self.scaling)
        t, n = z.shape[1:]
        z = z.masked_fill(~torch.ones(t, n, dtype=torch.bool).tril(n - t), -torch.inf)
        lse = z.logsumexp(-1)
        return PartialAttention((z - lse[..., None]).exp() @ values, lse + self.raised)

    def exact(self) -> PartialAttention:
        """Exact attention of the asked positions over the offloaded tokens, by a query head at a time."""
        outs, lses = [], []
        for head, q in enumerate(self.asked):
            kv = head // self.group_size
            z = self._capped(q @ self.keys[kv].float().T * self.scaling)
            lses.append(z.logsumexp(-1))
            outs.append((z - lses[-1][:, None]).exp() @ self.values[kv].float())
        return PartialAttention(torch.stack(outs), torch.stack(lses))

    def _capped(self, z: Tensor) -> Tensor:
        return z if self.softcap is None else self.softcap * (z / self.softcap).tanh()


@dataclass
class Trace:
    """Layers of one model over one text. `about` says where they come from: model, length, sink, recent, and
    `fact`, the positions of the planted fact's tokens in the text, the first and the one past the last."""

    layers: dict[int, Layer]
    about: dict[str, Any]

    def check_asked(self) -> None:
        """Raise a `ValueError` unless both running text and retrieval steps are asked."""
        first = next(iter(self.layers.values()))
        asked = first.asked.shape[1]
        if not 0 < first.retrieval < asked:
            raise ValueError(
                f"a comparison needs running text and retrieval steps, and of this trace's {asked} asked "
                f"positions {first.retrieval} are retrieval steps; capture one with sakuin.evaluate.capture"
            )

    def save(self, path: str | Path) -> None:
        """Write one safetensors file."""
        from safetensors.torch import save_file

        tensors = {
            f"{number}.{name}": getattr(layer, name).contiguous()
            for number, layer in self.layers.items()
            for name in _TENSORS
        }
        settings = {
            str(number): {
                "retrieval": layer.retrieval,
                "scaling": layer.scaling,
                "softcap": layer.softcap,
                "raised": layer.raised,
            }
            for number, layer in self.layers.items()
        }
        about = {"format": FORMAT, "about": json.dumps(self.about), "layers": json.dumps(settings)}
        save_file(tensors, str(path), metadata=about)

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """A trace from its file; a `ValueError` that names the file if it is missing, none or damaged."""
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not is_file(path):
            raise ValueError(f"there is no trace {path}; make one with sakuin.evaluate.capture")
        try:
            with safe_open(str(path), "pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise ValueError(f"{path} is not a trace of the format {FORMAT}")
                settings: dict[str, dict[str, Any]] = json.loads(metadata["layers"])
                layers = {
                    int(number): Layer(
                        **{name: file.get_tensor(f"{number}.{name}") for name in _TENSORS}, **rest
                    )
                    for number, rest in settings.items()
                }
                about = json.loads(metadata["about"])
        except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is damaged ({error}); capture the trace again") from None
        for number, layer in layers.items():
            _check(path, number, layer)
        return cls(layers, about)


def _check(path: Path, number: int, layer: Layer) -> None:
    heads, n, d = layer.keys.shape if layer.keys.dim() == 3 else (0, 0, 0)
    query_heads, t = layer.asked.shape[:2] if layer.asked.dim() == 3 else (0, 0)
    fits = (
        heads > 0
        and n > 0
        and query_heads > 0
        and query_heads % heads == 0
        and layer.values.shape == layer.keys.shape
        and layer.asked.shape == (query_heads, t, d)
        and layer.queries.shape == (query_heads, len(layer.query_positions), d)
        and all(
            x.dim() == 4 and x.shape[:2] == (2, heads) and x.shape[3] == d for x in (layer.sink, layer.recent)
        )
        and 0 < t <= layer.recent.shape[2]
        and 0 <= layer.retrieval <= t
    )
    if not fits:
        raise ValueError(f"{path} is damaged (the tensors of layer {number} do not fit each other)")
