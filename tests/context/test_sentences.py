"""Where sentences begin and end, in texts of every form that people ask of."""

from __future__ import annotations

import pytest

from sakuin.context.sentences import around

WRAPPED = (
    "The Supplier delivers the goods on time, and where that\n"
    "cannot be, says so at once. The Customer pays within 30\n"
    "days. Either party may end the agreement.\n"
)
LOG = (
    "2031-03-14T06:00:03.508Z INFO  auth[3757] GET /healthz 200 27122B 882ms\n"
    "The door of the cold store was left open.\n"
    "2031-03-14T06:00:08.834Z WARN  billing[5103] connection refused, retry 1 of 5 in 337 ms\n"
)


@pytest.mark.parametrize(
    ("text", "word", "sentence"),
    [
        ("One is here. Two is there! Three?", "Two", "Two is there!"),
        (
            "Dr. Berg met Mr. Lund at 5 p.m. on Monday. They left.",
            "Lund",
            "Dr. Berg met Mr. Lund at 5 p.m. on Monday.",
        ),
        (
            "It costs 3.50 euros, e.g. on Sundays. It is paid.",
            "euros",
            "It costs 3.50 euros, e.g. on Sundays.",
        ),
        ("He asked “Why?” Nobody spoke. It rained.", "Nobody", "Nobody spoke."),
        ("契約は三月に終わる。次の会議は五月。", "五月", "次の会議は五月。"),
        ("A heading\n\nThe text begins. It ends.", "begins", "The text begins."),
        (
            WRAPPED,
            "says so",
            "The Supplier delivers the goods on time, and where that\ncannot be, says so at once.",
        ),
        (WRAPPED, "pays", "The Customer pays within 30\ndays."),
        (LOG, "cold store", "The door of the cold store was left open."),
        (LOG, "refused", LOG.splitlines()[2]),
        ("1. Term. The term is a year.\n2. Price. The price is 40 euros.\n", "40", "The price is 40 euros."),
        ("1. The term is a year.\n2. The price is 40 euros.\n", "40", "2. The price is 40 euros."),
        (
            "6. Fees\n6.1 The yearly fee is 184,000 euros.\n6.2 It is paid in March.\n",
            "184",
            "6.1 The yearly fee is 184,000 euros.",
        ),
        ("- milk and bread\n- eggs\n- a lamp for the hall\n", "eggs", "- eggs"),
        ("| part | stock |\n|---|---|\n| A1 | 40 |\n| B7 | 12 |\n", "B7", "| B7 | 12 |"),
        ("part,name,stock\nA1042,lamp,40\nB7001,chair,12\n", "chair", "B7001,chair,12"),
        ("Name: Anna Berg\nBorn: 4 May 1980\nTown: Norby\n", "1980", "Born: 4 May 1980"),
        (
            "def add(a, b):\n    return a + b\n\ndef sub(a, b):\n    return a - b\n",
            "a - b",
            "def sub(a, b):\n    return a - b",
        ),
    ],
)
def test_a_sentence_is_found(text: str, word: str, sentence: str) -> None:
    at = text.index(word)
    start, end = around(text, at, at + len(word), 0, len(text))
    assert text[start:end] == sentence


def test_nothing_beyond_the_limits_is_taken() -> None:
    text = "alpha beta. gamma delta. epsilon"
    assert around(text, 12, 17, 12, 20) == (12, 20)


def test_a_text_without_ends_is_cut_at_words_nearby() -> None:
    text = "word " * 1000
    start, end = around(text, 2500, 2504, 0, len(text))
    assert 0 < 2500 - start <= 360
    assert 0 < end - 2504 <= 360
    assert text[start:end].split() == ["word"] * len(text[start:end].split())


def test_every_place_of_odd_texts_has_a_sentence_around_it() -> None:
    for text in (
        "...",
        "\n\n\n",
        "a",
        ". a . b",
        "“”?! x\n\n1. \n2. y",
        "\r\n\r\nx\r\n",
        "\ud83d x. \u3002\u3002",
    ):
        for at in range(len(text)):
            start, end = around(text, at, at + 1, 0, len(text))
            assert 0 <= start < end <= len(text)
            assert not text[at].strip() or start <= at < end
