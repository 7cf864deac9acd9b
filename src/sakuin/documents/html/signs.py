"""Signs of the private use area that travel through the layout of a page, and what they become in its
text."""

from __future__ import annotations

import re

from sakuin.documents.equations import script
from sakuin.documents.html.forms import FIELD, FIELD_END
from sakuin.documents.html.looks import Look

HEADING, HEADING_END = "\ue000", "\ue001"
STRUCK, STRUCK_END = "\ue002", "\ue003"
_SCRIPTS, _SCRIPT_END = {"^": "\ue004", "_": "\ue005"}, "\ue008"
_LIFTED, _LIFTED_END = "\ue00a", "\ue00b"
LINE = "\ue009"
"""A new line inside a cell of a table."""

ALL = dict.fromkeys(
    map(
        ord,
        (
            HEADING,
            HEADING_END,
            STRUCK,
            STRUCK_END,
            *_SCRIPTS.values(),
            _SCRIPT_END,
            LINE,
            _LIFTED,
            _LIFTED_END,
        ),
    )
)
ALL |= dict.fromkeys(map(ord, (FIELD, FIELD_END)))
"""For `str.translate`: a page that has them itself loses them."""

_WORDS = re.compile(r"\S(?:.*\S)?", re.S)
_STRUCK_ON = re.compile(f"{STRUCK_END}([ \t]*){STRUCK}")
_SCRIPT_ON = re.compile(f"{_SCRIPT_END}?([\ue004\ue005])")
_SCRIPT = re.compile(
    f"([\ue004\ue005])([^\ue004\ue005\ue008]*){_SCRIPT_END}|({_LIFTED})([^{_LIFTED}{_LIFTED_END}]*){_LIFTED_END}"
)
_FIGURES = re.compile(r"[-+−–]?[0-9]+")
"""What is raised where it stands higher than the figure before it; other words may for their looks."""

_AROUND = f"{HEADING}{HEADING_END}{STRUCK}{STRUCK_END}{_SCRIPT_END}"


def marked(text: str, look: Look) -> str:
    """A piece of text with signs around it that say how it looks."""
    if look == Look() or not text.strip():
        return text
    text = text.upper() if look.capitals else text
    inner = text.strip()
    start = text.index(inner)
    before, after = text[:start], text[start + len(inner) :]
    if look.script == "'":
        inner = f"{_LIFTED}{inner}{_LIFTED_END}"
    elif look.script:
        inner = f"{_SCRIPTS[look.script]}{inner}{_SCRIPT_END}"
    if look.struck:
        inner = f"{STRUCK}{inner}{STRUCK_END}"
    return f"{before}{inner}{after}"


def written(text: str) -> tuple[str, int]:
    """A text that is laid out with the looks written out; and in how many places it is struck out."""
    if _SCRIPT_END in text or _LIFTED_END in text:
        text = _scripts(text)
    if STRUCK not in text:
        return text, 0
    text = _STRUCK_ON.sub(r"\1", text)
    return text.replace(STRUCK, "~~").replace(STRUCK_END, "~~"), text.count(STRUCK)


def _scripts(text: str) -> str:
    now = ""

    def on(match: re.Match[str]) -> str:
        nonlocal now
        goes_on, now = match[0] != match[1] and match[1] == now, match[1]
        return "" if goes_on else match[0]

    # A raised word of which a part is set apart is one word; what is lowered behind it is another.
    text = _SCRIPT_ON.sub(on, text)
    text = text.replace(_LIFTED_END + _LIFTED, "")
    pieces: list[str] = []
    end, before = 0, ""
    for match in _SCRIPT.finditer(text):
        between = text[end : match.start()]
        plain = between.rstrip(_AROUND)
        before = plain or before
        inner = match[2] if match[1] else match[4]
        if match[3] and not (before[-1:].isdigit() and _FIGURES.fullmatch(inner)):
            said = inner
        else:
            said = script("_" if match[1] == _SCRIPTS["_"] else "^", inner, before)
        pieces += [between, said]
        end, before = match.end(), said or before
    return "".join([*pieces, text[end:]]).replace(_SCRIPT_END, "")
