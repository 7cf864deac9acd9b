"""Where a sentence begins and ends: in running text, in lists, logs and tables, by rules of a few characters.

Only the text around a place is looked at, so that it takes the same time in a text of any length. Called by
`sakuin.context.evidence`.
"""

from __future__ import annotations

import re

_REACH = 360
"""Characters within which the start or end of a sentence is sought."""

_END = re.compile(
    r"""(?P<stop>[.!?…]+["'”’»)\]]*\s+)   # a full stop and a blank
    | [。！？]+[」』）]*\s*                 # Japanese and Chinese need no blank
    | \n[^\S\n]*\n\s*                     # an empty line
    | (?P<line>\n)(?=\s*\S)               # a line's end, which may be that of a wrapped line
    """,
    re.VERBOSE,
)
_ITEM = re.compile(r"\s*(?:[-*+•·–#>]|§|\d{1,3}(?:\.\d{1,3})+\.?\s|\(?\w{1,3}[.)]\s|[A-Z][\w ]{0,30}:\s)")
"""How a line of a list or a form begins: a sentence begins there."""
_ROW = re.compile(
    r"""\s*(?:[|\["{<]|\d[\d:T./-]{5,}|\d+\s*[|;,\t]|(?:[^,;\t\n]*[,;\t](?!\d{3}\b)\S?(?=[^\s,;\t]|[,;\t])){2})"""
)
"""How a line of a table or a log begins, which ends with its line too."""
_SHORTENED = re.compile(
    r"(?:^|[\s(\"'“‘])(?:[A-Za-z]|[A-Za-z](?:\.[A-Za-z])+|Mr|Mrs|Ms|Dr|Prof|St|No|Nos|Nr|Art|Sec|Fig|Vol|vs|etc|cf|"
    r"approx|Dept|Inc|Ltd|Co|Corp|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec|pp?|para|ca)\.\s+$"
)
_NUMBERED = re.compile(r"(?:^|\n)[^\S\n]*\(?\d{1,3}(?:\.\d{1,3})*\.\s+$")


def around(text: str, start: int, end: int, low: int, high: int) -> tuple[int, int]:
    """Start and end of the sentences of `text` that hold its characters `start` to `end`, blanks at their
    ends left out; within `low` and `high`."""
    first, last = max(low, start - _REACH), min(high, end + _REACH)
    found = [at for at in _ends(text, first, last) if at <= start or at >= end]
    begin = max((at for at in found if at <= start), default=None)
    finish = min((at for at in found if at >= end), default=None)
    if begin is None:
        begin = low if first == low else first + _blank_after(text[first:start])
    if finish is None:
        finish = high if last == high else end + _blank_before(text[end:last])
    while finish > begin + 1 and text[finish - 1].isspace():
        finish -= 1
    while begin < finish - 1 and text[begin].isspace():
        begin += 1
    return begin, finish


def _blank_after(piece: str) -> int:
    """Where in `piece`, in which no sentence ends, a line or a word begins."""
    return max(piece.rfind("\n"), piece.find(" ")) + 1


def _blank_before(piece: str) -> int:
    """Where in `piece`, in which no sentence ends, a line or a word ends."""
    line = piece.find("\n")
    return line if line >= 0 else max(piece.rfind(" "), 0) or len(piece)


def _ends(text: str, low: int, high: int) -> list[int]:
    """Where between `low` and `high` a sentence ends and the next may begin."""
    width = max(map(len, text[low:high].split("\n")))
    return [
        match.end()
        for match in _END.finditer(text, low, high)
        if (_line_ends(text, match.start(), low, high, width) if match["line"] else _stops(text, match, low))
    ]


def _stops(text: str, match: re.Match[str], low: int) -> bool:
    """Whether what looks like a full stop is one, and not that of a shortened word or of an item's number."""
    if match["stop"] is None:
        return True
    until = text[max(low, match.end() - 40) : match.end()]
    if _NUMBERED.search(until):
        return False
    if "\n\n" in match["stop"]:
        return True
    return not (text[match.end() : match.end() + 1].islower() or _SHORTENED.search(until))


def _line_ends(text: str, at: int, low: int, high: int, width: int) -> bool:
    """Whether the line's end at `at` ends a sentence: the next line is an item or a row, or this one is a
    row, or the next line's first word had room on this one, where lines have up to `width` characters."""
    line = text[max(low, text.rfind("\n", low, at) + 1) : at]
    following = text[at + 1 : high].partition("\n")[0]
    if _ITEM.match(following) or _ROW.match(following) or _ROW.match(line):
        return True
    word = following.split(maxsplit=1)[0] if following.strip() else ""
    return not following[:1].islower() and len(line.rstrip()) + 1 + len(word) <= width
