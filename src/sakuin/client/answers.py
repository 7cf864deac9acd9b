"""What a server answers to a question. Called by `sakuin.client.client`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Evidence:
    """A passage that the answer attended to.

    document : its name. start, end : character offsets into the document's text, end not included. weight :
    share of all that was looked up, 0 to 1. page, heading : where it stands, or None. line_start, line_end :
    its lines, counted from 1. mark : of its footnote, or None.
    """

    document: str
    text: str
    weight: float
    start: int = 0
    end: int = 0
    page: int | None = None
    heading: str | None = None
    line_start: int = 0
    line_end: int = 0
    mark: int | str | None = None


@dataclass(frozen=True)
class Reply:
    """An answer.

    evidence : the passages that were looked up for it, the weightiest first. support : from 0 to 1, how much
    was looked up in the text; None where that is not known. supported : whether that is enough for the text
    to speak of what was asked. usage : tokens, as the server counts them. ended : why it ended, "stop" or
    "length" mostly.
    """

    text: str
    evidence: list[Evidence] = field(default_factory=list)
    support: float | None = None
    supported: bool | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    ended: str | None = None


def reply_of(said: Mapping[str, Any]) -> Reply:
    """The answer in a whole completion."""
    choice = said["choices"][0]
    return _reply(choice["message"]["content"] or "", said, said.get("usage"), choice.get("finish_reason"))


def streamed(chunks: Iterable[Mapping[str, Any]], stream: Callable[[str], None]) -> Reply:
    """The answer in a stream of chunks, each piece given to `stream` as it comes."""
    pieces: list[str] = []
    told: dict[str, Any] = {}
    usage, ended = None, None
    for chunk in chunks:
        usage = chunk.get("usage") or usage
        told |= {key: chunk[key] for key in ("evidence", "support", "supported") if key in chunk}
        for choice in chunk.get("choices", ()):
            ended = choice.get("finish_reason") or ended
            if piece := (choice.get("delta") or {}).get("content"):
                pieces.append(piece)
                stream(piece)
    return _reply("".join(pieces), told, usage, ended)


def _reply(text: str, told: Mapping[str, Any], usage: Any, ended: str | None) -> Reply:
    known = {one.name for one in fields(Evidence)}
    evidence = [
        Evidence(**{key: value for key, value in passage.items() if key in known})
        for passage in told.get("evidence") or ()
    ]
    return Reply(text, evidence, told.get("support"), told.get("supported"), dict(usage or {}), ended)
