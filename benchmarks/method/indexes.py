"""The indexes side by side on real traces: of smollm2 as captured and resampled to 128K offloaded tokens,
of gemma3-270m, whose head_dim is 256, as captured at 32K.

Run: python -m benchmarks.method.indexes [--traces FOLDER]
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.common import argument_parser, command, show, write
from benchmarks.shapes import traced
from sakuin.evaluate import compare, longer

LENGTH, LONG, GEMMA_LENGTH = 7600, 131072, 32768


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--traces", type=Path, help="keep captured traces in this folder")
    folder = parser.parse_args().traces
    trace = traced("smollm2", LENGTH, folder)
    results: dict[str, Any] = {}
    for name, measured in (
        ("captured", lambda: trace),
        ("resampled", lambda: longer(trace, LONG)),
        ("gemma3-270m", lambda: traced("gemma3-270m", GEMMA_LENGTH, folder)),
    ):
        found = measured()
        rows = [asdict(row) for row in compare(found)]
        show(name, rows[0], [row.values() for row in rows])
        tokens = next(iter(found.layers.values())).keys.shape[1]
        results[name] = {"tokens": tokens, "methods": rows}
    write("indexes", {"command": command(), "results": results})


if __name__ == "__main__":
    main()
