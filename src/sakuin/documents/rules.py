"""Lines that are drawn on a page: what was struck out before it became a PDF, and the rules of tables."""

from __future__ import annotations

import itertools
from ctypes import c_float
from typing import Any

from sakuin.documents.annotations import Box
from sakuin.documents.letters import PageLine

_MOST = 20_000
"""Drawn things of a page that are looked at."""

_THIN = 2.5
"""Points of height up to which a rectangle is a line."""

_LOW, _HIGH = 0.12, 0.5
"""Sizes above the baseline between which a line strikes words out; lower it underlines."""

_COVERED = 0.6
"""Share of the line that has words under it: a rule of a table that runs through a word by chance has not."""


def drawn_on(page: Any) -> list[tuple[float, float, float]]:
    """The level lines of a page: left and right end and height of each."""
    import pypdfium2.raw as raw

    found: list[tuple[float, float, float]] = []
    left, bottom, right, top = (c_float() for _ in range(4))
    for drawn in itertools.islice(page.get_objects(filter=[raw.FPDF_PAGEOBJ_PATH], max_depth=1), _MOST):
        if raw.FPDFPageObj_GetBounds(drawn.raw, left, bottom, right, top):
            height, width = top.value - bottom.value, right.value - left.value
            if height <= _THIN and width > 2 * height and width > 1:
                found.append((left.value, right.value, (top.value + bottom.value) / 2))
    return found


def struck(lines: list[PageLine], drawn: list[tuple[float, float, float]]) -> list[Box]:
    """Those of the drawn lines that strike words out, each as the box of what it strikes."""
    boxes: list[Box] = []
    for left, right, height in drawn:
        under, reach = 0.0, 0.0
        for line in lines:
            main = line.main
            if main.angle or not _LOW * main.size <= height - main.y <= _HIGH * main.size:
                continue
            for word in line.words:
                share = min(right, word.x1) - max(left, word.x0)
                if share > 0:
                    under, reach = under + share + 0.3 * word.size, max(reach, word.size)
        if under >= _COVERED * (right - left):
            boxes.append((left, height - 0.5 * reach, right, height + 0.5 * reach))
    return boxes
