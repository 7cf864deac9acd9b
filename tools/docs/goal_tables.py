"""The table of docs/fidelity.md that holds what was found against what was aimed at, beside the presets' own
(tools/docs/fidelity_tables.py). Called by tools/docs/tables.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from markdown_parts import table

Row = dict[str, Any]

LOSS = 0.5
"""Points that the mean over RULER's tasks may fall."""
RATIO = 2.0
"""A kind of text's divergence over that of technical English."""


def _met(said: str, good: bool) -> list[str]:
    return [said, "yes" if good else "**no**"]


def _texts(result: Row) -> Iterator[list[str]]:
    kl = {
        text: next(row["kl"] for row in rows if row["configuration"] == "balanced")
        for text, rows in result["by_text"].items()
    }
    if len(kl) > 1:
        text, most = max(kl.items(), key=lambda item: item[1])
        ratio = most / kl["english"]
        yield [
            result["model"] + (", other texts" if "--seed" in result["command"] else ""),
            f"largest KL of a kind of text, over technical English's: at most {RATIO:g}",
            *_met(f"{ratio:.1f} ({text})", ratio <= RATIO),
        ]


def _peers(result: Row) -> Iterator[list[str]]:
    first = result["configurations"][0]["configuration"]
    if first != "balanced":
        raise ValueError(f"peers are compared with the first configuration, which is {first}")
    others = {name: found for name, found in result["ahead"].items() if _is_peer(name) and "@" in name}
    behind = [name for name, found in others.items() if found["low"] <= 0]
    said = f"{len(others) - len(behind)} of {len(others)}" + "".join(f", not {name}" for name in behind)
    what = "peers whose KL is above `balanced`'s at equal touched bytes, the whole interval: all"
    yield [result["model"], what, *_met(said, not behind)]


def _is_peer(name: str) -> bool:
    return name.partition(":")[0].partition("@")[0] in ("streaming", "topk", "pages", "ivf", "graph")


def _needles(result: Row) -> Iterator[list[str]]:
    for row in result["configurations"]:
        if row["configuration"] == "balanced":
            said = f"{row['lost']} of {row['solved']} documents"
            what = f"needles ({result['dtype']}): documents in which one is lost: 0"
            yield [result["model"], what, *_met(said, row["lost"] == 0)]


def _extraction(result: Row) -> Iterator[list[str]]:
    rows = {row["configuration"]: row for row in result["configurations"]}
    full, ours = rows["full"]["right"], rows["balanced"]["right"]
    what = "records extracted: as many as with full attention"
    said, met = _met(f"{ours}, full attention {full}", ours >= full)
    yield [result["model"], what, said, met if full else "nothing to lose"]


def _ruler(result: Row) -> Iterator[list[str]]:
    for row in result["rows"]:
        if row["task"] is None and row["configuration"] == "balanced":
            loss = row["loss"]
            said = f"{loss['mean']:+.1f} ({loss['low']:+.1f} to {loss['high']:+.1f}), {loss['pairs']} samples"
            where = "all lengths" if row["length"] is None else f"{row['length']:,}"
            what = f"RULER at {where}: at most {LOSS:g} points lost, the interval holding 0"
            good = loss["mean"] >= -LOSS and loss["low"] <= 0 <= loss["high"]
            yield [result["about"]["model"], what, *_met(said, good)]


def others(*results: Row) -> str:
    """Everything that was aimed at and is not a column of the presets' table."""
    rows: list[list[str]] = []
    for kind, made in (
        ("fidelity", _texts),
        ("peers", _peers),
        ("needle", _needles),
        ("extract", _extraction),
        ("ruler", _ruler),
    ):
        for result in results:
            if _kind(result) == kind:
                by = ", llama.cpp" if result.get("backend") == "llama.cpp" else ""
                rows += ([model + by, *rest] for model, *rest in made(result))
    return table({"model": "l", "goal": "l", "found": "l", "met": "l"}, rows)


def _kind(result: Row) -> str:
    kind: str = result["command"].split()[2]
    return "peers" if kind == "fidelity" and any(_is_peer(name) for name in result["ahead"]) else kind


TABLES: dict[str, tuple[str, Callable[..., str]]] = {"fidelity-others": ("evaluation-*", others)}
"""As in tools/docs/tables.py. The commands stand with the tables of what was measured."""
