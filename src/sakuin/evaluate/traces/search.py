"""Search alone, side by side on a trace: how many of the k keys with the largest inner product are found, and
how long that takes for the whole query group of one KV head at one position.

The indexes are reached through `Index.search`; Faiss and hnswlib (the `eval` extra) run in a process of
their own (`search_peers`). Each is measured at several settings, so that time at equal recall
can be read. Behind `sakuin bench search` and benchmarks.speed.search.
"""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sakuin.errors import SakuinError
from sakuin.evaluate.traces import search_peers
from sakuin.evaluate.traces.trace import Layer, Trace
from sakuin.machine import children


@dataclass(frozen=True)
class Searcher:
    """A kind of index and one of its settings.

    knobs : with which it is built. setting : fields of its configuration, set once it is built. options :
    arguments of its `search`. Neighbours of one kind with equal knobs are built once.
    """

    kind: str
    setting: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    knobs: dict[str, Any] = field(default_factory=dict)


SEARCHERS = (
    Searcher("flat"),
    Searcher("sketch", options={"candidates": 0.02}),
    Searcher("sketch", options={"candidates": 0.04}),
    Searcher("sketch"),
    Searcher("sketch", options={"candidates": 0.16}),
    Searcher("sketch", options={"candidates": 0.32}),
    Searcher("ivf", setting={"budget": 0.1}),
    Searcher("ivf", setting={"budget": 0.3}),
    Searcher("graph", setting={"ef": 512}),
    Searcher("graph", setting={"ef": 1024}),
)
PEERS = tuple(search_peers.PEERS)
"""Names of what is compared with: Faiss' indexes and hnswlib."""


@dataclass
class SearchRow:
    """What one setting of one method does, over the first KV head of all layers of a trace.

    running, retrieval : mean recall@k over the asked positions of running text / the retrieval steps.
    worst_layer : the least mean recall of one layer.
    scanned : keys whose inner product was computed (centroids count as keys), as a share of all, mean over
        the queries; None where the method does not tell.
    search_ms : median time of one search for the query group at one position, mean over the layers.
    build_s : time to build, all layers. nbytes : of the index, keys included, mean over the layers; those of
        sakuin hold what attention needs as well, but for the values themselves.
    """

    method: str
    setting: str
    running: float
    retrieval: float
    worst_layer: float
    scanned: float | None
    search_ms: float
    build_s: float
    nbytes: int


@dataclass
class _Case:
    """The first KV head of a layer; `queries` `(positions, group, head_dim)`, the last `retrieval` of them
    retrieval steps; `truth` `(positions, group, k)`."""

    layer: Layer
    queries: Tensor
    truth: Tensor

    @classmethod
    def of(cls, layer: Layer, k: int) -> _Case:
        layer = layer.head(0)
        kept = layer.some_asked()
        queries = layer.asked[:, kept].transpose(0, 1).float().contiguous()
        keys = layer.keys[0].float()
        return cls(layer, queries, torch.stack([(q @ keys.T).topk(k, -1).indices for q in queries]))

    def recall(self, ids: Tensor) -> tuple[float, float, float]:
        """Over running text, retrieval steps, and both."""
        k = self.truth.shape[-1]
        found = (ids[..., :, None] == self.truth[..., None, :]).any(-1).float().sum(-1).mean(-1) / k
        first = len(found) - self.layer.retrieval
        return found[:first].mean().item(), found[first:].mean().item(), found.mean().item()


@dataclass
class _Measured:
    """One setting on one layer."""

    setting: str
    recall: tuple[float, float, float]
    scanned: float | None
    search_ms: float
    build_s: float
    nbytes: int


