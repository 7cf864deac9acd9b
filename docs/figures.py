"""The README's figures, from the JSON files that the benchmarks wrote. Called by docs/generate.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
BEGIN, END = "<!-- figures: begin -->\n", "<!-- figures: end -->\n"


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return content


def _machine(result: dict[str, Any]) -> str:
    m = result["machine"]
    return f"{m['cpu']}, {m['threads']} threads, kernels {m['isa']}, torch {m['torch']}, {m['date']}"


def figures() -> str:
    """Markdown of all figures."""
    decode, fidelity = _read("decode_depth"), _read("fidelity")
    parts = [
        "Decode of SmolLM2-135M, milliseconds a token (median), with sakuin beside transformers' own `sdpa`, "
        f"in one run (`{decode['command']}`; {_machine(decode)}):\n\n",
        "| tokens | " + " | ".join(f"{d} sakuin | {d} sdpa" for d in decode["results"]) + " |\n",
        "|---:|" + "---:|---:|" * len(decode["results"]) + "\n",
    ]
    for rows in zip(*(result["depths"] for result in decode["results"].values()), strict=True):
        cells = " | ".join(f"{row['sakuin_ms']:.0f} | {row['sdpa_ms']:.0f}" for row in rows)
        parts.append(f"| {rows[0]['depth']} | {cells} |\n")
    parts.append(
        "\nThe next token against full attention, KL divergence in nats over 200 teacher-forced tokens of "
        f"real text that end in a question about a planted fact, fp32 ("
        f"`{fidelity['command']}`; touched: bytes "
        "read from index and offloaded keys and values, as a share of these at 2 bytes a number):\n\n"
        "| model | context | mean | worst token | touched |\n|---|---:|---:|---:|---:|\n"
    )
    for row in fidelity["results"]:
        parts.append(
            f"| {row['model']} | {row['context']} | {row['kl_mean']:.5f} | {row['kl_worst']:.4f} | "
            f"{row['touched_share']:.1%} |\n"
        )
    steps = sorted(RESULTS.glob("sketch_step-*.json"))
    if steps:
        parts.append(
            "\nOne attention step over 128K keys (head_dim 64, a group of 7, real keys with jitter), against "
            "our own exact `flat`, on the same threads:\n\n"
        )
    for path in steps:
        result = _read(path.stem)
        isa = path.stem.removeprefix("sketch_step-")
        parts.append(
            f"- kernels {isa}: {result['flat_over_sketch']:.1f} times faster (`{result['command']}`)\n"
        )
    return "".join(parts)


def inserted(readme: str) -> str:
    """`readme` with the figures between its marks."""
    before, rest = readme.split(BEGIN)
    return before + BEGIN + figures() + END + rest.split(END)[1]
