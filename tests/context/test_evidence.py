"""Evidence: the sentences that hold the tokens looked up, ranked, and at most a tenth of the text."""

from __future__ import annotations

import torch
from torch import Tensor

from sakuin.context.evidence import passages

SENTENCES = [f"Sentence number {i} says that thing {i} is of no importance at all." for i in range(60)]
TEXT = " ".join(SENTENCES)
STARTS = [0] + [i + 1 for i, char in enumerate(TEXT) if char == " "]
ENDS = [*[start - 1 for start in STARTS[1:]], len(TEXT)]


def attention(**words: float) -> Tensor:
    """What is looked up: words of the text, by their first occurrence."""
    looked_up = torch.zeros(len(STARTS))
    for word, weight in words.items():
        looked_up[STARTS.index(TEXT.index(word.replace("_", " ")))] += weight
    return looked_up


def texts(found: list[tuple[int, int, float]]) -> list[str]:
    return [TEXT[start:end] for start, end, _ in found]


def test_a_passage_is_the_whole_sentence_around_what_was_looked_up() -> None:
    assert texts(passages(attention(number_7=1.0), STARTS, ENDS, TEXT)) == [SENTENCES[7]]


def test_passages_are_ranked_by_weight_and_weights_are_shares() -> None:
    found = passages(attention(number_50=3.0, number_10=1.0), STARTS, ENDS, TEXT)
    assert texts(found) == [SENTENCES[50], SENTENCES[10]]
    assert [weight for _, _, weight in found] == [0.75, 0.25]


def test_neighbours_become_one_passage() -> None:
    found = passages(attention(number_20=1.0, number_21=1.0), STARTS, ENDS, TEXT)
    assert texts(found) == [f"{SENTENCES[20]} {SENTENCES[21]}"]


def test_passages_are_at_most_a_tenth_of_the_text() -> None:
    many = attention(**{f"number_{i}_says": 1.0 for i in range(0, 60, 5)})
    found = passages(many, STARTS, ENDS, TEXT)
    assert 1 <= len(found) < 12
    assert sum(end - start for start, end, _ in found) <= len(TEXT) / 10


def test_the_first_passage_of_a_short_text_is_given_though_it_is_more_than_a_tenth() -> None:
    assert passages(torch.tensor([1.0, 0.0]), [0, 3], [2, 6], "ab cde") == [(0, 6, 1.0)]


def test_nothing_looked_up_gives_no_passage() -> None:
    assert passages(torch.zeros(len(STARTS)), STARTS, ENDS, TEXT) == []


def test_blanks_do_not_count() -> None:
    assert passages(torch.tensor([1.0, 0.0]), [0, 2], [2, 5], "\n\nabc") == []


def test_a_passage_does_not_reach_into_the_next_document() -> None:
    text = "alpha beta gamma"
    starts, ends = [0, 6, 11], [5, 10, 16]
    found = passages(torch.ones(3), starts, ends, text, places=[0, 11])
    assert sorted((start, end) for start, end, _ in found) == [(0, 10)]  # the second would be over the budget
    assert found[0][2] == 2 / 3


def test_sentences_end_where_japanese_ends_them() -> None:
    text = "これは一つ目の文。" * 5 + "契約は三月に終わる。" + "これは最後の文。" * 5
    at = text.index("三月")
    found = passages(torch.ones(1), [at], [at + 2], text)
    assert [text[start:end] for start, end, _ in found] == ["契約は三月に終わる。"]


def test_a_neighbour_of_little_weight_stays_apart() -> None:
    found = passages(attention(number_20=1.0, number_21=0.2), STARTS, ENDS, TEXT)
    assert texts(found)[0] == SENTENCES[20]


def test_a_short_text_is_not_one_passage() -> None:
    text = "The hens moved. The ferry leaves at ten. It rained."
    at = text.index("ten")
    found = passages(torch.ones(1), [at], [at + 3], text)
    assert [text[start:end] for start, end, _ in found] == ["The ferry leaves at ten."]


def test_a_token_that_begins_with_the_blank_before_it_belongs_to_its_own_sentence() -> None:
    text = "The hens moved. The ferry leaves at ten. It rained."
    at = text.index(" The ferry")
    found = passages(torch.ones(1), [at], [at + 4], text)
    assert [text[start:end] for start, end, _ in found] == ["The ferry leaves at ten."]
