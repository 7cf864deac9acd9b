"""The tables of docs/fidelity.md, from what `sakuin eval` found (benchmarks/evaluation.py). Called by
docs/tables.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from markdown_parts import percent, table

Row = dict[str, Any]


def _nats(x: float) -> str:
    return f"{x:.3f}" if x >= 0.1 else f"{x:.2g}" if x >= 1e-3 else f"{x:.6f}"


def _name(row: Row) -> str:
    return f"`{row['configuration']}`"


def configurations(*results: Row) -> str:
    """Every configuration of every model, over all texts and lengths."""
    columns = {"model": "l", "configuration": "l", "tokens": "r", "touched": "r", "KL mean (95 %)": "r"}
    columns |= {
        "worst token": "r",
        "retrieving": "r",
        "top-1": "r",
        "perplexity": "r",
        "lost": "r",
        "error": "r",
        "coverage": "r",
    }
    return table(
        columns,
        (
            [
                result["model"],
                _name(row),
                f"{row['tokens']:,}",
                percent(row["touched_share"]),
                f"{_nats(row['kl'])} ({_nats(row['kl_low'])} to {_nats(row['kl_high'])})",
                _nats(row["kl_worst"]),
                _nats(row["kl_retrieval"]),
                percent(row["top1"]),
                f"{row['perplexity_ratio']:.4f}",
                f"{row['lost']} of {row['retrieved']}",
                f"{row['error']:.4f}",
                percent(row["coverage"]),
            ]
            for result in results
            for row in result["configurations"]
        ),
    )


def by(what: str, title: str) -> Callable[..., str]:
    """The presets by text or length."""

    def made(*results: Row) -> str:
        columns = {"model": "l", title: "l", "`balanced`: KL mean": "r", "worst token": "r", "top-1": "r"}
        columns |= {"lost": "r", "touched": "r", "`fast`: KL mean": "r", "`faithful`: KL mean": "r"}
        rows = []
        for result in results:
            for value, found in result[what].items():
                named = {row["configuration"]: row for row in found}
                ours = named["balanced"]
                rows.append(
                    [
                        result["model"],
                        f"{int(value):,}" if value.isdecimal() else value,
                        _nats(ours["kl"]),
                        _nats(ours["kl_worst"]),
                        percent(ours["top1"]),
                        f"{ours['lost']} of {ours['retrieved']}",
                        percent(ours["touched_share"]),
                        *(_nats(named[n]["kl"]) if n in named else "" for n in ("fast", "faithful")),
                    ]
                )
        return table(columns, rows)

    return made


def peers(*results: Row) -> str:
    """By how much each peer's divergence is above ours at the same positions."""
    columns = {"model": "l", "peer": "l", "touched": "r", "KL above `balanced`": "r", "95 % interval": "r"}
    rows = []
    for result in results:
        for row in result["configurations"]:
            if row["configuration"].split("@")[0].split(":")[0] not in (
                "streaming",
                "topk",
                "pages",
                "ivf",
                "graph",
            ):
                continue
            above = result["ahead"][row["configuration"]]
            rows.append(
                [
                    result["model"],
                    _name(row),
                    percent(row["touched_share"]),
                    _nats(above["mean"]),
                    f"{_nats(above['low'])} to {_nats(above['high'])}",
                ]
            )
    return table(columns, rows)


def layers(*results: Row) -> str:
    """The layers with the largest error, and what is usual."""
    columns = {"model": "l", "median layer": "r", "largest errors (layer)": "l"}
    rows = []
    for result in results:
        errors = sorted(
            ((error, number) for number, error in result["layers"]["balanced"].items()), reverse=True
        )
        worst = ", ".join(f"{error:.4f} ({number})" for error, number in errors[:5])
        rows.append([result["model"], f"{errors[len(errors) // 2][0]:.4f}", worst])
    return table(columns, rows)


