"""What a model says, parted into text and calls of tools, while it is said.

`ToolSpeech.add(piece)` gives events, each of which is one delta of OpenAI's stream. Where the answer is held
to a grammar, a call that is begun is one, and its arguments are handed on as they come. Where it is not, a
call is handed on when it is whole; one that is broken, or of a tool that is not there, is text. Called by the
routes of chats.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sakuin.server.constraints.grammars import CALL, CALL_END
from sakuin.server.schemas.tools import CalledFunction, ToolCall

_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*"([a-zA-Z0-9_-]+)"\s*,\s*"arguments"\s*:\s*(?=\S)')


@dataclass(frozen=True)
class Said:
    """Text for the user."""

    text: str

    def delta(self) -> dict[str, Any]:
        return {"content": self.text}


@dataclass(frozen=True)
class Begun:
    """A call. index : which one of the answer."""

    index: int
    id: str
    name: str

    def delta(self) -> dict[str, Any]:
        function = {"name": self.name, "arguments": ""}
        return {
            "tool_calls": [{"index": self.index, "id": self.id, "type": "function", "function": function}]
        }


@dataclass(frozen=True)
class Arguments:
    """More of a call's arguments, a piece of JSON."""

    index: int
    piece: str

    def delta(self) -> dict[str, Any]:
        return {"tool_calls": [{"index": self.index, "function": {"arguments": self.piece}}]}


Event = Said | Begun | Arguments


class _Braces:
    """Where a JSON object ends, character by character."""

    def __init__(self) -> None:
        self._depth, self._in_string, self._escaped = 0, False, False

    def ends(self, character: str) -> bool:
        """Whether the object ends with this character."""
        if self._in_string:
            if self._escaped:
                self._escaped = False
            elif character == "\\":
                self._escaped = True
            elif character == '"':
                self._in_string = False
            return False
        self._in_string = character == '"'
        self._depth += (character in "{[") - (character in "}]")
        return self._depth == 0 and character in "}]"


class ToolSpeech:
    """Parts one answer.

    names : of the tools. held : the answer is held to a grammar of calls.
    text : what was said to the user so far. calls : those so far, the last perhaps cut.
    """

    def __init__(self, names: Collection[str], *, held: bool) -> None:
        self._names, self._held = frozenset(names), held
        self.text = ""
        self._calls: list[tuple[str, str, list[str]]] = []
        self._pending = ""  # not yet told what it is
        self._call: _Call | None = None
        self._is_behind_a_call = False

    @property
    def calls(self) -> list[ToolCall]:
        return [
            ToolCall(id=call, function=CalledFunction(name=name, arguments="".join(pieces)))
            for call, name, pieces in self._calls
        ]

    def add(self, piece: str) -> list[Event]:
        """What a further piece of text brings."""
        events: list[Event] = []
        rest = piece
        while rest:
            rest, found = self._text(rest) if self._call is None else self._within(self._call, rest)
            events += found
        return _joined(events)

    def end(self) -> list[Event]:
        """What is left when the answer has ended: of a call that was not finished, and not handed on, its
        text."""
        left, self._pending = self._pending, ""
        if self._call is not None:
            left, self._call = ("" if self._call.is_told else CALL + self._call.taken), None
        elif self._is_behind_a_call and not left.strip():
            left = ""
        return _joined([self._said(left)])

    # -- text ------------------------------------------------------------------------------------------------

    def _text(self, piece: str) -> tuple[str, list[Event]]:
        """What is left of a piece, and the events of a text up to a call."""
        whole, self._pending = self._pending + piece, ""
        before, call, after = whole.partition(CALL)
        if call:
            self._call = _Call()
            return after, [] if self._is_behind_a_call and not before.strip() else [self._said(before)]
        keep = next((n for n in range(len(CALL) - 1, 0, -1) if whole.endswith(CALL[:n])), 0)
        told = whole[: len(whole) - keep]
        if self._is_behind_a_call and not told.strip():  # perhaps the gap before another call
            self._pending = whole
            return "", []
        self._is_behind_a_call = False
        self._pending = whole[len(told) :]
        return "", [self._said(told)]

    def _said(self, text: str) -> Said:
        self.text += text
        return Said(text)

    # -- calls -----------------------------------------------------------------------------------------------

    def _within(self, call: _Call, piece: str) -> tuple[str, list[Event]]:
        """What is left of a piece, and the events of a call."""
        used = call.take(piece, self._held)
        events: list[Event] = []
        is_call = self._held or (call.is_whole and self._whole(call))
        if call.is_whole or call.is_broken:
            self._call, self._is_behind_a_call = None, is_call and not call.is_broken
        if (call.is_broken and not call.is_told) or (call.is_whole and not is_call):
            return piece[used:], [self._said(CALL + call.taken)]
        if is_call and call.name and not call.is_told:
            events.append(self._begun(call))
        if call.is_told and call.arguments:
            said, call.arguments = call.arguments, ""
            self._calls[-1][2].append(said)
            events.append(Arguments(len(self._calls) - 1, said))
        return piece[used:], events

    def _begun(self, call: _Call) -> Begun:
        call.is_told = True
        self._calls.append((f"call_{secrets.token_hex(12)}", call.name, []))
        return Begun(len(self._calls) - 1, self._calls[-1][0], call.name)

    def _whole(self, call: _Call) -> bool:
        """Whether a call that nothing held to a form is one; its name and arguments are set then."""
        try:
            said = json.loads(call.body)
        except (ValueError, RecursionError):
            return False
        if (
            not isinstance(said, dict)
            or said.keys() - {"name", "arguments"}
            or said.get("name") not in self._names
        ):
            return False
        arguments = said.get("arguments", {})
        call.name, call.arguments = said["name"], json.dumps(arguments, ensure_ascii=False)
        return isinstance(arguments, dict)


