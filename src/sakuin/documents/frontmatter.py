"""The front matter of Markdown: facts of the document before its text, in YAML between `---` or in TOML
between `+++`. It stays as text, and its last line makes no heading of it."""

from __future__ import annotations

import re

_OPENING = re.compile(r"(---|\+\+\+)[ \t]*(?:\r\n?|\n)")
_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n|\Z)")
_MOST_LINES = 1000
_CLOSED_BY = {"---": ("---", "..."), "+++": ("+++",)}
_KEY = {"---": re.compile(r"[\w\"'][^:#]*:(\s|$)"), "+++": re.compile(r"[\w\"'][^=]*=|\[")}
_MORE = re.compile(r"\s|#|- |[\]})]|$")
"""How a line begins that goes on with the one before it, or is a remark."""


def blanked(text: str) -> str:
    """`text` with the lines of its front matter empty."""
    opening = _OPENING.match(text)
    if opening is None:
        return text
    fence, at, has_keys = opening[1], opening.end(), False
    for count in range(1, _MOST_LINES):
        line = _LINE.match(text, at)
        if line is None or line.end() == at:
            return text
        said, at = line[0].rstrip(), line.end()
        if said in _CLOSED_BY[fence]:
            return "\n" * (count + 1) + text[at:] if has_keys else text
        is_key = _KEY[fence].match(said) is not None
        if not is_key and (not has_keys or not _MORE.match(line[0])):
            return text
        has_keys = has_keys or is_key
    return text
