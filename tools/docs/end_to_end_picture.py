"""The pictures of asking a long document: milliseconds a token, tokens a second of prefill and seconds to the
first answer against length, sakuin beside its peers; one for each kind of machine that was measured.

Drawn from the committed results of benchmarks.speed.end_to_end. As in decode_picture.py the file holds the
numbers that it shows. Called by tools/docs/generate.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from decode_picture import BLUE, GREY, ORANGE, figure_of, shown, write
from places import DOCS, RESULTS

PANELS = (
    ("decode_ms", "milliseconds a token"),
    ("prefill_per_s", "tokens a second of prefill"),
    ("first_answer_s", "seconds to the first answer"),
)
WAYS = {
    "sakuin": BLUE,
    "llama.cpp": ORANGE,
    "transformers, sdpa": GREY,
    "transformers, OffloadedCache": "#8a5fb0",
}
TITLES = {"smollm2": "SmolLM2-135M", "gemma3-270m": "Gemma 3 270M", "0.5b": "0.5B", "3b": "3B"}


def measured() -> list[Path]:
    """The results that there are, one for each kind of machine."""
    return sorted(RESULTS.glob("end_to_end-*.json"))


def picture(result: Path) -> Path:
    """Where the picture of a result lies."""
    return DOCS / "pictures" / f"{result.stem}.svg"


def wanted(result: Path) -> dict[str, Any]:
    """What the picture has to show: the machine, and by model, panel and way the points."""
    read = json.loads(result.read_text("utf-8"))
    machine = read["machine"]
    models = {
        name: {value: _lines(found["rows"], value) for value, _ in PANELS}
        for name, found in read["models"].items()
        if any(value in row for row in found["rows"] for value, _ in PANELS)
    }
    where = f"{machine['cpu']} ({read['kind']}), {machine['threads']} threads, {machine['date']}"
    return {"title": f"GGUF models, medians; {where}", "models": models}


def _lines(rows: list[dict[str, Any]], value: str) -> dict[str, list[list[float]]]:
    """By way the tokens and values."""
    found: dict[str, list[list[float]]] = {}
    for row in rows:
        if value in row:
            found.setdefault(row["way"], []).append([row["tokens"], round(row[value], 2)])
    return {way: sorted(points) for way, points in found.items()}


def wrong() -> list[str]:
    """Names of the pictures that do not show what was measured."""
    return [picture(each).name for each in measured() if shown(picture(each)) != wanted(each)]


def draw() -> None:
    """Write the pictures."""
    for result in measured():
        data = wanted(result)
        if data["models"]:
            _draw(picture(result), data)


def _draw(path: Path, data: dict[str, Any]) -> None:
    n = len(data["models"])
    with figure_of(n, len(PANELS), (10, 0.8 + 2.6 * n)) as (figure, grid):
        for line, (model, panels) in zip(grid, data["models"].items(), strict=True):
            for axes, (value, title) in zip(line, PANELS, strict=True):
                _panel(axes, f"{TITLES.get(model, model)}: {title}", panels[value])
        handles = {}
        for axes in grid.flat:
            lines, ways = axes.get_legend_handles_labels()
            handles |= dict(zip(ways, lines, strict=True))
        figure.legend(handles.values(), handles, loc="lower center", ncols=len(handles), frameon=False)
        figure.suptitle(data["title"], fontsize=8)
        figure.tight_layout(rect=(0, 0.25 / (0.8 + 2.6 * n), 1, 1))
        write(path, figure, data)


def _panel(axes: Any, title: str, lines: dict[str, list[list[float]]]) -> None:
    from matplotlib.ticker import LogLocator

    for way, points in lines.items():
        tokens, values = zip(*points, strict=True)
        axes.plot(tokens, values, "o-", color=WAYS[way], lw=2, markersize=4, label=way)
        end = f"{values[-1]:.3g}" if values[-1] < 1000 else f"{values[-1]:,.0f}"
        axes.annotate(
            end,
            (tokens[-1], values[-1]),
            (5, 0),
            textcoords="offset points",
            va="center",
            color=WAYS[way],
            fontsize=7,
        )
    axes.set_title(title, loc="left", fontsize=8, weight="bold")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = sorted({tokens for points in lines.values() for tokens, _ in points})
    axes.set_xticks(ticks, [f"{round(tokens / 1024)}K" for tokens in ticks])
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(axis="y", color=GREY, alpha=0.25, lw=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