GOALS: tuple[tuple[str, str, Callable[[Row], float], float, Callable[[float], str]], ...] = (
    ("balanced", "KL mean", lambda row: row["kl"], 0.0004, _nats),
    ("balanced", "worst token", lambda row: row["kl_worst"], 0.01, _nats),
    ("balanced", "touched", lambda row: row["touched_share"], 0.09, percent),
    ("balanced", "tokens whose likeliest differs", lambda row: 1 - row["top1"], 0.015, percent),
    ("balanced", "perplexity ratio", lambda row: row["perplexity_ratio"], 1.001, lambda x: f"{x:.4f}"),
    ("balanced", "retrieved tokens lost", lambda row: row["lost"], 0, str),
    ("faithful", "KL mean", lambda row: row["kl"], 0.00005, _nats),
    ("faithful", "touched", lambda row: row["touched_share"], 0.14, percent),
    ("fast", "KL mean", lambda row: row["kl"], 0.002, _nats),
    ("fast", "touched", lambda row: row["touched_share"], 0.065, percent),
)
"""Preset, what, how it is read from a row, the most it may be, how it is written."""


def goals(*results: Row) -> str:
    """What was wanted of the presets from 7K tokens on, and whether it stands."""
    columns = {"preset": "l", "goal": "l", "at most": "r"}
    columns |= {
        f"{result['model']}, {length:,} ({_tokens(result, length):,} tokens)": "r"
        for result, length in _long(results)
    }
    rows = []
    for preset, what, read, most, written in GOALS:
        cells = []
        for result, length in _long(results):
            found = {row["configuration"]: row for row in result["by_length"][str(length)]}
            value = read(found[preset]) if preset in found else None
            cells.append(
                "" if value is None else written(value) + ("" if value <= most else " (**not met**)")
            )
        rows.append([f"`{preset}`", what, written(most), *cells])
    return table(columns, rows)


def _tokens(result: Row, length: int) -> int:
    return int(result["by_length"][str(length)][0]["tokens"])


def _long(results: tuple[Row, ...]) -> list[tuple[Row, int]]:
    return [
        (result, int(length)) for result in results for length in result["by_length"] if int(length) >= 7000
    ]


def needles(*results: Row) -> str:
    """Planted facts, by configuration."""
    columns = {"model": "l", "tokens": "l", "needles": "r", "documents": "r", "configuration": "l"}
    columns |= {"found": "r", "lost": "r", "gained": "r", "touched": "r"}
    return table(
        columns,
        (
            [
                result["model"],
                " ".join(f"{length:,}" for length in result["grid"]["lengths"]),
                str(result["grid"]["needles"]),
                str(row["cells"]),
                _name(row),
                percent(row["found"]),
                str(row["lost"]),
                str(row["gained"]),
                "" if row["configuration"] == "full" else percent(row["touched_share"]),
            ]
            for result in results
            for row in result["configurations"]
        ),
    )


def extraction(*results: Row) -> str:
    """Records written as JSON, by configuration."""
    columns = {
        "model": "l",
        "texts": "r",
        "configuration": "l",
        "records right": "r",
        "as full attention": "r",
    }
    columns |= {"same answers": "r", "touched": "r"}
    return table(
        columns,
        (
            [
                result["model"],
                str(row["texts"]),
                _name(row),
                f"{row['right']} of {row['records']}",
                "" if row["like_full"] is None else percent(row["like_full"]),
                f"{row['same']} of {row['texts']}",
                "" if row["configuration"] == "full" else percent(row["touched_share"]),
            ]
            for result in results
            for row in result["configurations"]
        ),
    )


def knobs(*results: Row) -> str:
    """One setting changed at a time, and layers left exact."""
    columns = {"model, tokens": "l", "setting": "l", "KL mean": "r", "worst token": "r", "touched": "r"}
    columns |= {"kept on the device": "r"}
    return table(
        columns,
        (
            [
                f"{result['model']}, {result['tokens']:,}",
                row["name"] if " " in row["name"] else f"`{row['name']}`",
                _nats(row["kl"]),
                _nats(row["kl_worst"]),
                percent(row["touched_share"]),
                f"{row['device_bytes'] / 1e6:.0f} MB",
            ]
            for result in results
            for row in result["results"]
        ),
    )


