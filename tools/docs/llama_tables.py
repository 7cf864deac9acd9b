"""The tables of docs/gguf-answers.md: what sakuin says with llama.cpp, from `sakuin eval`
(tools/keep_evaluation.py) and from benchmarks/answers. Called by tools/docs/tables.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fidelity_tables import SCORES, captioned, differing, extraction, nats, needles, scores
from markdown_parts import percent, table

Row = dict[str, Any]

KL, WORST = 0.0004, 0.02
"""The most that `balanced` may diverge from exact attention, on average and at one token."""


def met(row: Row) -> bool:
    """Whether a row of `balanced` reaches its goals."""
    return bool(row["kl"] <= KL and row["kl_worst"] <= WORST and row["lost"] == 0)


def fidelity(*results: Row) -> str:
    """Every configuration at every length, against the goals of `balanced`."""
    columns = {"model, tokens, texts": "l", "configuration": "l", "compared": "r", "KL mean (95 %)": "r"}
    columns |= {"worst token": "r", "top-1": "r", "lost": "r", "touched": "r", "goal met": "l"}
    found = [
        (result, int(length), row)
        for result in results
        for length, rows in result["by_length"].items()
        for row in rows
    ]
    return table(
        columns,
        (
            [
                f"{_model(result)}, {length:,}, {len(result['by_text'])}",
                f"`{row['configuration']}`",
                f"{row['tokens']:,}",
                f"{nats(row['kl'])} ({nats(row['kl_low'])} to {nats(row['kl_high'])})",
                nats(row["kl_worst"]),
                percent(row["top1"]),
                f"{row['lost']} of {row['retrieved']}",
                percent(row["touched_share"]),
                ("yes" if met(row) else "**no**") if row["configuration"] == "balanced" else "",
            ]
            for result, length, row in sorted(found, key=lambda each: (each[0]["model"], each[1]))
        ),
    )


def _model(result: Row) -> str:
    return str(result["model"]) + (" by YaRN" if "--window" in result["command"] else "")


def alone(*results: Row) -> str:
    """llama.cpp by itself and sakuin's ways, beside transformers in fp32."""
    columns = {"model, tokens": "l", "way": "l", "compared": "r", "KL mean": "r", "worst token": "r"}
    columns |= {"top-1": "r", "KL above llama.cpp's (95 %)": "r"}
    return table(
        columns,
        (
            [
                f"{result['model']}, {result['tokens']:,}",
                row["way"],
                f"{row['positions']:,}",
                f"{row['kl']:.4f}",
                f"{row['kl_worst']:.3f}",
                percent(row["top1"]),
                "" if row is result["results"][0] else _above(row),
            ]
            for result in results
            for row in result["results"]
        ),
    )


def _above(found: Row) -> str:
    return f"{found['above']:+.4f} ({found['above_low']:+.4f} to {found['above_high']:+.4f})"


def two_backends(*results: Row) -> str:
    """Contexts that one backend read, asked through each."""
    columns = {"model": "l", "read by": "l", "asked through": "l", "numbers found": "r"}
    columns |= {"answers as the reader's": "r", "as from a context of its own": "r"}
    return table(
        columns,
        (
            [
                result["model"],
                row["reader"],
                row["asker"],
                f"{row['found']} of {row['needles']}",
                f"{row['as_reader']} of {row['needles']}",
                f"{row['as_own']} of {row['needles']}",
            ]
            for result in results
            for row in result["results"]
        ),
    )


def ruler(*results: Row) -> str:
    """RULER's tasks, each and their mean, and the answers that score otherwise than full attention's."""
    columns = {"task": "l", "samples": "r"} | SCORES | {"same answers": "r"}
    parts = []
    for result in results:
        groups = dict.fromkeys((row["length"], row["configuration"]) for row in result["rows"])
        for length, name in groups:
            cells = (
                [
                    row["task"] or "all",
                    str(row["loss"]["pairs"]),
                    *scores(row),
                    f"{row['same']} of {row['loss']['pairs']}",
                ]
                for row in result["rows"]
                if (row["length"], row["configuration"]) == (length, name)
            )
            where = "all lengths" if length is None else f"{length:,} tokens"
            said = f"**{result['about']['model']}, {where}**, `{name}`:"
            parts.append((said, table(columns, cells)))
    if any(result["differing"] for result in results):
        parts.append(differing(*results))
    return captioned(*parts)


TABLES: dict[str, tuple[str, Callable[..., str]]] = {
    "llama-fidelity": ("evaluation-llama-fidelity-*", fidelity),
    "llama-again": ("evaluation-llama-again-*", fidelity),
    "llama-alone": ("llama_alone-*", alone),
    "two-backends": ("two_backends-*", two_backends),
    "llama-needle": ("evaluation-llama-needle-*", needles),
    "llama-ruler": ("evaluation-llama-ruler-*", ruler),
    "llama-extract": ("evaluation-llama-extract-*", extraction),
}
"""As in tools/docs/tables.py."""
