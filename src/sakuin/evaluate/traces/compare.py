"""Indexes side by side on a trace: error of the attention output, what was touched, and time.

Errors are relative L2 errors of a layer's whole attention output (sink and recent window included) against
exact attention, for one query head at one position; running text and retrieval steps are kept apart, since a
mean over both would hide the step that loses the fact. Times are those of one step of one KV head for its
query group. Behind `sakuin bench index` and benchmarks.method.indexes.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from sakuin.attention.partial import PartialAttention, merge
from sakuin.evaluate.traces.trace import Layer, Trace
from sakuin.index import _native

TIMED = 20


@dataclass(frozen=True)
class Method:
    """A kind of index with its settings, under a name for tables."""

    name: str
    kind: str
    knobs: dict[str, Any] = field(default_factory=dict)


SDPA = Method("torch SDPA, fp32", "sdpa")
"""Not an index but what a model does without one: exact, keys and values in fp32. It has a time alone, and
none where the layer's softcap is beyond it."""

METHODS = (  # in parentheses: the tolerance
    Method("flat", "flat"),
    Method("sketch", "sketch"),
    Method("sketch (0.25)", "sketch", {"tolerance": 0.25}),
    Method("sketch (4)", "sketch", {"tolerance": 4.0}),
    Method("ivf", "ivf"),
    Method("ivf, rest dropped", "ivf", {"estimate_rest": False}),
    Method("graph", "graph"),
    Method("graph, top 100 alone", "graph", {"budget": 100, "estimate_rest": False}),
    Method("exact top 100", "topk", {"top_k": 100}),
    Method("pages, 256 tokens", "pages", {"top_k": 256}),
    Method("sink and recent", "streaming"),
    SDPA,
)


@dataclass
class Row:
    """What one method does on a trace, over all its layers and heads.

    running, retrieval : mean errors over the asked positions of running text / the retrieval steps.
    worst_head : the largest mean error of one query head in one layer, retrieval steps included.
    worst_step : the largest error of one retrieval step, the mean over a layer's query heads.
    touched_share : bytes read, as a share of the offloaded keys and values at 2 bytes a number.
    step_ms : median time of one step of one KV head, mean over the layers.
    floor_ms : the time to read its keys and values once in bf16 at this machine's bandwidth.
    build_s : time to build the indexes of all layers.
    memory_share : what the index holds beyond keys and values, as a share of these.
    """

    method: str
    running: float
    retrieval: float
    worst_head: float
    worst_step: float
    touched_share: float
    step_ms: float
    floor_ms: float
    build_s: float
    memory_share: float


def compare(
    trace: Trace, methods: Sequence[Method] = METHODS, *, say: Callable[[str], None] = lambda _: None
) -> Iterator[Row]:
    """Measure each method on every layer of `trace`; `say` is told what is being measured.

    Exact attention is computed once for all, so the first row takes longest.
    """
    trace.check_asked()
    retrieval = next(iter(trace.layers.values())).retrieval
    say("exact attention")
    cases = {number: _Case.of(layer) for number, layer in trace.layers.items()}
    bandwidth = _bandwidth()
    floor_ms = statistics.fmean(
        2e3 * layer.keys[0].numel() * 2 / bandwidth for layer in trace.layers.values()
    )
    for method in methods:
        if method == SDPA:
            say(method.name)
            if all(layer.softcap is None for layer in trace.layers.values()):
                took = statistics.fmean(_sdpa_ms(case) for case in cases.values())
                yield Row(method.name, 0.0, 0.0, 0.0, 0.0, 2.0, took, floor_ms, 0.0, 0.0)
            continue
        errors, touched, times, extra, built = [], [], [], [], 0.0
        for number, case in cases.items():
            say(f"{method.name}, layer {number}")
            layer = case.layer
            started = perf_counter()
            index = layer.index(method.kind, **method.knobs)
            built += perf_counter() - started
            part = index.attend(
                case.q, scaling=layer.scaling, softcap=layer.softcap, static_lse=case.static.lse
            )
            out = merge([case.static, part]).out
            errors.append((out - case.truth).norm(dim=-1) / case.truth.norm(dim=-1))
            assert part.stats is not None
            touched.append(part.stats.touched_share)
            extra.append((index.nbytes - index.kv_bytes) / index.kv_bytes)
            times.append(_step_ms(case, method))
        running = [e[:, : e.shape[1] - retrieval] for e in errors]
        steps = [e[:, e.shape[1] - retrieval :] for e in errors]
        yield Row(
            method.name,
            running=statistics.fmean(e.mean().item() for e in running),
            retrieval=statistics.fmean(e.mean().item() for e in steps),
            worst_head=max(e.mean(1).max().item() for e in errors),
            worst_step=max(e.mean(0).max().item() for e in steps),
            touched_share=statistics.fmean(touched),
            step_ms=statistics.fmean(times),
            floor_ms=floor_ms,
            build_s=built,
            memory_share=statistics.fmean(extra),
        )


@dataclass
class _Case:
    """A layer with the positions that are asked of it: every eighth of running text, all retrieval steps."""

    layer: Layer
    q: Tensor
    static: PartialAttention
    truth: Tensor

    @classmethod
    def of(cls, layer: Layer) -> _Case:
        kept = torch.tensor(layer.some_asked())
        whole = layer.static()
        static = PartialAttention(whole.out[:, kept], whole.lse[:, kept])
        asked = replace(layer, asked=layer.asked[:, kept].contiguous())
        return cls(layer, asked.asked, static, merge([static, asked.exact()]).out)


def _step_ms(case: _Case, method: Method) -> float:
    """Median time of one position's step of the first KV head; the positions take turns."""
    layer = case.layer.head(0)
    index, times = layer.index(method.kind, **method.knobs), []
    heads = layer.group_size
    for i in range(TIMED + 3):
        at = i * 7 % case.q.shape[1]
        q, beside = (x[:heads, at : at + 1].contiguous() for x in (case.q, case.static.lse))
        started = perf_counter()
        index.attend(q, scaling=layer.scaling, softcap=layer.softcap, static_lse=beside)
        times.append((perf_counter() - started) * 1e3)
    return statistics.median(times[3:])


def _sdpa_ms(case: _Case) -> float:
    """As `_step_ms`, of torch's attention: the query heads as heads, as a model calls it, or as positions of
    one head, whichever is faster."""
    layer = case.layer.head(0)
    keys, values = (x[None].float() for x in (layer.keys, layer.values))
    group, medians = layer.group_size, []
    for shape in ((1, group, 1), (1, 1, group)):
        k, v = (x.expand(-1, shape[1], -1, -1) for x in (keys, values))
        times = []
        for i in range(TIMED + 3):
            q = case.q[:group, i * 7 % case.q.shape[1]].reshape(*shape, -1)
            started = perf_counter()
            torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=layer.scaling)
            times.append((perf_counter() - started) * 1e3)
        medians.append(statistics.median(times[3:]))
    return min(medians)


def _bandwidth() -> float:
    """Bytes a second of reading more memory than any cache holds."""
    memory = torch.zeros(1 << 27, dtype=torch.bfloat16)
    return statistics.median(_native.read_rate(memory, torch.get_num_threads()) for _ in range(9))
