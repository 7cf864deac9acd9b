"""The tables of docs/indexes.md, docs/scaling.md and docs/speed.md, from the JSON files that the benchmarks
wrote. Called by tools/docs/figures.py, which puts each between its marks.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean
from typing import Any

from context_tables import TABLES as CONTEXTS
from end_to_end_tables import TABLES as END_TO_END
from evidence_tables import TABLES as EVIDENCE
from fidelity_tables import TABLES as FIDELITY
from goal_tables import TABLES as GOALS
from llama_tables import TABLES as LLAMA
from markdown_parts import percent, table
from served_tables import TABLES as SERVED


def _trace(name: str, measured: dict[str, Any]) -> str:
    """What benchmarks.method.indexes measured on: a trace's name there, and its tokens."""
    model = {"captured": "smollm2", "resampled": "smollm2, resampled"}.get(name, name)
    return f"{model}, {measured['tokens']:,}"


def _methods(result: dict[str, Any]) -> str:
    """Every method in one frame, a table for each trace."""
    columns = {"method": "l", "running text": "r", "retrieval": "r", "worst head": "r"}
    columns |= {"worst step": "r", "touched": "r", "ms": "r"}
    parts = []
    for name, measured in result["results"].items():
        rows = []
        for row in measured["methods"]:
            if row["method"] == "flat" or row["touched_share"] > 1:  # exact: said in the text
                continue
            timed = row["method"].replace(",", "").split()[0] in ("sketch", "ivf", "graph")
            rows.append(
                [
                    row["method"],
                    f"{row['running']:.3f}",
                    f"{row['retrieval']:.3f}",
                    f"{row['worst_head']:.2f}",
                    f"{row['worst_step']:.2f}",
                    percent(row["touched_share"]),
                    f"{row['step_ms']:.2f}" if timed else "",
                ]
            )
        parts.append(f"**{_trace(name, measured)} tokens**\n\n{table(columns, rows)}")
    return "\n".join(parts)


def _exact_methods(result: dict[str, Any]) -> str:
    """What exact methods take in the same run, beside `sketch`."""
    columns = {
        "trace, tokens": "l",
        "floor ms": "r",
        "`flat` ms": "r",
        "torch fp32 ms": "r",
        "`sketch` ms": "r",
    }
    rows = []
    for name, measured in result["results"].items():
        by_name = {row["method"]: row for row in measured["methods"]}
        torch_ms = by_name["torch SDPA, fp32"]["step_ms"] if "torch SDPA, fp32" in by_name else None
        rows.append(
            [
                _trace(name, measured),
                f"{by_name['sketch']['floor_ms']:.2f}",
                f"{by_name['flat']['step_ms']:.2f}",
                "" if torch_ms is None else f"{torch_ms:.1f}",
                f"{by_name['sketch']['step_ms']:.2f}",
            ]
        )
    return table(columns, rows)


def _builds(result: dict[str, Any]) -> str:
    """What the indexes of the same run hold, and how long they take to build."""
    columns = {"trace, tokens": "l"}
    columns |= {f"{kind} {what}": "r" for what in ("holds", "build s") for kind in ("sketch", "ivf", "graph")}
    rows = []
    for name, measured in result["results"].items():
        by_name = {row["method"]: row for row in measured["methods"]}
        kinds = [by_name[kind] for kind in ("sketch", "ivf", "graph")]
        rows.append(
            [
                _trace(name, measured),
                *(percent(kind["memory_share"]) for kind in kinds),
                *(f"{kind['build_s']:.1f}" for kind in kinds),
            ]
        )
    return table(columns, rows)


def _kernels_joined(rows: list[tuple[str, tuple[str, ...]]]) -> list[list[str]]:
    """Rows of kernels and cells; where the cells agree, one row that names all their kernels."""
    joined: dict[tuple[str, ...], list[str]] = {}
    for kernels, cells in rows:
        joined.setdefault(cells, []).append(kernels)
    return [[*cells, ", ".join(kernels)] for cells, kernels in joined.items()]


