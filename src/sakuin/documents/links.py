"""Where links lead, and what of it is said behind their words."""

from __future__ import annotations

import re

_WITHIN = ("javascript:", "vbscript:", "data:", "blob:", "about:", "#")
"""What leads nowhere outside the document."""

_UNSEEN = re.compile(r"[\x00-\x20\x7f]+")


def behind(words: str, target: str) -> str:
    """What stands behind the words of a link; "" where they say it, and where it leads nowhere else."""
    target = " ".join(target.split())
    if not words.strip() or _UNSEEN.sub("", target).lower().startswith(_WITHIN):
        return ""
    said, words = target.removeprefix("mailto:"), " ".join(words.split())
    address = bare(said.partition("?")[0] if said != target else said)
    is_whole = "://" in target or "@" in target  # "x" says little where it stands in other words
    return (
        ""
        if not address or address == bare(words) or (is_whole and address in words.lower())
        else f" ({said})"
    )


def bare(address: str) -> str:
    """An address as people say it."""
    for before in ("mailto:", "tel:", "https://", "http://", "www."):
        address = address.removeprefix(before)
    return address.rstrip("/").lower()