class _Call:
    """A call that is being said.

    name, arguments : as far as known, and not handed on yet. is_told : it was handed on.
    is_whole, is_broken : how it has ended.
    """

    def __init__(self) -> None:
        self.name = self.arguments = ""
        self.is_told = self.is_whole = self.is_broken = False
        self._taken: list[str] = []
        self._body: list[str] = []  # its JSON
        self._head = ""  # of its JSON, up to its arguments
        self._tail = ""
        self._braces = _Braces()
        self._is_closed = False  # its JSON is

    @property
    def taken(self) -> str:
        """All of it so far."""
        return "".join(self._taken)

    @property
    def body(self) -> str:
        """Its JSON."""
        return "".join(self._body)

    def take(self, piece: str, held: bool) -> int:
        """Go on with a piece, as far as it belongs to this call; how many characters that are."""
        used, begins, ends = len(piece), 0, 0  # and where JSON lies in it
        for at, character in enumerate(piece):
            if self._is_closed:
                self._tail += "" if character.isspace() and not self._tail else character
                self.is_broken = not CALL_END.startswith(self._tail)
                self.is_whole = self._tail == CALL_END
            elif not self._body and not ends and character != "{":
                self.is_broken, begins = not character.isspace(), at + 1
            else:
                self._is_closed, ends = self._braces.ends(character), at + 1
            if self.is_broken or self.is_whole:
                used = at + self.is_whole
                break
        self._taken.append(piece[:used])
        if ends:
            self._body.append(piece[begins:ends])
            if held:
                self._hand_on(piece[begins : ends - self._is_closed])
        return used

    def _hand_on(self, json: str) -> None:
        """Find the name, and what there is of the arguments, in more of the JSON."""
        if not self.name:
            self._head += json
            head = _HEAD.match(self._head)
            if head is None:
                return
            self.name, json = head[1], self._head[head.end() :]
        self.arguments += json


def _joined(events: list[Event]) -> list[Event]:
    """Events without empty ones; pieces of one thing that follow each other as one."""
    found: list[Event] = []
    for event in events:
        last = found[-1] if found else None
        if isinstance(event, Said) and isinstance(last, Said):
            found[-1] = Said(last.text + event.text)
        elif isinstance(event, Arguments) and isinstance(last, Arguments) and last.index == event.index:
            found[-1] = Arguments(last.index, last.piece + event.piece)
        elif event != Said(""):
            found.append(event)
    return found
