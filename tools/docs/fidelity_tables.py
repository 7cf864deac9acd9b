"""The tables of docs/fidelity.md, docs/ruler.md and docs/lm-eval.md, from what `sakuin eval` found
(tools/keep_evaluation.py). Called by tools/docs/tables.py.

A table that a reader takes in has at most nine columns. So what every row would repeat is said once above the
table, and long lists of figures are two tables: what became of the answer, and what explains it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from markdown_parts import percent, table

from sakuin import kinds
from sakuin.index.kind import kind_of

Row = dict[str, Any]


def nats(x: float) -> str:
    return f"{x:.3f}" if x >= 0.1 else f"{x:.2g}" if x >= 1e-3 else f"{x:.6f}"


def _name(row: Row) -> str:
    return f"`{row['configuration']}`"


Part = tuple[str, str]
"""A table and the sentence before it."""


def _lean(said: str, columns: dict[str, str], rows: Iterable[list[str]], once: Sequence[str]) -> Part:
    """A table without those columns of `once` in which all rows are the same: the sentence says them."""
    held = list(rows)
    titles = list(columns)
    same = [title for title in once if len({row[titles.index(title)] for row in held}) == 1]
    kept = [i for i, title in enumerate(titles) if title not in same]
    made = table({titles[i]: columns[titles[i]] for i in kept}, ([row[i] for i in kept] for row in held))
    facts = "".join(f", {title} {held[0][titles.index(title)]}" for title in same)
    return f"{said}{facts}:", made


def captioned(*parts: Part) -> str:
    """Tables under each other, each after its own sentence."""
    return "\n".join(f"{said}\n\n{made}" for said, made in parts)


def _interval(found: Row, written: Callable[[float], str], name: str = "mean") -> str:
    return f"{written(found[name])} ({written(found['low'])} to {written(found['high'])})"


def configurations(*results: Row) -> str:
    """Every configuration of every model, over all texts and lengths."""
    return captioned(*_configurations(results))


def presets(*results: Row) -> str:
    """What was wanted of the presets from 7K tokens on, then every figure of theirs."""
    return captioned(
        ("What was wanted from 7,000 tokens of context on:", goals(*results)), *_configurations(results)
    )


def _configurations(results: tuple[Row, ...]) -> Iterator[Part]:
    rows = [(result["model"], row) for result in results for row in result["configurations"]]
    answers = ([model, *_answers(row)] for model, row in rows)
    yield "Means over all texts and lengths of the runs:", table({"model": "l"} | _ANSWERS, answers)
    more = ([model, *_more(row)] for model, row in rows)
    yield "More of the same runs:", table({"model": "l"} | _MORE, more)


_ANSWERS = {"configuration": "l", "touched": "r", "KL mean (95 %)": "r"}
_ANSWERS |= {"worst token": "r", "top-1": "r", "lost": "r"}
_MORE = {"configuration": "l", "tokens compared": "r", "KL where retrieved": "r", "perplexity ratio": "r"}
_MORE |= {"error": "r", "worst head": "r", "coverage": "r"}


def _answers(row: Row) -> list[str]:
    return [
        _name(row),
        percent(row["touched_share"]),
        f"{nats(row['kl'])} ({nats(row['kl_low'])} to {nats(row['kl_high'])})",
        nats(row["kl_worst"]),
        percent(row["top1"]),
        f"{row['lost']} of {row['retrieved']}",
    ]


def _more(row: Row) -> list[str]:
    return [
        _name(row),
        f"{row['tokens']:,}",
        nats(row["kl_retrieval"]),
        f"{row['perplexity_ratio']:.4f}",
        f"{row['error']:.4f}",
        f"{row['worst_head']:.3f}",
        percent(row["coverage"]),
    ]


def where(*results: Row) -> str:
    """Where the error lies: the presets by length and by text, `balanced` by layer."""
    parts = [
        *_by("by_length", "context", "length", results),
        *_by("by_text", "text", "kind of text", results),
    ]
    return captioned(*parts, ("Error of `balanced`, by layer:", layers(*results)))


def _by(what: str, title: str, said: str, results: tuple[Row, ...]) -> Iterator[Part]:
    kl = {"model": "l", title: "l", "`fast`": "r", "`balanced`": "r", "`faithful`": "r"}
    more = {"model": "l", title: "l", "tokens compared": "r", "touched": "r", "worst token": "r"}
    more |= {"top-1": "r", "lost": "r"}
    divergences, rest = [], []
    for result in results:
        for value, found in result[what].items():
            named = {row["configuration"]: row for row in found}
            ours = named["balanced"]
            at = [result["model"], f"{int(value):,}" if value.isdecimal() else value]
            names = ("fast", "balanced", "faithful")
            divergences.append([*at, *(nats(named[n]["kl"]) if n in named else "" for n in names)])
            rest.append(
                [
                    *at,
                    f"{ours['tokens']:,}",
                    percent(ours["touched_share"]),
                    nats(ours["kl_worst"]),
                    percent(ours["top1"]),
                    f"{ours['lost']} of {ours['retrieved']}",
                ]
            )
    yield f"KL mean of each preset, by {said}:", table(kl, divergences)
    yield f"More of `balanced`, by {said}:", table(more, rest)


def peers(*results: Row) -> str:
    """Presets, other tolerances and peers on one text; of each peer, by how much its divergence is above that
    of `balanced` at the same positions.
    """
    parts = []
    for result in results:
        rows = result["configurations"]
        (length,) = result["by_length"]
        model = f"**{result['model']}**, {int(length):,} tokens of context"
        answers = ([*_answers(row), _above(result, row)] for row in rows)
        parts.append((f"{model}:", table(_ANSWERS | {"KL above `balanced` (95 %)": "r"}, answers)))
        more = (_more(row) for row in rows)
        parts.append(_lean(f"{model}, more of the same runs", _MORE, more, ["tokens compared"]))
    return captioned(*parts)


def _above(result: Row, row: Row) -> str:
    kind = row["configuration"].split("@")[0].split(":")[0]
    peer = kinds.is_known(kind) and kind_of(kind).peer
    return _interval(result["ahead"][row["configuration"]], nats) if peer else ""


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
    ("balanced", "KL mean", lambda row: row["kl"], 0.0004, nats),
    ("balanced", "worst token", lambda row: row["kl_worst"], 0.01, nats),
    ("balanced", "touched", lambda row: row["touched_share"], 0.09, percent),
    ("balanced", "tokens whose likeliest differs", lambda row: 1 - row["top1"], 0.015, percent),
    ("balanced", "perplexity ratio", lambda row: row["perplexity_ratio"], 1.001, lambda x: f"{x:.4f}"),
    ("balanced", "retrieved tokens lost", lambda row: row["lost"], 0, str),
    ("faithful", "KL mean", lambda row: row["kl"], 0.00005, nats),
    ("faithful", "touched", lambda row: row["touched_share"], 0.14, percent),
    ("fast", "KL mean", lambda row: row["kl"], 0.002, nats),
    ("fast", "touched", lambda row: row["touched_share"], 0.065, percent),
)
"""Preset, what, how it is read from a row, the most it may be, how it is written."""


def goals(*results: Row) -> str:
    """What was wanted of the presets from 7K tokens on, and whether it stands."""
    columns = {"preset": "l", "goal": "l", "at most": "r"}
    columns |= {f"{result['model']}, {length:,}": "r" for result, length in _long(results)}
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


def _long(results: tuple[Row, ...]) -> list[tuple[Row, int]]:
    return [
        (result, int(length)) for result in results for length in result["by_length"] if int(length) >= 7000
    ]


def needles(*results: Row) -> str:
    """Planted facts, by configuration; a table for each grid."""
    columns = {"configuration": "l", "found": "r", "lost": "r", "gained": "r", "touched": "r"}
    parts = []
    for result in results:
        grid, rows = result["grid"], result["configurations"]
        lengths = " or ".join(", ".join(f"{length:,}" for length in grid["lengths"]).rsplit(", ", 1))
        each = "1 needle" if grid["needles"] == 1 else f"{grid['needles']} needles"
        said = f"**{result['model']}**, {rows[0]['cells']} documents of {lengths} tokens, {each} in each:"
        cells = (
            [
                _name(row),
                percent(row["found"]),
                str(row["lost"]),
                str(row["gained"]),
                "" if row["configuration"] == "full" else percent(row["touched_share"]),
            ]
            for row in rows
        )
        parts.append((said, table(columns, cells)))
    return captioned(*parts)


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
                nats(row["kl"]),
                nats(row["kl_worst"]),
                percent(row["touched_share"]),
                f"{row['device_bytes'] / 1e6:.0f} MB",
            ]
            for result in results
            for row in result["results"]
        ),
    )


SCORES = {"full": "r", "score": "r", "loss (95 %)": "r", "kept": "r", "touched": "r"}
"""Columns of a row of RULER; `scores` gives its cells."""


def scores(row: Row) -> list[str]:
    return [
        f"{row['full']:.1f}",
        f"{row['score']:.1f}",
        _interval(row["loss"], lambda x: f"{x:+.1f}"),
        f"{row['kept']} of {row['solved']}",
        "" if row["touched_share"] is None else percent(row["touched_share"]),
    ]


def _length(row: Row) -> str:
    return "all" if row["length"] is None else f"{row['length']:,}"


def ruler(*results: Row) -> str:
    """RULER's means over the tasks, and the answers whose score is not full attention's."""
    means = {"model": "l", "configuration": "l", "tokens": "r", "samples": "r"} | SCORES
    rows = [
        [result["about"]["model"], _name(row), _length(row), str(row["loss"]["pairs"]), *scores(row)]
        for result in results
        for row in result["rows"]
        if row["task"] is None
    ]
    return captioned(
        _lean("Means over the tasks", means, rows, ["configuration"]),
        differing(*results),
    )


def differing(*results: Row) -> Part:
    """RULER's answers that score otherwise than full attention's, and the sentence before them."""
    columns = {"model": "l", "configuration": "l", "tokens": "r", "task": "l", "sample": "r", "full": "r"}
    columns |= {"score": "r", "margin": "r"}
    rows = [
        [
            result["about"]["model"],
            _name(one),
            f"{one['length']:,}",
            one["task"],
            str(one["index"] + 1),
            f"{one['full']:.0f}",
            f"{one['score']:.0f}",
            "" if one["margin"] is None else f"{one['margin']:.3f} nats",
        ]
        for result in results
        for one in result.get("differing", ())
    ]
    return _lean("The answers that score otherwise than full attention's", columns, rows, ["configuration"])


def ruler_tasks(*results: Row) -> str:
    """RULER's tasks, a table for each model, length and configuration; tasks that score 0 both ways are said
    above it.
    """
    parts = []
    for result in results:
        groups: dict[tuple[int, str], list[Row]] = {}
        for row in result["rows"]:
            if row["task"] is not None:
                groups.setdefault((row["length"], row["configuration"]), []).append(row)
        for (length, configuration), rows in groups.items():
            shown = [row for row in rows if row["full"] or row["score"]]
            hidden = [row["task"] for row in rows if row not in shown]
            samples = sorted({row["loss"]["pairs"] for row in rows})
            said = f"**{result['about']['model']}, {length:,} tokens**, `{configuration}`, "
            said += " or ".join(map(str, samples)) + (" samples" if samples != [1] else " sample") + " a task"
            said += f". Both score 0 in {', '.join(hidden)}:" if hidden else ":"
            parts.append((said, table({"task": "l"} | SCORES, ([r["task"], *scores(r)] for r in shown))))
    return captioned(*parts)


def harness(*results: Row) -> str:
    """Metrics of lm-eval's tasks, each configuration beside full attention."""
    columns = {"model": "l", "documents": "r", "task": "l", "metric": "l", "configuration": "l"}
    columns |= {"full": "r", "value": "r", "difference (95 %)": "r"}
    rows = []
    for result in results:
        for row in result["metrics"]:
            change = row["difference"]
            rows.append(
                [
                    result["model"],
                    str(row["documents"]),
                    row["task"],
                    row["metric"],
                    _name(row),
                    f"{row['full']:.4f}",
                    f"{row['value']:.4f}",
                    "" if change is None else _interval(change, lambda x: f"{x:+.4f}"),
                ]
            )
    return captioned(_lean("Every metric", columns, rows, ["model", "documents"]))


TABLES: dict[str, tuple[str, Callable[..., str]]] = {
    "fidelity-goals": ("evaluation-fidelity-*", presets),
    "fidelity-where": ("evaluation-fidelity-*", where),
    "fidelity-heldout": ("evaluation-heldout-*", configurations),
    "fidelity-peers": ("evaluation-peers-*", peers),
    "needle": ("evaluation-needle-*", needles),
    "extract": ("evaluation-extract-*", extraction),
    "ruler": ("evaluation-ruler-*", ruler),
    "ruler-tasks": ("evaluation-ruler-*", ruler_tasks),
    "harness": ("evaluation-harness-*", harness),
    "knobs": ("knobs-*", knobs),
}
"""As in tools/docs/tables.py."""
