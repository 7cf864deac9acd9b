"""What walks through `graph` find and what they scan: recall of the 100 keys with the largest inner product,
and the share of keys whose inner product was computed.

One KV head of three layers of smollm2, as captured and resampled; queries of every sixteenth position of
running text and of all retrieval steps. Beside it hnswlib, if it is installed, over the same keys (M = 16,
ef_construction = 200, inner product); it does not say what it scans.

Run: python -m benchmarks.method.graph_walks [--tokens 32768 131072] [--layers 2 12 27]
"""

from __future__ import annotations

from importlib.util import find_spec
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import argument_parser, command, load, show, write
from sakuin import build_index
from sakuin.evaluate import Layer, Trace, capture, longer
from sakuin.index import GraphIndex

LENGTH, K, EVERY = 7600, 100, 16
EFS = (128, 256, 512, 1024)


def recall(found: Tensor, true: Tensor) -> Tensor:
    """Share of `true` `(heads, t, k)` that is in `found`, `(heads, t)`."""
    return (found[..., :, None] == true[..., None, :]).any(-2).double().mean(-1)


def walks(layer: Layer, q: Tensor, true: Tensor, retrieval: int) -> list[dict[str, Any]]:
    started = perf_counter()
    index = build_index(
        "graph", layer.keys, layer.values, queries=layer.queries, query_positions=layer.query_positions
    )
    seconds = perf_counter() - started
    assert isinstance(index, GraphIndex)
    rows, n = [], index.n_tokens
    for ef in EFS:
        _, ids, scanned = index.walk(q, K, ef)
        found, share = recall(ids, true), scanned.double() / n
        rows.append(
            {
                "method": "graph",
                "ef": ef,
                "recall": float(found[:, :-retrieval].mean()),
                "recall_retrieval": float(found[:, -retrieval:].mean()),
                "scanned": float(share[:, :-retrieval].mean()),
                "scanned_retrieval": float(share[:, -retrieval:].mean()),
                "build_s": seconds,
            }
        )
    return rows


def hnsw(layer: Layer, q: Tensor, true: Tensor, retrieval: int) -> list[dict[str, Any]]:
    import hnswlib

    keys = layer.keys[0].float().numpy()
    started = perf_counter()
    index = hnswlib.Index(space="ip", dim=keys.shape[1])
    index.init_index(len(keys), M=16, ef_construction=200, random_seed=1)
    index.add_items(keys, num_threads=torch.get_num_threads())
    seconds = perf_counter() - started
    rows = []
    for ef in EFS:
        index.set_ef(ef)
        ids, _ = index.knn_query(q.reshape(-1, q.shape[2]).numpy(), k=K)
        found = recall(torch.from_numpy(ids.astype("int64")).view(true.shape), true)
        rows.append(
            {
                "method": "hnswlib",
                "ef": ef,
                "recall": float(found[:, :-retrieval].mean()),
                "recall_retrieval": float(found[:, -retrieval:].mean()),
                "build_s": seconds,
            }
        )
    return rows


def measured(trace: Trace) -> list[dict[str, Any]]:
    rows = []
    for number, layer in trace.layers.items():
        kept = layer.some_asked(EVERY)
        q = layer.asked[:, kept].contiguous()
        true = (q @ layer.keys[0].float().T).topk(K).indices
        peers = [walks, hnsw] if find_spec("hnswlib") else [walks]
        for peer in peers:
            for row in peer(layer, q, true, layer.retrieval):
                rows.append({"tokens": layer.keys.shape[1], "layer": number, **row})
    return rows


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--tokens", type=int, nargs="*", default=[32768, 131072])
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 12, 27])
    parser.add_argument("--trace", help="a trace file instead of capturing one")
    arguments = parser.parse_args()
    if arguments.trace:
        trace = Trace.load(arguments.trace)
    else:
        trace = capture(*load("smollm2", "fp32"), LENGTH, arguments.layers)
    trace = Trace({number: trace.layers[number].head(0) for number in arguments.layers}, trace.about)
    rows = measured(trace)
    for n in arguments.tokens:
        rows += measured(longer(trace, n))
    columns = (
        "tokens",
        "layer",
        "method",
        "ef",
        "recall",
        "recall_retrieval",
        "scanned",
        "scanned_retrieval",
        "build_s",
    )
    show("recall@100 and what is scanned", columns, ([row.get(c, "") for c in columns] for row in rows))
    write("graph_walks", {"command": command(), "rows": rows})


if __name__ == "__main__":
    main()
