"""Answers as the commands give them: the settings that options mean, the answer as it grows, and what is
printed below it or as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from sakuin import kinds
from sakuin.cli.printable import one_line
from sakuin.cli.show import Written, console, facts, tell
from sakuin.errors import SakuinError
from sakuin.quantities import size_of

if TYPE_CHECKING:
    from sakuin import Answer, Context, RetrievalConfig, Span

_SHOWN = 8
"""Passages printed for a person; `--json` has all."""


def settings(
    index: str | None, preset: str | None, tolerance: float | None
) -> RetrievalConfig | Literal["full"]:
    """What `--index`, `--preset` and `--tolerance` mean together; "full" is full attention."""
    from sakuin import RetrievalConfig

    if index not in (None, "full") and not kinds.is_known(index):
        raise SakuinError(f"--index must be {', '.join(kinds.names())} or full, got {index!r}.")
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
    if index is not None and tolerance is not None and "tolerance" not in kinds.of(index).step_settings:
        raise SakuinError(f"--index {index} does not know a tolerance; leave --tolerance out.")
    return config


def check_answer(max_new_tokens: int) -> None:
    """Refuse a length that is none."""
    if max_new_tokens < 1:
        raise SakuinError(f"--max-new-tokens must be at least 1, got {max_new_tokens}.")


def typed(text: str, what: str) -> str:
    """What somebody typed, as text. Raises `SakuinError` where it is empty or its bytes are no UTF-8.

    text : as Python has it, with halves of characters for bytes that it could not decode.
    """
    try:
        text = text.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeDecodeError as error:
        raise SakuinError(
            f"{what} holds the byte 0x{error.object[error.start]:02x}, which is not UTF-8; write it in UTF-8."
        ) from None
    except UnicodeEncodeError as error:
        raise SakuinError(
            f"{what} holds half a character (U+{ord(error.object[error.start]):04X}); leave it out."
        ) from None
    if not text.strip():
        raise SakuinError(f"{what} is empty; ask something.")
    return text


def streamed(context: Context, question: str, max_new_tokens: int, stream: bool) -> Answer:
    """Ask, and with `stream` print the answer as it grows and end its line."""
    written = Written()
    answer = context.ask(question, max_new_tokens, written if stream else None)
    written.end()
    return answer


def as_object(context: Context, answer: Answer, model: str) -> dict[str, Any]:
    """The object of `--json`."""
    return {
        "answer": answer.text,
        "evidence": [asdict(span) for span in answer.evidence],
        "support": answer.support,
        "model": model,
        "backend": context.backend.name,
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
        tell("(The model gave no answer.)")
    if not answer.finished:
        tell(f"(Cut off after {answer.new_tokens} tokens; --max-new-tokens allows more.)")
    if is_doubtful(answer):
        tell(DOUBT)
    if answer.evidence:
        table = Table(box=None, pad_edge=False)
        table.add_column("passage", no_wrap=True)
        table.add_column("weight", justify="right")
        table.add_column("text", overflow="fold")
        for span in answer.evidence[:_SHOWN]:
            words = Text(one_line(span.text))
            heading = one_line(span.heading or "")
            if heading not in words.plain:
                words = Text.assemble((f"{heading}: ", "dim"), words)
            table.add_row(one_line(_place(span)), f"{span.weight:.0%}", words)
        console.print()
        console.print(table)
    console.print()
    console.print(facts(_figures(context, answer)))


DOUBT = "(The document seems not to speak of this: little of the answer was looked up in it.)"


def is_doubtful(answer: Answer) -> bool:
    """Whether so little of it was looked up that the text seems not to speak of what was asked."""
    from sakuin.context.support import LITTLE

    return answer.support is not None and answer.support < LITTLE


def _place(span: Span) -> str:
    """Where a passage stands: by page where the file has pages, else by line."""
    if span.page is not None:
        return f"{span.file}, page {span.page}"
    lines = f"{span.line_start}" if span.line_start == span.line_end else f"{span.line_start}-{span.line_end}"
    return f"{span.file}:{lines}"


def _figures(context: Context, answer: Answer) -> Iterator[tuple[str, str]]:
    held, backend = context.kv_bytes(), context.backend
    yield "model", f"{backend.source or 'given in Python'}, run by {backend.name}"
    yield "tokens", f"{answer.tokens:,}"
    yield "prefill", f"{context.prefill_s + answer.prefill_s:.1f} s"
    yield "decode", f"{answer.decode_ms_per_token:.1f} ms a token"
    if context.config is not None:
        stats = answer.stats
        if not held["host"]:
            yield "index", "none: the text is short enough to be attended exactly"
            yield "keys and values", f"{size_of(held['device'])}, buffers to grow in included"
            return
        chosen = " (chosen by auto)" if context.config.index == "auto" else ""
        yield (
            "index",
            f"{stats['index']}{chosen}, {context.index_s:.1f} s, whole segments beside the prefill",
        )
        yield "coverage", f"{stats['coverage']:.1%} of the attention"
        share = f"{stats['touched_share']:.1%} of the offloaded keys and values"
        yield "touched", f"{size_of(stats['touched_bytes'])} a token ({share})"
    yield "keys and values", f"{size_of(held['device'])} on the device, {size_of(held['host'])} on the host"
