"""How much of a document is read. What is more costs a sentence, and neither the memory nor the patience of
whoever asked.
"""

from __future__ import annotations

from sakuin.errors import SakuinError

MOST_BYTES = 512 << 20
"""Bytes of a file, a pipe or a device."""

MOST_CHARACTERS = 64_000_000
"""Characters of a document's text: some 16 million tokens, more than any model reads."""

MOST_FILES = 10_000
"""Files of a folder, or that a pattern matches."""

MOST_ENTRIES = 500_000
"""Files and folders that are looked at, to find those of a folder or a pattern."""

MOST_PAGES = 100_000
"""Pages of a PDF."""

MOST_XML = 64 << 20
"""Bytes that the XML of a Word document may unpack to; a book of a thousand pages has some 20 MB."""

MOST_UNPACKED = 1 << 30
"""Bytes that a Word document may unpack to, its pictures included."""

MOST_MEMORY = 2 << 30
"""Bytes of memory that taking a file apart may use, beside the file itself."""

LEAST_SECONDS = 45
"""Seconds of CPU time that any file may take."""

SECONDS_A_MB = 6
"""Seconds of CPU time that each megabyte of the file adds: an honest one takes a fourth of it. A page of a
PDF takes some 15 ms, and a megabyte may hold a few hundred that are nothing but text."""


def seconds_for(size: int) -> int:
    """Seconds of CPU time in which a file of `size` bytes must be read."""
    return LEAST_SECONDS + SECONDS_A_MB * (size >> 20)


def check_length(characters: int, name: str) -> None:
    """Raise `SakuinError` where a document has more characters than are read."""
    if characters > MOST_CHARACTERS:
        raise SakuinError(f"{name} holds more than {MOST_CHARACTERS:,} characters; split it.")
