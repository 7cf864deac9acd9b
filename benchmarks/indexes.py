"""The indexes side by side on real traces of smollm2: as captured, and resampled to 128K offloaded tokens.

Run: python benchmarks/indexes.py
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from common import load, show, write

from sakuin.evaluate import capture, compare, longer

LENGTH, LONG = 7600, 131072


def main() -> None:
    trace = capture(*load("smollm2", "fp32"), LENGTH)
    results: dict[str, Any] = {}
    for name, measured in (("captured", trace), ("resampled", longer(trace, LONG))):
        rows = [asdict(row) for row in compare(measured)]
        show(name, rows[0], [row.values() for row in rows])
        tokens = next(iter(measured.layers.values())).keys.shape[1]
        results[name] = {"tokens": tokens, "methods": rows}
    write("indexes", {"command": "python benchmarks/indexes.py", "results": results})


if __name__ == "__main__":
    main()
