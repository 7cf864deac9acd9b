"""Headings of long Markdown are found piece by piece, as if it were parsed at once."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("markdown_it")

from sakuin.documents.text import _headings

_BLOCKS = (
    "# One\n",
    "## Two ##\n\n",
    "Three\n=====\n",
    "A paragraph\nof two lines\n---\n",
    "A paragraph\n\n",
    "```\n# no heading\n\n# nor this\n```\n",
    "~~~~\n# no heading\n",
    "<!-- a\n\n# no heading\n\n-->\n\n",
    "<pre>\n# no heading\n\n</pre>\n",
    "- item\n\n  # in an item\n\n- item\n",
    "1. one\n2. two\n\n",
    "> # quoted\n> text\n\n",
    "    # code\n\n",
    "[a]: http://b 'title\n",
    "#\r\n# Four\r\n\r\n",
    "| a | b |\n|---|---|\n| # | c |\n",
    "\n\n\n",
    "<div>\n# no heading\n</div>\n\n",
)


def test_pieces_give_the_headings_of_the_whole() -> None:
    draw, seen = random.Random(1), 0
    for _ in range(150):
        text = "".join(draw.choice(_BLOCKS) for _ in range(draw.randrange(1, 25)))
        whole = _headings(text)
        seen += len(whole)
        for most in (1, 20, 100):
            assert _headings(text, most) == whole, (most, text)
    assert seen > 300


def test_a_long_text_is_never_parsed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from markdown_it import MarkdownIt

    parse, sizes = MarkdownIt.parse, []

    def noted(self: MarkdownIt, text: str) -> object:
        sizes.append(len(text))
        return parse(self, text)

    monkeypatch.setattr(MarkdownIt, "parse", noted)
    text = "".join(f"# Section {i}\n\nThe tenant returns the keys.\n\n" for i in range(2000))
    assert len(_headings(text, 5000)) == 2000
    assert max(sizes) <= 5000
    assert sum(sizes) < 1.2 * len(text)