def compare_search(
    trace: Trace,
    searchers: Sequence[Searcher] = SEARCHERS,
    peers: Sequence[str] = PEERS,
    *,
    k: int = 100,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[SearchRow]:
    """Measure each of `searchers` and `peers` on the first KV head of every layer of `trace`.

    All use `torch.get_num_threads()` threads. `say` is told what is being measured. A `SakuinError` says what
    to install where a peer's package is missing; a `ValueError` that k or a peer's name is none.
    """
    n = next(iter(trace.layers.values())).keys.shape[1]
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= n:
        raise ValueError(f"k must be a whole number from 1 to the trace's {n} offloaded tokens, got {k!r}")
    trace.check_asked()
    _check(peers)
    return _compare(trace, searchers, peers, k, say)


def _check(peers: Sequence[str]) -> None:
    for peer in peers:
        if peer not in PEERS:
            raise ValueError(f"peers must be among {', '.join(PEERS)}; got {peer!r}")
        module, package = ("hnswlib", "hnswlib") if peer == "hnswlib" else ("faiss", "faiss-cpu")
        if find_spec(module) is None:
            raise SakuinError(
                f"comparing with {peer} needs the package {package}; run: pip install 'sakuin[eval]'"
            )


def _compare(
    trace: Trace, searchers: Sequence[Searcher], peers: Sequence[str], k: int, say: Callable[[str], None]
) -> Iterator[SearchRow]:
    say("exact search")
    cases = {number: _Case.of(layer, k) for number, layer in trace.layers.items()}
    for _, group in groupby(searchers, lambda s: (s.kind, s.knobs)):
        alike = list(group)
        yield from _rows(alike[0].kind, cases, partial(_ours, alike, k), say)
    for peer in peers:
        yield from _rows(peer, cases, partial(_theirs, peer, k), say)


def _rows(
    method: str,
    cases: dict[int, _Case],
    measure: Callable[[_Case], list[_Measured]],
    say: Callable[[str], None],
) -> Iterator[SearchRow]:
    layers = []
    for number, case in cases.items():
        say(f"{method}, layer {number}")
        layers.append(measure(case))
    for settings in zip(*layers, strict=True):
        shares = [m.scanned for m in settings if m.scanned is not None]
        yield SearchRow(
            method,
            settings[0].setting,
            running=statistics.fmean(m.recall[0] for m in settings),
            retrieval=statistics.fmean(m.recall[1] for m in settings),
            worst_layer=min(m.recall[2] for m in settings),
            scanned=statistics.fmean(shares) if shares else None,
            search_ms=statistics.fmean(m.search_ms for m in settings),
            build_s=sum(m.build_s for m in settings),
            nbytes=round(statistics.fmean(m.nbytes for m in settings)),
        )


def _ours(searchers: Sequence[Searcher], k: int, case: _Case) -> list[_Measured]:
    layer = case.layer
    started = perf_counter()
    index = layer.index(searchers[0].kind, **searchers[0].knobs)
    build_s = perf_counter() - started
    nbytes = index.nbytes - sum(v.nbytes for _, v in index.blocks())
    config, measured = index.config, []
    for searcher in searchers:
        index.config = config.with_changes(**searcher.setting)
        queries = [q[:, None].contiguous() for q in case.queries]
        for q in queries[: search_peers.WARM]:
            index.search(q, k, **searcher.options)
        ids, times = [], []
        for q in queries:
            started = perf_counter()
            ids.append(index.search(q, k, **searcher.options)[1][:, 0])
            times.append(perf_counter() - started)
        named = {**searcher.setting, **searcher.options}
        measured.append(
            _Measured(
                ", ".join(f"{name} {value}" for name, value in named.items()),
                case.recall(torch.stack(ids)),
                1.0 if searcher.kind == "flat" else None,
                statistics.median(times) * 1e3,
                build_s,
                nbytes,
            )
        )
    return measured


def _theirs(peer: str, k: int, case: _Case) -> list[_Measured]:
    with TemporaryDirectory(prefix="sakuin-") as name:
        folder = Path(name)
        np.save(folder / "keys.npy", case.layer.keys[0].float().numpy())
        np.save(folder / "queries.npy", case.queries.numpy())
        threads = torch.get_num_threads()
        given = {"folder": name, "method": peer, "threads": threads, "k": k}
        # Neither is the script's folder, which holds modules of ours, a place to import from.
        done = subprocess.run(
            children.python(search_peers.__file__, json.dumps(given)),
            capture_output=True,
            text=True,
            # The BLAS in Faiss' wheel would take every core while it builds.
            env=children.environment(OMP_NUM_THREADS=str(threads), OPENBLAS_NUM_THREADS=str(threads)),
        )
        if done.returncode != 0:
            last = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
            raise RuntimeError(f"{peer} could not be measured: {last}")
        return [
            _Measured(
                row["setting"],
                case.recall(torch.from_numpy(np.load(folder / row["ids"]))),
                row["scanned"],
                row["search_ms"],
                row["build_s"],
                row["nbytes"],
            )
            for row in map(json.loads, done.stdout.splitlines())
        ]
