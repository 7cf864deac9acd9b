"""`sakuin eval fidelity`: the next token, and each head's attention output, against full attention."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sakuin.cli.errors import reports_errors
from sakuin.cli.evaluate.options import (
    Configurations,
    Dtype,
    Lengths,
    Out,
    Pictures,
    Seed,
    Subject,
    command,
    distinct,
    goes_on,
    write,
)
from sakuin.cli.loading import Loading
from sakuin.cli.options import Backend, Device, GpuLayers, Json, Model, Threads, Window
from sakuin.cli.show import console, notes, say_json, show_table
from sakuin.errors import SakuinError

if TYPE_CHECKING:
    from sakuin.evaluate.answers.fidelity import Unit
    from sakuin.evaluate.answers.fidelity_rows import Row

USUAL = "balanced fast faithful streaming topk@balanced pages@balanced ivf@balanced"
DOMAINS = "english contracts logs code tables japanese records"

_COLUMNS = {
    "kl": "KL mean",
    "kl_worst": "KL worst",
    "top1": "top-1",
    "perplexity_ratio": "perplexity",
    "lost": "lost",
    "error": "error",
    "worst_head": "worst head",
    "coverage": "coverage",
    "touched_share": "touched",
}


_AHEAD = ("mean", "low", "high")
"""Of what a configuration's KL divergence is above the first one's."""


Texts = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[FILE]…",
        help="Text files to measure on; without any, the texts of --domains.",
        show_default=False,
    ),
]


def fidelity(
    files: Texts = None,
    model: Model = "smollm2",
    dtype: Dtype = "fp32",
    device: Device = "auto",
    window: Window = None,
    backend: Backend = "auto",
    gpu_layers: GpuLayers = "0",
    threads: Threads = None,
    configurations: Configurations = USUAL,
    domains: Annotated[
        str, typer.Option(metavar="NAMES", help="Kinds of text, with blanks between them.")
    ] = DOMAINS,
    lengths: Lengths = "2048 7000",
    tokens: Annotated[int, typer.Option(metavar="N", help="Tokens that the model is made to say.")] = 256,
    seed: Seed = 0,
    out: Out = Path("sakuin-eval"),
    pictures: Pictures = True,
    json: Json = False,
) -> None:
    """Compare what the model says next with what full attention says, token by token, over real texts.

    Each text is read once. After each length follow tokens of the text as it goes on, then a question about a
    fact that was planted in it (for `records`: all of them as JSON). KL is the divergence of the next-token
    distribution in nats, *error* that of the attention output, *lost* counts retrieved tokens that full
    attention has right.
    """
    with reports_errors(goes_on):
        from sakuin.evaluate.answers.fidelity import about, run
        from sakuin.evaluate.answers.pictures import check_matplotlib, draw_fidelity
        from sakuin.evaluate.configurations import configurations as named
        from sakuin.evaluate.configurations import with_full
        from sakuin.evaluate.results import Results

        wanted, most = named(configurations), distinct("--lengths", lengths)
        with_full(wanted)
        _check_texts(files or [], domains, seed)
        if pictures:
            check_matplotlib()
        subject = Subject.of(model, Loading(dtype, device, window, backend, gpu_layers, threads))
        described = subject.describe()
        passages = list(_passages(described.tokenizer, files or [], domains, most, tokens, seed))
        folder = subject.folder(out, "fidelity")
        loaded, _ = subject.load(described)
        with notes.status("weights", spinner="line") as status:
            made = about(subject.name, subject.used) | subject.marks(loaded, described.tokenizer)
            results = Results(folder / "results.jsonl", made)
            units = list(run(loaded, passages, wanted, results, status.update))
        words = subject.words() | {"--configurations": " ".join(c.name for c in wanted)}
        words |= {} if files else {"--domains": domains}
        words |= {"--lengths": " ".join(map(str, most)), "--tokens": str(tokens)}
        words |= {"--seed": str(seed)} if seed else {}
        report = _report(command("fidelity", words, files or []), subject, units)
        write(folder, "fidelity", report, results)
        if pictures:
            report["pictures"] = [str(path) for path in draw_fidelity(units, folder, model)]
        if json:
            say_json(report)
        else:
            _show(report, units, folder)


def _check_texts(files: list[Path], domains: str, seed: int) -> None:
    if seed < 0:
        raise SakuinError(f"--seed must be at least 0, got {seed}.")
    if files and (seed or domains != DOMAINS):
        raise SakuinError("--domains and --seed choose texts, and here are FILES; leave them out.")
    named = [str(file) for file in files] or domains.split()
    if not named:
        raise SakuinError("--domains names no kind of text.")
    twice = next((name for name in named if named.count(name) > 1), None)
    if twice is not None:
        raise SakuinError(f"{twice} is named twice, and would count twice.")


def _passages(
    tokenizer: Any, files: list[Path], domains: str, lengths: list[int], tokens: int, seed: int
) -> Any:
    from sakuin import documents
    from sakuin.evaluate.texts.domains import domain
    from sakuin.evaluate.texts.passages import passage, record_passage

    named = [file.name for file in files]
    for file in files:
        name = file.name if named.count(file.name) == 1 else str(file)
        yield passage(tokenizer, name, partial(_whole, documents.read(file).text), lengths, tokens)
    if files:
        return
    for name in domains.split():
        if domain(name).name == "records":
            yield record_passage(tokenizer, name, lengths, tokens, seed)
        else:
            yield passage(tokenizer, name, partial(domain(name).make, seed=seed), lengths, tokens)


def _whole(text: str, characters: int) -> str:
    return text


def _report(said: str, subject: Subject, units: list[Unit]) -> dict[str, Any]:
    from sakuin.evaluate.answers.fidelity_rows import ahead, layers, rows

    def listed(by: Any) -> dict[str, list[dict[str, Any]]]:
        return {str(value): [asdict(row) for row in found] for value, found in rows(units, by).items()}

    first, *others = dict.fromkeys(unit.configuration for unit in units)
    return {
        "command": said,
        "model": subject.model,
        "dtype": subject.used,
        "device": subject.place,
        "backend": subject.backend,
        "configurations": [asdict(row) for row in rows(units)[None]],
        "ahead": {name: dict(zip(_AHEAD, ahead(units, first, name), strict=True)) for name in others},
        "layers": {name: layers(units, name) for name in (first, *others)},
        "by_text": listed(lambda unit: unit.passage),
        "by_length": listed(lambda unit: unit.length),
    }


def _show(report: dict[str, Any], units: list[Unit], folder: Path) -> None:
    from sakuin.evaluate.answers.fidelity_rows import rows

    whole = rows(units)[None]
    texts = len({unit.passage for unit in units})
    over = "1 text" if texts == 1 else f"{texts} texts"
    console.print(f"{report['model']}, {over}, {whole[0].tokens:,} tokens for each configuration.\n")
    show_table(_table("configuration", [(row.configuration, row) for row in whole]))
    by_text, by_length = rows(units, lambda unit: unit.passage), rows(units, lambda unit: f"{unit.length:,}")
    for title, found in (("text", by_text), ("tokens", by_length)):
        if len(found) > 1:
            console.print()
            ours = [(str(value), each[0]) for value, each in found.items()]
            show_table(_table(f"{whole[0].configuration}, by {title}", ours))
    console.print(f"\nResults are in {folder}.")


def _table(title: str, found: list[tuple[str, Row]]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column(title, no_wrap=True)
    for name in _COLUMNS.values():
        table.add_column(name, justify="right", no_wrap=True)
    for name, row in found:
        table.add_row(name, *(_cell(key, row) for key in _COLUMNS))
    return table


def _cell(key: str, row: Row) -> str:
    value = getattr(row, key)
    if key == "lost":
        return f"{value} of {row.retrieved}"
    if key in ("top1", "coverage", "touched_share"):
        return f"{100 * value:.1f} %"
    if key == "perplexity_ratio":
        return f"{value:.4f}"
    return f"{value:.2g}" if value >= 0.001 else f"{value:.1e}" if value < 1e-5 else f"{value:.5f}"
