"""Pieces of a paragraph, and how they become its text: struck-out ones are marked, raised ones too."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import NamedTuple

from sakuin.documents.equations import script


class Piece(NamedTuple):
    """Text of one look. script : "^" raised, "_" lowered, "" neither."""

    text: str
    struck: bool = False
    script: str = ""


def joined(pieces: Iterable[Piece]) -> tuple[str, int]:
    """The text of pieces, and in how many places it is struck out."""
    plain: list[tuple[str, bool]] = []
    before = ""
    for (struck, sign), group in groupby(pieces, lambda piece: (piece.struck, piece.script)):
        text = "".join(piece.text for piece in group)
        if sign:
            text = script(sign, text, before)
        before = text or before
        if plain and (plain[-1][1] == struck or not text.strip()):  # blanks take the look before them
            plain[-1] = plain[-1][0] + text, plain[-1][1]
        else:
            plain.append((text, struck))
    found, places = [], 0
    for struck, parts in groupby(plain, lambda part: part[1]):
        text = "".join(part[0] for part in parts)
        inner = text.strip()
        if struck and inner:
            places += 1
            start = text.index(inner)
            text = f"{text[:start]}~~{inner}~~{text[start + len(inner) :]}"
        found.append(text)
    return "".join(found), places
