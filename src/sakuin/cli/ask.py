"""`sakuin ask`: a question of one or more documents, answered with the passages that the answer came from."""

from __future__ import annotations

import json as json_
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sakuin.cli.errors import told_in_a_sentence
from sakuin.cli.options import Device, Dtype, Json, Model, Window
from sakuin.cli.show import bar, console, facts, notes
from sakuin.errors import SakuinError

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from sakuin import RetrievalConfig
    from sakuin.context.context import Answer, Context, Progress
    from sakuin.context.evidence import Span

_PHASES = {"prefill": "reading", "index": "building the index"}

_SHOWN = 8
"""Passages printed for a person; `--json` has all."""


def ask(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE… QUESTION",
            help="Text, Markdown, HTML, PDF and Word files (`-` is standard input), and last the "
            "question, in quotes.",
            show_default=False,
        ),
    ],
    model: Model = "smollm2",
    index: Annotated[
        str | None,
        typer.Option(
            metavar="sketch|flat|auto|full",
            help="How old tokens are found: sketch (the default), flat (all, exactly), auto (flat while the "
            "context is short, else sketch), or full attention.",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(metavar="fast|balanced|faithful|exact", help="Settings by what they are for."),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="Above 1 is coarser and faster, below 1 finer and slower, 0 is exact."
        ),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(metavar="N", help="Most tokens of the answer.")] = 256,
    encoding: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Encoding of text and HTML files: cp932, shift_jis, …, or auto, which guesses where a file "
            "is not UTF-8. Without it UTF-8, and what an HTML page declares.",
        ),
    ] = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    window: Window = None,
    json: Json = False,
) -> None:
    """Ask a question of documents.

    Prints the answer, the passages that it attended to most, and what it took.
    """
    with told_in_a_sentence():
        paths, question = _split(words)
        config = _settings(index, preset, tolerance)
        if max_new_tokens < 1:
            raise SakuinError(f"--max-new-tokens must be at least 1, got {max_new_tokens}.")
        context, answer = _answer(
            paths, question, model, config, max_new_tokens, encoding, dtype, device, window, stream=not json
        )
        if json:
            print(json_.dumps(as_object(context, answer, model), ensure_ascii=False))
        else:
            print_answer(context, answer)


def _split(words: list[str]) -> tuple[list[str], str]:
    if len(words) < 2:
        raise SakuinError(f"give at least one file and then the question, got only {words[0]!r}.")
    *paths, question = words
    if Path(question).is_file():
        raise SakuinError(
            f"the last word must be the question, and {question!r} is a file; put the question last, in "
            "quotes."
        )
    if not question.strip():
        raise SakuinError("the question is empty; ask something.")
    if paths.count("-") > 1:
        raise SakuinError("standard input (-) can be read once only; name it once.")
    return paths, question


def _settings(
    index: str | None, preset: str | None, tolerance: float | None
) -> RetrievalConfig | Literal["full"]:
    from sakuin import RetrievalConfig

    if index not in (None, "sketch", "flat", "auto", "full"):
        raise SakuinError(f"--index must be sketch, flat, auto or full, got {index!r}.")
    changes: dict[str, Any] = {}
    if index is not None and index != "full":
        changes["index"] = index
    if tolerance is not None:
        changes["tolerance"] = tolerance
    config = RetrievalConfig(**changes) if preset is None else RetrievalConfig.preset(preset, **changes)
    if index == "full":
        if preset is not None or tolerance is not None:
            raise SakuinError(
                "--index full is full attention, which --preset and --tolerance do not change; leave them "
                "out."
            )
        return "full"
    if preset is not None and index is not None:
        meant = RetrievalConfig.preset(preset).index
        if index != meant and (index, meant) != ("auto", "sketch"):
            raise SakuinError(
                f"--preset {preset} means --index {meant}, got --index {index} beside it; leave one out."
            )
    if config.index == "flat" and (tolerance is not None or preset not in (None, "exact")):
        raise SakuinError(
            "--index flat and --preset exact attend to everything exactly, which --tolerance and other "
            "presets do not change; leave them out."
        )
    return config


def _answer(
    paths: list[str],
    question: str,
    model_name: str,
    config: RetrievalConfig | Literal["full"],
    max_new_tokens: int,
    encoding: str | None,
    dtype: str,
    device: str,
    window: int | None,
    *,
    stream: bool,
) -> tuple[Context, Answer]:
    from sakuin import documents

    # Before what takes seconds to import: a wrong path is said at once.
    with notes.status("reading"):
        texts = [documents.read(path, encoding) for path in paths]
    for note in (note for text in texts for note in text.notes):
        notes.print(note, style="dim", markup=False)

    from sakuin import Context
    from sakuin.backends import open as models
    from sakuin.capacity import need
    from sakuin.context.checks import check_length
    from sakuin.machine import devices

    with notes.status("starting"):
        quiet()
        place = devices.resolve_device(device)
        known = models.describe(model_name, window)
        kind = devices.resolve_dtype(dtype, place)
        tokens = sum(len(known.vocabulary.encode(text.text).ids) for text in texts)
        check_length(known.shape.window, tokens, sum(len(text.text) for text in texts))
        wanted = need.estimate(
            known.shape,
            tokens,
            kind,
            None if config == "full" else config,
            weights=known.n_weights * kind.itemsize,
        )
        need.check(wanted, f"{model_name} with a context of {tokens:,} tokens")
    with notes.status(f"loading {model_name}"):
        model, tokenizer = models.load(known, kind, place)
    with progress_bar() as progress:
        context = Context.from_documents(model, tokenizer, texts, config, progress)
    return context, streamed(context, question, max_new_tokens, stream)