def _scaling_errors(*results: dict[str, Any]) -> str:
    columns = {"head_dim, group": "r", "tokens": "r", "running text": "r", "retrieval": "r"}
    columns |= {"worst step": "r", "touched": "r", "kernels": "l"}
    rows = [
        (
            result["machine"]["isa"],
            (
                f"{row['head_dim']}, {row['group']}",
                f"{row['tokens']:,}",
                f"{row['running']:.4f}",
                f"{row['retrieval']:.4f}",
                f"{row['worst_step']:.3f}",
                percent(row["touched_share"]),
            ),
        )
        for result in results
        for row in result["results"]
    ]
    rows.sort(key=lambda row: (int(row[1][0].split(",")[0]), int(row[1][1].replace(",", ""))))
    return table(columns, _kernels_joined(rows))


def _scaling_times(*results: dict[str, Any]) -> str:
    columns = {"kernels": "l", "head_dim, group": "r", "tokens": "r"}
    columns |= {"floor ms": "r", "`flat` ms": "r", "`sketch` ms": "r"}
    columns |= {"floor / `sketch`": "r", "`flat` / `sketch`": "r", "torch fp32 / `sketch`": "r"}
    rows = [
        [
            result["machine"]["isa"],
            f"{row['head_dim']}, {row['group']}",
            f"{row['tokens']:,}",
            f"{row['floor_ms']:.2f}",
            f"{row['flat_ms']:.2f}",
            f"{row['sketch_ms']:.2f}",
            f"{row['floor_over_sketch']:.1f}",
            f"{row['flat_over_sketch']:.1f}",
            f"{row['sdpa_over_sketch']:.0f}" if "sdpa_over_sketch" in row else "",
        ]
        for result in results
        for row in result["results"]
    ]
    return table(columns, rows)


def _llama_times(*results: dict[str, Any]) -> str:
    columns = {"kernels": "l", "goal s": "r", "floor s": "r", "`flat` s": "r", "`sketch` s": "r"}
    columns |= {"`sketch` s, shortest": "r"}
    rows = [
        [
            result["machine"]["isa"],
            f"{result['results']['goal_s']:.3f}",
            f"{result['results']['floor_s']:.2f}",
            f"{result['results']['flat_s']:.2f}",
            f"{result['results']['sketch_s']:.3f}",
            f"{result['results']['sketch_best_s']:.3f}",
        ]
        for result in results
    ]
    return table(columns, rows)


def _llama_errors(*results: dict[str, Any]) -> str:
    columns = {"running text": "r", "retrieval": "r", "touched": "r", "index holds": "r", "kernels": "l"}
    rows = [
        (
            result["machine"]["isa"],
            (
                f"{result['results']['running']:.4f}",
                f"{result['results']['retrieval']:.4f}",
                percent(result["results"]["touched_share"]),
                percent(result["results"]["memory_share"]),
            ),
        )
        for result in results
    ]
    return table(columns, _kernels_joined(rows))


def _grown(result: dict[str, Any]) -> list[tuple[str, str, dict[str, float]]]:
    """Index, tokens of an append, and means over layers."""
    rows = []
    for kind, by in dict.fromkeys((row["kind"], row["by"]) for row in result["rows"]):
        layers = [row for row in result["rows"] if (row["kind"], row["by"]) == (kind, by)]
        mean = {name: fmean(row[name] for row in layers) for name in layers[0] if name != "kind"}
        rows.append((f"`{kind}`", str(by), mean))
    return rows


def _growth_errors(result: dict[str, Any]) -> str:
    columns = {"index": "l", "appends of": "r", "running text, at once": "r", "running text, grown": "r"}
    columns |= {"retrieval, at once": "r", "retrieval, grown": "r"}
    shown = ("once", "grown", "once_retrieval", "grown_retrieval")
    rows = [[kind, by, *(f"{mean[name]:.4f}" for name in shown)] for kind, by, mean in _grown(result)]
    return table(columns, rows)


def _growth_times(result: dict[str, Any]) -> str:
    columns = {"index": "l", "appends of": "r", "one append, ms": "r", "one step, ms": "r"}
    columns |= {"appends / steps": "r"}
    rows = [
        [kind, by, f"{mean['append_ms']:.2f}", f"{mean['step_ms']:.3f}", percent(mean["share"])]
        for kind, by, mean in _grown(result)
    ]
    return table(columns, rows)


