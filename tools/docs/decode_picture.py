"""The README's picture: milliseconds a token against context length, sakuin beside full attention.

It is drawn from the committed results of benchmarks.speed.decode_depth. The file holds the numbers that it
shows, as JSON in its description: the check compares numbers, and needs no matplotlib. Called by
tools/docs/generate.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any

from places import DOCS, RESULTS

MEASURED = RESULTS / "decode_depth.json"
PICTURE = DOCS / "pictures" / "decode.svg"

# Middle tones, since the background is the page's: each has a contrast of 4 to white and to near black.
GREY, BLUE, ORANGE = "#76797e", "#2a80cc", "#c96013"
SERIES = (("full attention", "sdpa", ORANGE), ("sakuin", "sakuin", BLUE))
DTYPES = ("bf16", "fp32")


def wanted() -> dict[str, Any]:
    """What the picture has to show: the machine, and by dtype and series the medians and quartiles."""
    result = json.loads(MEASURED.read_text("utf-8"))
    panels = {}
    for dtype in DTYPES:
        rows = result["results"][dtype]["depths"]
        panels[dtype] = {"tokens": [row["depth"] for row in rows]} | {
            name: {
                "ms": [round(row[f"{name}_ms"], 1) for row in rows],
                "quartiles": [[round(ms, 1) for ms in row[f"{name}_quartiles_ms"]] for row in rows],
            }
            for _, name, _ in SERIES
        }
    machine = result["machine"]
    where = f"{machine['cpu']}, {machine['threads']} threads, {machine['date']}"
    return {"title": f"SmolLM2-135M, milliseconds a token; {where}", "panels": panels}


def shown(picture: Path = PICTURE) -> dict[str, Any] | None:
    """What a committed picture shows; None where there is no picture, or one that does not say."""
    if not picture.is_file():
        return None
    _, begin, rest = picture.read_text("utf-8").partition("<dc:description>")
    text, end, _ = rest.partition("</dc:description>")
    found: dict[str, Any] | None = json.loads(unescape(text)) if begin and end else None
    return found


def draw() -> None:
    """Write the picture. The same numbers and the same matplotlib give the same bytes."""
    data = wanted()
    with figure_of(1, 2, (8, 3.4), sharey=True) as (figure, (both,)):
        for axes, (dtype, panel) in zip(both, data["panels"].items(), strict=True):
            _panel(axes, dtype, panel)
        both[0].set_ylabel("milliseconds a token")
        figure.supxlabel("tokens of context", fontsize=9, y=0.09)
        figure.text(
            0.5,
            0.015,
            data["title"] + "; median, shaded from quartile to quartile",
            ha="center",
            fontsize=7.5,
        )
        figure.tight_layout(rect=(0, 0.07, 1, 1), w_pad=2.5)
        PICTURE.parent.mkdir(exist_ok=True)
        write(PICTURE, figure, data)


def write(picture: Path, figure: Any, data: dict[str, Any]) -> None:
    """Write a figure with the numbers that it shows."""
    # Without a date and a version, which would change the bytes where nothing changed.
    about = {"Date": None, "Creator": None, "Title": data["title"], "Description": json.dumps(data)}
    figure.savefig(picture, format="svg", transparent=True, metadata=about)
    # matplotlib ends some lines in a blank.
    lines = (line.rstrip() for line in picture.read_text("utf-8").splitlines())
    picture.write_text("\n".join(lines) + "\n", "utf-8")


@contextmanager
def figure_of(
    rows: int, columns: int, size: tuple[float, float], *, sharey: bool = False
) -> Iterator[tuple[Any, Any]]:
    """A figure of the docs' look, size in inches, and its axes: a grid."""
    import matplotlib
    from matplotlib.figure import Figure

    settings = {
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "sakuin",  # names of parts do not change from run to run
        "font.family": "sans-serif",
        "font.size": 9,
        **dict.fromkeys(
            ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), GREY
        ),
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=size)
        grid = figure.subplots(rows, columns, sharey=sharey, squeeze=False)
        yield figure, grid


def _panel(axes: Any, dtype: str, panel: dict[str, Any]) -> None:
    tokens = panel["tokens"]
    for label, name, colour in SERIES:
        ms = panel[name]["ms"]
        axes.fill_between(
            tokens, *zip(*panel[name]["quartiles"], strict=True), color=colour, alpha=0.18, lw=0
        )
        axes.plot(tokens, ms, "o-", color=colour, lw=2.2, markersize=4.5)
        end = f"{label}\n{ms[-1]:.0f} ms"
        axes.annotate(
            end,
            (tokens[-1], ms[-1]),
            (8, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            weight="bold",
        )
    axes.set_title(dtype, loc="left", fontsize=10, weight="bold")
    axes.set_xticks(tokens, [f"{n:,}" for n in tokens])
    axes.set_xlim(0, tokens[-1] * 1.5)  # room for the lines' names
    axes.set_ylim(0)
    axes.grid(axis="y", color=GREY, alpha=0.25, lw=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_bounds(0, tokens[-1])
    axes.tick_params(labelleft=True)
