"""The search alone beside Faiss and hnswlib, on real traces of smollm2: as captured, and resampled to 128K
offloaded tokens.

Run: python benchmarks/search.py
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

from common import console, load, show, write

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
    length, long = (int(x) for x in sys.argv[1:3]) if len(sys.argv) > 2 else (LENGTH, LONG)
    trace = capture(*load("smollm2", "fp32"), length)
    results: dict[str, Any] = {}
    short = Trace({number: layer.head(0) for number, layer in trace.layers.items()}, trace.about)
    for name, measured in (("captured", short), ("resampled", longer(short, long))):
        rows = [asdict(row) for row in compare_search(measured, say=console.print)]
        show(name, rows[0], [row.values() for row in rows])
        show(f"{name}, the fastest at {RECALL}", rows[0], [row.values() for row in at_equal_recall(rows)])
        tokens = next(iter(measured.layers.values())).keys.shape[1]
        results[name] = {"tokens": tokens, "fastest": at_equal_recall(rows), "methods": rows}
    if len(sys.argv) > 2:
        return  # a trial
    write("search", {"command": "python benchmarks/search.py", "recall": RECALL, "results": results})


if __name__ == "__main__":
    main()
