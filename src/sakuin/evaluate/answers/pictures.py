"""Pictures of evaluations, each as PNG and SVG. They need matplotlib (`pip install 'sakuin[eval]'`), which is
imported only here and only when something is drawn.

Called by the commands of `sakuin eval`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sakuin.errors import SakuinError
from sakuin.evaluate.answers.fidelity import Unit
from sakuin.evaluate.answers.fidelity_rows import rows
from sakuin.evaluate.answers.needle import Cell

_LEAST = 1e-7


def check_matplotlib() -> None:
    """Raise a `SakuinError` where matplotlib is missing."""
    if find_spec("matplotlib") is None:
        raise SakuinError(
            "drawing pictures needs matplotlib; `pip install 'sakuin[eval]'` brings it, and --no-pictures "
            "does without."
        )


def draw_fidelity(units: Sequence[Unit], folder: Path, model: str) -> list[Path]:
    """A heat map of each configuration's error by layer and query head, and error and KL divergence against
    touched bytes; the files written."""
    written = []
    for name in dict.fromkeys(unit.configuration for unit in units):
        written += _heads([unit for unit in units if unit.configuration == name], folder, model, name)
    return written + _against_bytes(units, folder, model)


def _heads(units: Sequence[Unit], folder: Path, model: str, name: str) -> list[Path]:
    from matplotlib.colors import LogNorm

    grid = [
        [sum(unit.errors[i][h] for unit in units) / len(units) for i in range(len(units[0].layers))]
        for h in range(len(units[0].errors[0]))
    ]
    figure, axes = _figure(max(4.0, 0.28 * len(grid[0]) + 2), 0.28 * len(grid) + 1.6)
    least = max(min(x for line in grid for x in line), _LEAST)
    shown = axes.imshow(grid, aspect="auto", cmap="viridis", norm=LogNorm(least, max(map(max, grid)) + least))
    axes.set_xticks(range(len(grid[0])), [str(layer) for layer in units[0].layers], fontsize=7)
    axes.set_yticks(range(len(grid)), [str(head) for head in range(len(grid))], fontsize=7)
    axes.set_xlabel("layer")
    axes.set_ylabel("query head")
    axes.set_title(f"{model}, {name}: relative error of the attention output", fontsize=9)
    figure.colorbar(shown, ax=axes)
    return _save(figure, folder / f"heads-{_file(name)}")


def _against_bytes(units: Sequence[Unit], folder: Path, model: str) -> list[Path]:
    from matplotlib.ticker import PercentFormatter

    found = rows(units)[None]
    figure, both = _figure(9.5, 4.0, columns=2)
    for axes, value, title in zip(
        both, ("error", "kl"), ("relative error of the attention output", "KL divergence, nats"), strict=True
    ):
        for row in found:
            at = max(getattr(row, value), _LEAST)
            axes.plot([row.touched_share], [at], "o")
            axes.annotate(
                row.configuration,
                (row.touched_share, at),
                fontsize=7,
                xytext=(4, 4),
                textcoords="offset points",
            )
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel("touched share of the offloaded keys and values (2 bytes a number)", fontsize=8)
        axes.set_title(f"{model}: {title}", fontsize=9)
        axes.grid(alpha=0.3)
    return _save(figure, folder / "bytes")


def draw_needle(cells: Sequence[Cell], folder: Path, model: str) -> list[Path]:
    """A heat map of depth and length for each configuration, side by side; the files written."""
    names = list(dict.fromkeys(cell.configuration for cell in cells))
    lengths, depths = sorted({cell.length for cell in cells}), sorted({cell.depth for cell in cells})
    figure, all_axes = _figure(
        (0.5 * len(lengths) + 1.4) * len(names), 0.3 * len(depths) + 1.6, columns=len(names)
    )
    for axes, name in zip(all_axes if len(names) > 1 else [all_axes], names, strict=True):
        grid = [[_found(cells, name, length, depth) for length in lengths] for depth in depths]
        shown = axes.imshow(grid, aspect="auto", cmap="RdYlGn", vmin=0, vmax=1)
        axes.set_xticks(range(len(lengths)), [f"{length:,}" for length in lengths], fontsize=7, rotation=45)
        axes.set_yticks(range(len(depths)), [f"{depth:.0%}" for depth in depths], fontsize=7)
        axes.set_xlabel("tokens", fontsize=8)
        axes.set_title(name, fontsize=9)
    figure.supylabel("depth of the needle", fontsize=8)
    figure.suptitle(f"{model}: share of the needles found", fontsize=9)
    figure.colorbar(shown, ax=all_axes)
    return _save(figure, folder / "needle")


def _found(cells: Sequence[Cell], name: str, length: int, depth: float) -> float:
    own = [c for c in cells if (c.configuration, c.length, c.depth) == (name, length, depth)]
    return sum(len(c.found) for c in own) / max(1, sum(c.needles for c in own))


def _figure(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns)


def _save(figure: Any, stem: Path) -> list[Path]:
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg")]
    for path in paths:
        # The same picture is the same file: no date, no random names in it.
        figure.savefig(path, dpi=130, metadata={"Date": None} if path.suffix == ".svg" else None)
    return paths


def _file(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name).strip("-")
