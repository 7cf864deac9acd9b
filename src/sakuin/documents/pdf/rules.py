"""Lines that are drawn on a page: what was struck out before it became a PDF, and the rules of tables."""

from __future__ import annotations

import itertools
from ctypes import c_float
from typing import Any

from sakuin.documents.pdf.annotations import Box
from sakuin.documents.pdf.letters import PageLine

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


def uprights_on(page: Any) -> list[tuple[float, float, float]]:
    """The lines of a page that are drawn down it, by themselves or around boxes: where each stands, and its
    lower and upper end."""
    import pypdfium2.raw as raw

    found: list[tuple[float, float, float]] = []
    x, y = c_float(), c_float()
    left, bottom, right, top = (c_float() for _ in range(4))
    looked = 0
    for drawn in itertools.islice(page.get_objects(filter=[raw.FPDF_PAGEOBJ_PATH], max_depth=1), _MOST):
        count = raw.FPDFPath_CountSegments(drawn.raw)
        looked += count
        if looked > _MOST:
            break
        if (
            not raw.FPDFPageObj_GetBounds(drawn.raw, left, bottom, right, top)
            or top.value - bottom.value <= _THIN
        ):
            continue
        if right.value - left.value <= _THIN:
            found.append(((left.value + right.value) / 2, bottom.value, top.value))
            continue
        matrix = drawn.get_matrix()
        before: tuple[float, float] | None = None
        for at in range(count):
            segment = raw.FPDFPath_GetPathSegment(drawn.raw, at)
            raw.FPDFPathSegment_GetPoint(segment, x, y)
            point = matrix.on_point(x.value, y.value)
            line = raw.FPDFPathSegment_GetType(segment) == raw.FPDF_SEGMENT_LINETO
            if line and before and abs(point[0] - before[0]) <= 1 and abs(point[1] - before[1]) > _THIN:
                found.append((point[0], min(point[1], before[1]), max(point[1], before[1])))
            before = point
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
