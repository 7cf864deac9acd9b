"""Whether passages speak of what was asked: words that they share with it, or where the question looks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sakuin import Context
from sakuin.context.generate import run
from sakuin.context.spoken_of import LOOKS, WORDS, Question, lessened, looks_at, tokens_within, words_shared
from sakuin.context.support import LITTLE

SHIFTS = (
    "Notes of the week. The invoice must be paid within 42 days. The garden was dug over and the fence "
    "stands again. Nobody knows who broke the kettle. The visit to the mill was moved to June."
)


@pytest.mark.parametrize(
    ("question", "passage", "share"),
    [
        ("When does the ferry leave?", "The ferry to Norby leaves at ten.", 2 / 4),  # when and does: none
        ("What did it cost?", "Its cost is nine.", 1 / 2),
        ("What is the password of the printer?", "The door code of the archive is 2644.", 0),
        ("Who is it?", "It is he.", 0),  # no words that count
        ("WANN FÄHRT DIE FÄHRE?", "Die Fähre fährt um zehn.", 2 / 3),
        ("船はいつ出ますか", "その船は十時に出ます。", 3 / 7),
    ],
)
def test_the_share_of_words(question: str, passage: str, share: float) -> None:
    assert words_shared(question, [passage]) == pytest.approx(share)


def test_support_is_less_the_less_the_question_looks() -> None:
    assert lessened(0.9, LOOKS, LITTLE) == 0.9
    assert lessened(0.9, LOOKS / 2, LITTLE) == LITTLE / 2
    assert lessened(0.9, 0, LITTLE) == 0


def test_of_a_question_its_own_tokens_are_told_apart(either: tuple[Any, Any]) -> None:
    context, text = Context.from_text(*either, SHIFTS), "How long may one wait with the bill?"
    prompt, reading = context.prompt, context.reading
    asked = prompt.question(reading.waiting.rstrip(), text, reading.lead)
    question = Question.of(prompt, reading, text, asked)
    assert question is not None
    assert prompt.decode([question.ids[i] for i in question.own]).strip() == text
    assert Question.of(prompt, reading, None, asked) is None


def test_a_question_in_other_words_looks_at_the_sentence_that_answers_it(smollm2: tuple[Any, Any]) -> None:
    context, text = Context.from_text(*smollm2, SHIFTS), "What became of the enclosure and the plants?"
    backend, prompt, reading = context.backend, context.prompt, context.reading
    asked = prompt.question(reading.waiting.rstrip(), text, reading.lead)
    question = Question.of(prompt, reading, text, asked)
    assert question is not None
    n = len(reading.ids)

    def looks(sentence: str) -> float:
        start = SHIFTS.index(sentence)
        within = tokens_within(reading, n, [(start, start + len(sentence))])
        assert within.any()
        _, before, _ = context.begun()
        return run(backend, looks_at(backend, before, question, within, torch.zeros(n), 1.0))

    assert looks("The garden was dug over and the fence stands again.") > looks("Nobody knows who broke")


def test_a_sentence_that_was_copied_is_little_support(smollm2: tuple[Any, Any]) -> None:
    text = f"{SHIFTS} The door code of the archive is 2644. The hen sat under the lamp. It rained all day."
    context = Context.from_text(*smollm2, text)
    copied = context.ask("What is the phone number of the harbour office?", 20)
    assert words_shared("What is the phone number of the harbour office?", [text]) <= WORDS
    there = context.ask("What is the door code of the archive?", 20)
    assert there.support is not None
    assert copied.support is not None
    assert copied.support < LITTLE < there.support