def streamed(context: Context, question: str, max_new_tokens: int, stream: bool) -> Answer:
    """Ask, and with `stream` print the answer as it grows and end its line."""
    written = False

    def write(piece: str) -> None:
        nonlocal written
        written = True
        print(piece, end="", flush=True)

    answer = context.ask(question, max_new_tokens, write if stream else None)
    if written:
        print()
    return answer


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """What a context tells of its reading, as bars."""
    from rich.progress import TextColumn

    with bar(TextColumn("{task.fields[speed]}")) as shown:
        yield _Steps(shown)


class _Steps:
    """The progress of a context, as a bar: one task for each phase."""

    def __init__(self, shown: Bar) -> None:
        self._shown = shown
        self._tasks: dict[str, Any] = {}

    def __call__(self, done: int, total: int, phase: str) -> None:
        if phase not in self._tasks:
            self._tasks[phase] = self._shown.add_task(_PHASES[phase], total=total, speed="")
        task = self._tasks[phase]
        speed = ""
        if phase == "prefill" and done and (elapsed := self._shown.tasks[task].elapsed):
            speed = f"{done / elapsed:,.0f} tokens/s"
        self._shown.update(task, completed=done, total=total, speed=speed)


def as_object(context: Context, answer: Answer, model: str) -> dict[str, Any]:
    """The object of `--json`."""
    return {
        "answer": answer.text,
        "evidence": [asdict(span) for span in answer.evidence],
        "model": model,
        "index": answer.stats.get("index", "full"),
        "tokens": answer.tokens,
        "prefill_s": context.prefill_s + answer.prefill_s,
        "index_s": context.index_s,
        "decode_ms_per_token": answer.decode_ms_per_token,
        "coverage": answer.stats.get("coverage"),
        "kv_bytes": context.kv_bytes(),
        "new_tokens": answer.new_tokens,
        "finished": answer.finished,
        "touched_bytes": answer.stats.get("touched_bytes"),
        "touched_share": answer.stats.get("touched_share"),
        "notes": [note for document in context.documents for note in document.notes],
    }


def print_answer(context: Context, answer: Answer) -> None:
    """What a person sees below the answer: passages and figures."""
    from rich.table import Table
    from rich.text import Text

    if not answer.text:
        notes.print("(The model gave no answer.)")
    if not answer.finished:
        notes.print(f"(Cut off after {answer.new_tokens} tokens; --max-new-tokens allows more.)", style="dim")
    if answer.evidence:
        table = Table(box=None, pad_edge=False)
        table.add_column("passage", no_wrap=True)
        table.add_column("weight", justify="right")
        table.add_column("text", overflow="fold")
        for span in answer.evidence[:_SHOWN]:
            words = Text(" ".join(span.text.split()))
            if span.heading is not None and span.heading not in words.plain:
                words = Text.assemble((f"{span.heading}: ", "dim"), words)
            table.add_row(Text(_place(span)), f"{span.weight:.0%}", words)
        console.print()
        console.print(table)
    console.print()
    console.print(facts(_figures(context, answer)))


def _place(span: Span) -> str:
    """Where a passage stands: by page where the file has pages, else by line."""
    if span.page is not None:
        return f"{span.file}, page {span.page}"
    lines = f"{span.line_start}" if span.line_start == span.line_end else f"{span.line_start}-{span.line_end}"
    return f"{span.file}:{lines}"


def _figures(context: Context, answer: Answer) -> Iterator[tuple[str, str]]:
    from sakuin.quantities import gb

    held = context.kv_bytes()
    yield "tokens", f"{answer.tokens:,}"
    yield "prefill", f"{context.prefill_s + answer.prefill_s:.1f} s"
    yield "decode", f"{answer.decode_ms_per_token:.1f} ms a token"
    if context.config is not None:
        stats = answer.stats
        if not held["host"]:
            yield "index", "none: the text is short enough to be attended exactly"
            yield "keys and values", f"{gb(held['device'])}, buffers to grow in included"
            return
        chosen = " (chosen by auto)" if context.config.index == "auto" else ""
        yield (
            "index",
            f"{stats['index']}{chosen}, {context.index_s:.1f} s, whole segments beside the prefill",
        )
        yield "coverage", f"{stats['coverage']:.1%} of the attention"
        yield (
            "touched",
            f"{gb(stats['touched_bytes'])} a token ({stats['touched_share']:.1%} of the offloaded keys and "
            "values)",
        )
    yield "keys and values", f"{gb(held['device'])} on the device, {gb(held['host'])} on the host"


def quiet() -> None:
    """Progress bars and remarks of the libraries would run through ours."""
    from sakuin.backends.open import quiet as quiet_libraries

    quiet_libraries()
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
