"""Where on a page belongs what was put on it: values behind their labels, marks around their words, notes
below their lines."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

from sakuin.documents.pdf.annotations import Added, Box
from sakuin.documents.pdf.letters import PageLine, Word

_SAME_ROW = 0.8
"""Sizes of the font between the middle of a line and that of a field up to which they are a row."""

_TALL = 2.2
"""Sizes of the font from which a field has many lines."""

_SIZE = 10.0
"""Points of a font where the page has none to compare with."""

_WRONG_SIDE = 3.0
"""So many times as far seems a label on the side where labels of its kind do not stand."""

_MOST_STRUCK = 0.25
"""Share of a word that is struck out from which that is looked at; what lacks no more is the whole word."""

_SCHEME = re.compile(r"^(?:https?://|mailto:|tel:)?(?:www\.)?", re.I)


def place(lines: list[PageLine], added: Iterable[Added]) -> list[PageLine]:
    """The lines with all but the notes in its place."""
    every = list(added)
    for one in every:
        if one.how == "struck":
            strike(lines, one.boxes, one.text)
        elif one.how == "marked" and (words := _covered(lines, one.boxes)):
            words[-1].text += f" {one.text}"
    _name_targets(lines, [one for one in every if one.how == "link"])
    values = [one for one in every if one.how in ("typed", "field", "box")]
    values.sort(key=lambda one: (-one.boxes[0][3], one.boxes[0][0]))
    for one in values:
        _put(lines, one)
    return lines


def place_notes(lines: list[PageLine], added: Iterable[Added]) -> list[PageLine]:
    """The lines with each note below the one that it stands beside."""
    below: dict[int, list[PageLine]] = {}
    for one in added:
        if one.how != "note" and not (one.how == "marked" and not _covered(lines, one.boxes)):
            continue
        left, bottom, right, top = one.boxes[0]
        height = (bottom + top) / 2
        nearest = -1
        if lines:
            nearest = min(range(len(lines)), key=lambda at: _distance(lines[at], left, right, height))
        # Of no size: a note beside a heading is none.
        below.setdefault(nearest, []).append(PageLine([Word(one.text, left, right, height, 0.0, 0)]))
    found = below.get(-1, [])
    for at, line in enumerate(lines):
        found += [line, *below.get(at, [])]
    return found


def strike(lines: list[PageLine], boxes: list[Box], note: str = "") -> None:
    """Put tildes around the words in `boxes`, and behind the last of them what was said of it."""
    last: Word | None = None
    for line in lines:
        struck = [(word, *_share(word, boxes)) for word in line.words]
        for at, (word, start, end) in enumerate(struck):
            if end <= start:
                continue
            goes_on = at + 1 < len(struck) and struck[at + 1][1] == 0.0 < struck[at + 1][2] and end == 1.0
            came = at > 0 and struck[at - 1][2] == 1.0 and start == 0.0
            first, beyond = round(start * len(word.text)), round(end * len(word.text))
            if first >= beyond:
                continue
            word.text = (
                f"{word.text[:first]}{'' if came else '~~'}{word.text[first:beyond]}"
                f"{'' if goes_on else '~~'}{word.text[beyond:]}"
            )
            last = word
    if last is not None and note:
        last.text += f" {note}"


def _share(word: Word, boxes: list[Box]) -> tuple[float, float]:
    """From where to where in a word, from 0 to 1, it lies in one of `boxes`; 0 and 0 where it does not."""
    width = max(word.x1 - word.x0, 0.1)
    for left, bottom, right, top in boxes:
        if bottom <= word.middle <= top and not word.angle:
            start, end = (max(left, word.x0) - word.x0) / width, (min(right, word.x1) - word.x0) / width
            if end - start < min(_MOST_STRUCK, 1 / max(len(word.text), 1)):
                continue
            if end - start >= 1 - _MOST_STRUCK and len(word.text) < 8:
                return 0.0, 1.0
            edge = 0.5 / max(len(word.text), 1)
            return (0.0 if start < edge else start), (1.0 if end > 1 - edge else end)
    return 0.0, 0.0


def _covered(lines: list[PageLine], boxes: list[Box]) -> list[Word]:
    return [word for line in lines for word in line.words if _share(word, boxes)[1]]


def _name_targets(lines: list[PageLine], links: list[Added]) -> None:
    """Behind the words of a link where it leads, if they do not say so. A link over some lines is as many
    links of one target."""
    words: list[Word] = []
    for one, following in pairwise([*links, None]):
        assert one is not None
        words += _covered(lines, one.boxes)
        if following is not None and following.text == one.text:
            continue
        said = "".join(word.text for word in words).casefold()
        target = _SCHEME.sub("", one.text).rstrip("/").casefold()
        if words and target and re.sub(r"\s", "", target) not in said:
            words[-1].text += f" ({one.text.removeprefix('mailto:')})"
        words = []


def _put(lines: list[PageLine], one: Added) -> None:
    """Put what was typed on, or the value of a field, into the row of its label, or below it."""
    left, bottom, right, top = one.boxes[0]
    flat = " ".join(one.text.split())
    row, size = _row_of(lines, one)
    if row is not None:
        at = next((at for at, word in enumerate(row.words) if word.x0 > left + 0.1), len(row.words))
        if at == 0:
            row.words[0].space = " "
        row.words.insert(at, Word(flat, left, right, row.main.y, row.main.size, row.main.weight))
        return
    # A field or a text of its own: below what stands above it.
    height = min(top - 0.7 * size, (bottom + top) / 2) if top - bottom > _TALL * size else (bottom + top) / 2
    above = [at for at, line in enumerate(lines) if _middle(line) > height and not line.main.angle]
    place = 1 + min(above, key=lambda at: _above(lines[at], left, right, height)) if above else 0
    said = [flat] if one.how == "field" else [" ".join(each.split()) for each in one.text.split("\n")]
    step = size * 1.2 if len(said) > 1 else 0.0
    lines[place:place] = [
        PageLine([Word(each, left, right, height - 0.3 * size - number * step, size)])
        for number, each in enumerate(said)
        if each
    ]


def _row_of(lines: list[PageLine], one: Added) -> tuple[PageLine | None, float]:
    """The line whose label a value belongs to, and the size of the font thereabouts."""
    left, bottom, right, top = one.boxes[0]
    best, least, size = None, 0.0, _SIZE
    for line in lines:
        main = line.main
        if main.angle:
            continue
        tall = top - bottom > _TALL * main.size
        height = top - 0.7 * main.size if tall else (bottom + top) / 2
        if abs(main.middle - height) > _SAME_ROW * main.size:
            continue
        if line.x0 <= left + 1 and right <= line.x1 + 1:
            away = 0.0
        elif left + right > line.x0 + line.x1:  # it stands right of the line
            away = max(left - line.x1, 0.0) * (_WRONG_SIDE if one.how == "box" else 1.0)
        else:
            away = max(line.x0 - right, 0.0) * (1.0 if one.how == "box" else _WRONG_SIDE)
        away += abs(main.middle - height)
        if best is None or away < least:
            best, least, size = line, away, main.size
    return best, size


def _middle(line: PageLine) -> float:
    return line.main.middle


def _distance(line: PageLine, left: float, right: float, height: float) -> float:
    beside = max(line.x0 - right, left - line.x1, 0.0)
    return abs(_middle(line) - height) + 0.1 * beside


def _above(line: PageLine, left: float, right: float, height: float) -> float:
    """How far above; a line that stands beside is far."""
    return _middle(line) - height + 2.0 * max(line.x0 - right, left - line.x1, 0.0)