def _appended(*results: dict[str, Any]) -> str:
    """KL and touched share after an appended text, where few and where more segments have their own basis."""
    columns = {"model": "l", "tokens": "r", "appended": "r", "of": "l"}
    pairs: dict[tuple[Any, ...], dict[int, dict[str, Any]]] = {}
    for row in (row for result in results for row in result["results"]):
        key = (row["model"], f"{row['tokens']:,}", f"{row['appended']:,}", row["kind"])
        pairs.setdefault(key, {})[row["own_basis"]] = row
    thresholds = sorted({own for found in pairs.values() for own in found}, reverse=True)
    for own in thresholds:
        columns |= {f"KL, from {own} · head_dim": "r", f"touched, {own}": "r"}
    rows = []
    for key, found in pairs.items():
        shown = [found[own] for own in thresholds]
        cells = ((f"{row['kl_mean']:.6f}", percent(row["touched_share"])) for row in shown)
        rows.append([*key, *(cell for pair in cells for cell in pair)])
    return table(columns, rows)


def _quantizers(result: dict[str, Any]) -> str:
    columns = {"way": "l", "running text": "r", "retrieval": "r", "worst head": "r", "worst step": "r"}
    rows = [
        [
            row["way"],
            *(f"{row[name]:.4f}" for name in ("running", "retrieval")),
            *(f"{row[name]:.3f}" for name in ("worst_head", "worst_step")),
        ]
        for row in result["results"]
    ]
    return table(columns, rows)


def _sealing(result: dict[str, Any]) -> str:
    columns = {"model, tokens": "l", "a layer's prefill, thread s": "r", "sealing it, thread s": "r"}
    columns |= {"share": "r", "left at the end, all layers, s": "r"}
    rows = [
        [
            f"{row['model']}, {row['tokens']:,}",
            f"{row['layer_thread_s']:.2f}",
            f"{row['sealing_cpu_s']:.3f}",
            percent(row["share"]),
            f"{row['sealing_after_prefill_s']:.2f}",
        ]
        for row in result["results"]
    ]
    return table(columns, rows)


def _step(*results: dict[str, Any]) -> str:
    """One step of `sketch` beside `flat`, means over layers and kinds of queries."""
    columns = {"kernels": "l", "`flat` ms": "r", "`sketch` ms": "r", "`flat` / `sketch`": "r"}
    columns |= {"by the shortest times": "r", "warm": "r", "error": "r", "touched": "r"}
    rows = [
        [
            result["command"].split()[-1],
            f"{fmean(row['flat_ms'] for row in result['results']):.2f}",
            f"{fmean(row['sketch_ms'] for row in result['results']):.2f}",
            f"{result['flat_over_sketch']:.2f}",
            f"{result['flat_over_sketch_best']:.2f}",
            f"{result['flat_over_sketch_warm']:.2f}",
            f"{fmean(row['error'] for row in result['results']):.4f}",
            percent(fmean(row["touched_share"] for row in result["results"])),
        ]
        for result in results
    ]
    return table(columns, rows)


TABLES: dict[str, tuple[str, Callable[..., str]]] = {
    "methods": ("indexes", _methods),
    "exact-methods": ("indexes", _exact_methods),
    "builds": ("indexes", _builds),
    "growth-errors": ("growth", _growth_errors),
    "growth-times": ("growth", _growth_times),
    "appended": ("appended-*", _appended),
    "quantizers": ("quantizers", _quantizers),
    "sealing": ("sealing", _sealing),
    "scaling-errors": ("scaling-*", _scaling_errors),
    "scaling-times": ("scaling-*", _scaling_times),
    "llama-errors": ("llama_step-*", _llama_errors),
    "llama-times": ("llama_step-*", _llama_times),
    "step": ("sketch_step-*", _step),
    **FIDELITY,
    **LLAMA,
    **GOALS,
    **CONTEXTS,
    **END_TO_END,
    **EVIDENCE,
    **SERVED,
}
"""Names of tables to the benchmark's files and what makes a table of their contents."""
