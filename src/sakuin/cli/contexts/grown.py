"""What the commands that let a context grow, shrink or change say of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sakuin.cli.printable import one_line
from sakuin.cli.show import say, say_json, tell
from sakuin.quantities import counted

if TYPE_CHECKING:
    from sakuin import Context
    from sakuin.context.growth import Growth

_FEW, _SHARE = 512, 0.05
"""Tokens left for question and answer, of those that the model reads, below which a person is told."""


def print_growth(
    name: str, context: Context, growth: Growth, before: int, seconds: float, json: bool
) -> None:
    """What became of the documents. before : tokens that the context had."""
    more = context.tokens - before
    if json:
        said = {
            "name": name,
            "backend": context.backend.name,
            "appended": more,
            "tokens": context.tokens,
            "tokens_read": growth.tokens_read,
            "documents": [{"name": change.name, "what": change.what} for change in growth.changes],
            "seconds": seconds,
        }
        say_json(said)
    else:
        for change in growth.changes:
            if change.what == "same":
                tell(f"nothing new in {one_line(change.name)}")
        changed = [c for c in growth.changes if c.what in ("replaced", "removed")]
        if changed:
            what = ", ".join(f"{one_line(change.name)} {change.what}" for change in changed)
            say(
                f"{name}: {what}; {counted(growth.tokens_read, 'token')} read anew, {context.tokens:,} in all"
            )
        else:
            say(f"{name}: {counted(more, 'token')} more, {context.tokens:,} in all")
    warn_if_full(name, context)


def print_nothing_new(name: str, context: Context, growth: Growth, json: bool) -> None:
    """That a context holds already all that was to be appended."""
    if json:
        print_growth(name, context, growth, context.tokens, 0.0, json)
        return
    documents = ", ".join(one_line(change.name) or "the text" for change in growth.changes)
    tell(f"nothing new in {documents}: {name} holds all of it already.")


@contextmanager
def offers_what_there_is(*, window: bool = False) -> Iterator[None]:
    """Within, of a document that is too long it is said what a command can do about it. window : whether it
    has `--window`."""
    from sakuin.context.checks import TooLongError
    from sakuin.prompts.holding import EditedError

    try:
        yield
    except EditedError as error:
        raise EditedError(
            error.what,
            "--replace lets the new text take the place of the old one; a log that was rotated goes on with "
            "--follow, which reads the new file as a part of its own, or once from standard input "
            "(`sakuin contexts append NAME - < FILE`)",
        ) from None
    except TooLongError as error:
        helps = "shorten it, split it into several contexts, {}take a model with a longer window"
        helps += " (`sakuin models list`){}"
        last = ("", ", or make this one's longer (--window, by YaRN)") if window else ("or ", "")
        raise TooLongError(error.what, helps.format(*last), error.tokens, error.window) from None


def warn_if_full(name: str, context: Context) -> None:
    """Tell where little room is left for question and answer."""
    window = context.backend.shape.window
    left = 0 if window is None else window - context.tokens
    if window is None or left >= max(_FEW, _SHARE * window):
        return
    tell(
        f"{name} holds {context.tokens:,} of the {window:,} tokens that its model reads, so only "
        f"{left:,} {'is' if left == 1 else 'are'} left for a question and its answer; split it into several "
        "contexts, or take a model with a longer window."
    )
