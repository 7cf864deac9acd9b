"""The picture in docs/architecture.md: the rooms one above the other, and which imports from which.

It is drawn from the code. A room stands higher than every room that it imports from. An arrow that only
repeats a way over other rooms is left out: with them nobody could read it. Called by generate.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from itertools import combinations, pairwise, permutations, product
from textwrap import wrap

import rooms
from places import DOCS

PICTURE = DOCS / "pictures" / "house.svg"
COLUMNS, PITCH, WIDTH = 4, 204, 190
"""Rooms side by side at most, from one's left side to the next one's, and a room's width."""
LINE, HEAD, GAP, MARGIN = 13, 22, 28, 16
"""Heights of a line of files, of a room's name, and between rows; and what is left free all round."""
LETTERS = 30
"""Letters of a line of files."""

# The background is the picture's own, so that it is as readable on a dark page.
PAPER, INK, GREY, BLUE, BOX, GROUND = "#ffffff", "#24292f", "#59636e", "#2a6db0", "#eef4fb", "#f3f1ea"


@dataclass(frozen=True)
class Box:
    """Where a room stands. free : where its row ends, below all rooms beside it."""

    x: float
    y: float
    height: float
    free: float
    lines: tuple[str, ...]

    @property
    def middle(self) -> float:
        return self.x + WIDTH / 2


def drawn() -> str:
    """The picture, as SVG."""
    boxes, bottom = _boxes()
    width = 2 * MARGIN + (COLUMNS - 1) * PITCH + WIDTH
    ground = ", ".join(rooms.ground())
    height = bottom + GAP + HEAD + LINE + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:g}" width="{width}"'
        f' height="{height:g}" font-family="sans-serif" role="img">',
        "<title>The rooms of sakuin: an arrow leads from a room to one that it imports from</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"'
        f' orient="auto"><path d="M0 0L8 4L0 8z" fill="{BLUE}"/></marker></defs>',
        f'<rect width="{width}" height="{height:g}" rx="8" fill="{PAPER}"/>',
        *(_arrow(boxes[name], boxes[other]) for name in boxes for other in rooms.direct(name)),
        *(_room(name, box) for name, box in boxes.items()),
        f'<rect x="{MARGIN}" y="{bottom + GAP:g}" width="{width - 2 * MARGIN}" height="{HEAD + LINE + 8}"'
        f' rx="6" fill="{GROUND}"/>',
        _text(MARGIN + 10, bottom + GAP + 16, "the ground, for every room", INK, 13, bold=True),
        _text(MARGIN + 10, bottom + GAP + 32, ground, GREY, 11),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _boxes() -> tuple[dict[str, Box], float]:
    """By room from the top down where it stands, and where the lowest row ends."""
    rows: dict[int, list[rooms.Room]] = {}
    for room in rooms.rooms():
        rows.setdefault(rooms.height(room.name), []).append(room)
    places, boxes, y = _places(), {}, float(MARGIN)
    for level in sorted(rows, reverse=True):
        lines = {room.name: tuple(wrap(", ".join(room.parts), LETTERS)) for room in rows[level]}
        heights = {name: HEAD + 8 + LINE * len(its) for name, its in lines.items()}
        free = y + max(heights.values())
        for name, its in lines.items():
            boxes[name] = Box(MARGIN + places[name] * PITCH, y, heights[name], free, its)
        y = free + GAP
    return boxes, y - GAP


def _places() -> dict[str, float]:
    """The column of each room, so that arrows are short and cross nothing: row after row takes its best
    places given all others, until none moves."""
    rows: dict[int, list[str]] = {}
    for room in rooms.rooms():
        rows.setdefault(rooms.height(room.name), []).append(room.name)
    halves = [column / 2 for column in range(2 * COLUMNS - 1)]
    places = {
        name: column + (COLUMNS - len(row)) / 2 for row in rows.values() for column, name in enumerate(row)
    }
    while True:
        before = dict(places)
        for row in rows.values():
            choices = [
                dict(zip(names, columns, strict=True))
                for columns in combinations(halves, len(row))
                if all(b - a >= 1 for a, b in pairwise(columns))
                for names in permutations(row)
            ]
            places |= min(choices, key=lambda choice: _cost(places | choice))
        if places == before:
            return places


def _cost(places: dict[str, float]) -> float:
    """Lengths of the arrows, what they cross, and how far all stands from the middle."""
    arrows = [(name, other) for name in places for other in rooms.direct(name)]
    cost = sum(abs(places[a] - places[b]) for a, b in arrows)
    cost += sum(abs(x - (COLUMNS - 1) / 2) for x in places.values()) / 50
    for (a, b), name in product(arrows, places):
        above, at, under = (rooms.height(room) for room in (a, name, b))
        if under < at < above:
            x = places[b] + (places[a] - places[b]) * (at - under) / (above - under)
            cost += 20 * (abs(x - places[name]) < 0.6)
    for (a, b), (c, d) in combinations(arrows, 2):
        if (rooms.height(a), rooms.height(b)) == (rooms.height(c), rooms.height(d)):
            cost += 5 * ((places[a] - places[c]) * (places[b] - places[d]) < 0)
    return cost


def _arrow(above: Box, under: Box) -> str:
    aside = max(-70.0, min(70.0, (under.middle - above.middle) / 5))
    x, to = above.middle + aside, under.middle - aside
    points = f"{x:g},{above.y + above.height:g} {x:g},{above.free:g} {to:g},{under.y - 1:g}"
    return (
        f'<polyline points="{points}" fill="none" stroke="{BLUE}" stroke-width="1.6" marker-end="url(#tip)"/>'
    )


def _room(name: str, box: Box) -> str:
    lines = [_text(box.x + 10, box.y + 17, f"{name}/", INK, 14, bold=True)]
    lines += [_text(box.x + 10, box.y + 33 + LINE * i, line, GREY, 10) for i, line in enumerate(box.lines)]
    frame = (
        f'<rect x="{box.x:g}" y="{box.y:g}" width="{WIDTH}" height="{box.height:g}" rx="6" fill="{BOX}"'
        f' stroke="{BLUE}" stroke-opacity="0.5"/>'
    )
    return "\n".join([frame, *lines])


def _text(x: float, y: float, said: str, colour: str, size: float, *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" fill="{colour}"{weight}>{escape(said)}</text>'
