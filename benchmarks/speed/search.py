"""The search alone beside Faiss and hnswlib, on real traces of smollm2: as captured, and resampled to 128K
offloaded tokens.

Run: python -m benchmarks.speed.search [--length 7600] [--tokens 131072]
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from benchmarks.common import argument_parser, command, console, load, show, write
from sakuin.evaluate import Trace, capture, compare_search, longer

LENGTH, LONG = 7600, 131072
RECALL = 0.97


def at_equal_recall(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each method, the fastest setting with a mean recall of `RECALL` in running text and in retrieval."""
    best: dict[str, dict[str, Any]] = {}
    for row in rows:
        fast = row["method"] not in best or row["search_ms"] < best[row["method"]]["search_ms"]
        if min(row["running"], row["retrieval"]) >= RECALL and fast:
            best[row["method"]] = row
    return list(best.values())


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--length", type=int, default=LENGTH)
    parser.add_argument("--tokens", type=int, default=LONG, help="offloaded tokens of the resampled trace")
    chosen = parser.parse_args()
    trace = capture(*load("smollm2", "fp32"), chosen.length)
    results: dict[str, Any] = {}
    short = Trace({number: layer.head(0) for number, layer in trace.layers.items()}, trace.about)
    for name, measured in (("captured", short), ("resampled", longer(short, chosen.tokens))):
        rows = [asdict(row) for row in compare_search(measured, say=console.print)]
        show(name, rows[0], [row.values() for row in rows])
        show(f"{name}, the fastest at {RECALL}", rows[0], [row.values() for row in at_equal_recall(rows)])
        tokens = next(iter(measured.layers.values())).keys.shape[1]
        results[name] = {"tokens": tokens, "fastest": at_equal_recall(rows), "methods": rows}
    write("search", {"command": command(), "recall": RECALL, "results": results})


if __name__ == "__main__":
    main()