def ruler(*results: Row) -> str:
    """RULER's tasks, the mean over tasks at the end of each length, by configuration."""
    columns = {"model": "l", "tokens": "r", "configuration": "l", "task": "l", "samples": "r", "full": "r"}
    columns |= {"score": "r", "loss": "r", "95 %": "r", "kept": "r", "touched": "r"}
    rows = []
    for result in results:
        for row in result["rows"]:
            if row["task"] is not None and row["full"] == row["score"] == 0:
                continue  # said in the text
            loss = row["loss"]
            cells = [
                result["about"]["model"],
                "all" if row["length"] is None else f"{row['length']:,}",
                _name(row),
                row["task"] or "**mean**",
                str(loss["pairs"]),
                f"{row['full']:.1f}",
                f"{row['score']:.1f}",
                f"{loss['mean']:+.1f}",
                f"{loss['low']:+.1f} to {loss['high']:+.1f}",
                f"{row['kept']} of {row['solved']}",
                "" if row["touched_share"] is None else percent(row["touched_share"]),
            ]
            rows.append(cells)
    return table(columns, rows)


def differing(*results: Row) -> str:
    """RULER's answers whose score is not full attention's."""
    columns = {"model": "l", "tokens": "r", "configuration": "l", "task": "l", "sample": "r", "full": "r"}
    columns |= {"score": "r", "margin": "r"}
    rows = [
        [
            result["about"]["model"],
            f"{one['length']:,}",
            _name(one),
            one["task"],
            str(one["index"] + 1),
            f"{one['full']:.0f}",
            f"{one['score']:.0f}",
            "" if one["margin"] is None else f"{one['margin']:.3f} nats",
        ]
        for result in results
        for one in result.get("differing", ())
    ]
    return table(columns, rows)


def harness(*results: Row) -> str:
    """Metrics of lm-eval's tasks, each configuration beside full attention."""
    columns = {"model": "l", "task": "l", "metric": "l", "configuration": "l", "documents": "r", "value": "r"}
    columns |= {"full": "r", "difference": "r", "95 %": "r"}
    rows = []
    for result in results:
        for row in result["metrics"]:
            change = row["difference"]
            rows.append(
                [
                    result["model"],
                    row["task"],
                    row["metric"],
                    _name(row),
                    str(row["documents"]),
                    f"{row['value']:.4f}",
                    f"{row['full']:.4f}",
                    "" if change is None else f"{change['mean']:+.4f}",
                    "" if change is None else f"{change['low']:+.4f} to {change['high']:+.4f}",
                ]
            )
    return table(columns, rows)


TABLES: dict[str, tuple[str, Callable[..., str]]] = {
    "fidelity": ("evaluation-fidelity-*", configurations),
    "fidelity-goals": ("evaluation-fidelity-*", goals),
    "fidelity-texts": ("evaluation-fidelity-*", by("by_text", "text")),
    "fidelity-lengths": ("evaluation-fidelity-*", by("by_length", "tokens")),
    "fidelity-heldout": ("evaluation-heldout-*", configurations),
    "fidelity-curve": ("evaluation-peers-*", configurations),
    "fidelity-peers": ("evaluation-peers-*", peers),
    "fidelity-layers": ("evaluation-fidelity-*", layers),
    "needle": ("evaluation-needle-*", needles),
    "extract": ("evaluation-extract-*", extraction),
    "ruler": ("evaluation-ruler-*", ruler),
    "ruler-differing": ("evaluation-ruler-*", differing),
    "harness": ("evaluation-harness-*", harness),
    "knobs": ("knobs-*", knobs),
}
"""As in docs/tables.py."""
