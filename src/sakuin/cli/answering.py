"""Answers as the commands give them: the settings that options mean, the answer as it grows, and what is
printed below it or as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from sakuin import kinds
from sakuin.cli.printable import one_line
from sakuin.cli.show import Written, console, facts, tell
from sakuin.errors import SakuinError
from sakuin.quantities import counted, size_of
from sakuin.quantities import meant as near

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
        hint = near(index, (*kinds.names(), "full"))
        raise SakuinError(f"--index must be {', '.join(kinds.names())} or full, got {index!r}{hint}.")
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


@dataclass(frozen=True)
class Manner:
    """How to answer: what `--max-new-tokens`, `--temperature`, `--top-p`, `--seed`, `--repeat-penalty`,
    `--stop` and `--allow-loops` say. Wrong ones are refused when it is made, before anything is read."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    repeat_penalty: float = 1.0
    stop: Sequence[str] | None = None
    allow_loops: bool = False

    def __post_init__(self) -> None:
        from sakuin.context.sampling import Sampling

        if self.max_new_tokens < 1:
            raise SakuinError(f"--max-new-tokens must be at least 1, got {self.max_new_tokens}.")
        Sampling(self.temperature, self.top_p, self.seed, self.repeat_penalty)
        if self.top_p != 1 and self.temperature == 0:
            raise SakuinError(
                f"--top-p {self.top_p:g} changes nothing while the likeliest token is taken; give "
                "--temperature too, such as 0.7."
            )
        if "" in (self.stop or ()):
            raise SakuinError("--stop is empty, and the answer would end before it began; leave it out.")

    def ask(self, how: Callable[..., Answer], text: str, stream: Written | None, **more: Any) -> Answer:
        """Call a context's `ask` or `chat`."""
        return how(
            text,
            self.max_new_tokens,
            stream,
            self.temperature,
            self.top_p,
            self.seed,
            repeat_penalty=self.repeat_penalty,
            stop=[_unescaped(each) for each in self.stop or ()],
            end_loops=not self.allow_loops,
            **more,
        )


def _unescaped(stop: str) -> str:
    """A shell has no easy way to write a line's end."""
    return stop.replace("\\n", "\n").replace("\\t", "\t")


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


def streamed(context: Context, question: str, manner: Manner, stream: bool) -> Answer:
    """Ask, and with `stream` print the answer as it grows and end its line."""
    written = Written()
    answer = manner.ask(context.ask, question, written if stream else None)
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
        "ended": answer.ended,
        "touched_bytes": answer.stats.get("touched_bytes"),
        "touched_share": answer.stats.get("touched_share"),
        "notes": [note for document in context.documents for note in document.notes],
    }


def remarks(context: Context, answer: Answer) -> Iterator[str]:
    """What is to be said of an answer: sentences in brackets."""
    if answer.ended == "interrupted":
        yield "(Interrupted.)" if answer.text else "(Interrupted before the first word.)"
    elif not answer.text:
        yield "(The model gave no answer.)"
    if answer.ended == "length":
        yield f"(Cut off after {counted(answer.new_tokens, 'token')}; --max-new-tokens allows more.)"
    elif answer.ended == "window":
        yield (
            f"(Cut off: the model reads at most {context.backend.shape.window:,} tokens, and document, "
            "question and answer have filled them; take a shorter document or a model with a longer window.)"
        )
    elif answer.ended == "loop":
        yield (
            "(Ended because it repeated itself; the repetition is left out. --repeat-penalty 1.1 often "
            "helps, --allow-loops lets it go on.)"
        )


def print_answer(context: Context, answer: Answer, figures: bool = False) -> None:
    """What a person sees below the answer: remarks, passages and, if asked for, figures."""
    for remark in remarks(context, answer):
        tell(remark)
    if said := doubt(answer, earlier=bool(context.turns)):
        tell(said)
    if answer.evidence:
        console.print()
        print_passages(answer)
    if figures:
        console.print()
        print_figures(context, answer)


def print_passages(answer: Answer) -> None:
    """The passages that the answer attended to most."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("passage", no_wrap=True)
    table.add_column("weight", justify="right")
    table.add_column("text", overflow="fold")
    for span in answer.evidence[:_SHOWN]:
        words = Text(one_line(span.text))
        heading = one_line(span.heading or "")
        if heading not in words.plain:
            words = Text.assemble((f"{heading}: ", "dim"), words)
        table.add_row(_ending(one_line(_place(span)), console.width // 3), f"{span.weight:.0%}", words)
    console.print(table)


def print_figures(context: Context, answer: Answer) -> None:
    """What the answer took."""
    console.print(facts(_figures(context, answer)))


DOUBT = "(The document seems not to speak of this: little of the answer was looked up in it.)"
DOUBT_IN_TALK = (
    "(Little of this answer was looked up in the document; it may come from what was said before, or the "
    "document seems not to speak of this.)"
)


def doubt(answer: Answer, *, earlier: bool) -> str:
    """What is to be said where little of an answer was looked up; "" where enough was. earlier : something
    was said before it, from which the same words may come."""
    if not is_doubtful(answer):
        return ""
    return DOUBT_IN_TALK if earlier else DOUBT


def is_doubtful(answer: Answer) -> bool:
    """Whether so little of it was looked up that the text seems not to speak of what was asked."""
    from sakuin.context.support import LITTLE

    return answer.support is not None and answer.support < LITTLE


def _ending(place: str, width: int) -> str:
    """The end of a long path, which says most: the passage itself needs room."""
    return place if len(place) <= width else f"…{place[1 - width :]}"


def _place(span: Span) -> str:
    """Where a passage stands: by page where the file has pages, else by line."""
    if span.page is not None:
        return f"{span.file}, page {span.page}"
    lines = f"{span.line_start}" if span.line_start == span.line_end else f"{span.line_start}-{span.line_end}"
    return f"{span.file}:{lines}"


def _figures(context: Context, answer: Answer) -> Iterator[tuple[str, str]]:
    held, backend = context.kv_bytes(), context.backend
    yield "model", f"{backend.source or 'given in Python'}, run by {backend.name}"
    yield (
        "tokens",
        f"{answer.tokens:,}, {answer.reused_tokens:,} of them read before the question; "
        f"{counted(answer.new_tokens, 'token')} of answer",
    )
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
