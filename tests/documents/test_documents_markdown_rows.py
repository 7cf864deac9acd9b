"""Each row of the table of Markdown in docs/documents.md: the text stays as it is, its headings are known."""

from __future__ import annotations

import pytest

from sakuin.documents import text

ROWS = {
    "front matter": ("---\ntitle: Diary\ntags:\n  - hens\n# a remark\n---\n\n# April\n", ["April"]),
    "front matter with other ends": ("---\r\ntitle: Diary\r\n...\r\n\r\n# April\r\n", ["April"]),
    "front matter in TOML": ("+++\ntitle = 'Diary'\n[more]\n+++\n# April", ["April"]),
    "a rule and no front matter": ("---\n\nTitle\n---\nwords", ["Title"]),
    "front matter without an end": ("---\ntitle: Diary\n\n# April\n", ["April"]),
    "headings underlined": ("April\n=====\n\nMay\n---\n", ["April", "May"]),
    "headings in code": ("```sh\n# no heading\n```\n\n    # none either\n\n# Real\n", ["Real"]),
    "boxes and struck-out text": ("- [x] hens ☑\n- [ ] pond\n\n~~900~~ 1100\n", []),
}


@pytest.mark.parametrize(("words", "headings"), ROWS.values(), ids=ROWS.keys())
def test_markdown_stays_as_it_is_and_its_headings_are_known(words: str, headings: list[str]) -> None:
    got = text.read(words.encode(), "a.md", None, markdown=True)
    assert got.text == words
    assert [mark.heading for mark in got.marks] == headings
    for mark in got.marks:
        assert (mark.heading or "") in words[mark.start :].splitlines()[0]
