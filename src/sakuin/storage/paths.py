"""Whether a string is a path at all: asked so that no string can make it fail.

Questions, names of models and whatever else a user types may be too long for a path, hold bytes that are no
text or a NUL, run through a file as if it were a folder, or lie where this user may not look. The file system
answers each of these with an error of its own; here they are no path. Never `Path(text).is_file()`.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

_NO_TEXT = re.compile(r"[\ud800-\udfff]")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/{1,3}(?=[^/])|www\.[\w-]+\.", re.ASCII)
_SHOWN = 80
"""Characters that an error shows of what was taken for a path."""


def is_file(text: str | os.PathLike[str]) -> bool:
    """Whether `text` is the path of a file. Never raises for a string."""
    return stat.S_ISREG(_mode(text))


def is_folder(text: str | os.PathLike[str]) -> bool:
    """Whether `text` is the path of a folder. Never raises for a string."""
    return stat.S_ISDIR(_mode(text))


def is_address(text: str | os.PathLike[str]) -> bool:
    """Whether `text` is the address of a page or file elsewhere, `https://…`, and no path of a file here."""
    return _ADDRESS.match(os.fsdecode(text)) is not None and not is_file(text) and not is_folder(text)


def expanded(text: str | os.PathLike[str]) -> Path:
    """`text` as a path, with the user's folder for `~`; `~` of a user that there is not stays as it is."""
    path = Path(text)
    try:
        return path.expanduser()
    except (RuntimeError, ValueError):  # there is no such user, or nobody could be called so
        return path


def named(text: str | os.PathLike[str]) -> str:
    """A path as text that can be stored and sent: bytes of it that are no text become U+FFFD."""
    return _NO_TEXT.sub("\ufffd", os.fsdecode(text))


def resolved(text: str | os.PathLike[str]) -> str:
    """By what a file is known again, however it was named: its absolute path without links, as text that can
    be stored. Bytes of it that are no text are written as `\\xff`, so that two such files differ."""
    path = os.fsencode(os.path.realpath(text))
    return path.decode("utf-8", "backslashreplace")


def shortened(text: str) -> str:
    """`text` as an error shows it: a whole page that was taken for a path is not printed again."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text):,} characters)"


def _mode(text: str | os.PathLike[str]) -> int:
    try:
        return os.stat(text).st_mode
    except (OSError, ValueError):  # ValueError: a NUL, or half a character
        return 0
