"""From a text to the tokens of a fidelity run: contexts of several lengths, and what the model is made to say
after each.

After each length come tokens of the text as it goes on, then a question about a fact that was planted at a
third of that length, and its answer: running text alone would not show a method that loses what is asked for.
Where the text holds records, some that lie spread over it are asked for as JSON instead.

Called by `sakuin.evaluate.answers.fidelity`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sakuin.backends.open import vocabulary_of
from sakuin.errors import SakuinError
from sakuin.evaluate.texts.records import SOME, Records, as_lines, value_spans
from sakuin.prompts.template import Prompt
from sakuin.prompts.vocabulary import Encoded

PLACES = ("archive", "harbour", "library", "station", "museum", "garden", "market", "tower")
_NUMBERS = (71493, 20856, 94317, 58264, 36981, 80742, 15639, 47208)
_FACT = "\n\nThe secret passkey of the {place} is {number}. Remember it.\n\n"
_QUESTION = (
    "\n\nQuestion: What is the secret passkey of the {place}?\nAnswer: The secret passkey of the {place} is"
)
_ANSWER = " {number}."
LEAST_RUNNING = 16


@dataclass(frozen=True)
class Stop:
    """A length at which a passage is measured.

    length : tokens of the context. continuation : tokens that follow. retrieved : which of them are known
        from something far back alone: an answer's, a record's values.
    """

    length: int
    continuation: tuple[int, ...]
    retrieved: tuple[int, ...]


@dataclass(frozen=True)
class Passage:
    """Tokens of a text, and the lengths at which it is measured, the least first."""

    name: str
    ids: tuple[int, ...]
    stops: tuple[Stop, ...]

    def context(self, stop: Stop) -> tuple[int, ...]:
        """The tokens before a stop's continuation."""
        return self.ids[: stop.length]


def passage(
    tokenizer: Any, name: str, text: Callable[[int], str], lengths: Sequence[int], tokens: int
) -> Passage:
    """A passage of `text(characters)` with a planted fact for each length; `tokens` follow each.

    Raises `SakuinError` where the text is too short for the longest, or `tokens` for the question.
    """
    lengths = sorted(set(lengths))
    vocabulary = vocabulary_of(tokenizer)
    prompt, start = Prompt.of(vocabulary), vocabulary.beginning

    def encode(piece: str) -> list[int]:
        return vocabulary.encode(piece).ids

    if len(lengths) > len(PLACES):
        raise SakuinError(f"at most {len(PLACES)} lengths can be measured in one run, got {len(lengths)}.")
    facts, asked = {}, {}
    for length, place, number in zip(lengths, PLACES, _NUMBERS, strict=False):
        facts[length] = encode(_FACT.format(place=place, number=number))
        question = encode(_QUESTION.format(place=place))
        asked[length] = (question, prompt.encode(_ANSWER.format(number=number)), len(str(number)))
        least = len(question) + len(asked[length][1].ids) + LEAST_RUNNING
        if tokens < least:
            raise SakuinError(f"at least {least} tokens must follow each length, got {tokens}.")
    need = lengths[-1] + tokens
    running = start + _tokens_of(encode, text, need, name)
    free = 0
    for length in lengths:  # the shorter first, so that no later one moves an earlier, or parts it
        at = max(length // 3, free)
        running[at:at] = facts[length]
        free = at + len(facts[length])
    stops = []
    for length in lengths:
        question, answer, digits = asked[length]
        going_on = running[length : length + tokens - len(question) - len(answer.ids)]
        known = _within(answer, [(1, 1 + digits)], len(going_on) + len(question))
        stops.append(Stop(length, (*going_on, *question, *answer.ids), known))
    return Passage(name, tuple(running[: lengths[-1]]), tuple(stops))


def record_passage(tokenizer: Any, name: str, lengths: Sequence[int], tokens: int, seed: int = 0) -> Passage:
    """As `passage`, of a text of records: after each length, some that lie spread over all of it are asked
    for by their numbers and said as JSON, as many as `tokens` hold. Their values count as retrieved.

    Raises `SakuinError` where `tokens` do not hold one.
    """
    lengths = sorted(set(lengths))
    vocabulary = vocabulary_of(tokenizer)
    prompt, start = Prompt.of(vocabulary), vocabulary.beginning
    ids: list[int] = []
    made = Records.make(0, seed)
    characters = 6 * lengths[-1]
    while len(ids) < lengths[-1]:
        made = Records.make(characters, seed)
        ids, characters = prompt.encode(made.text).ids, 2 * characters
    stops = []
    for length in lengths:
        held = vocabulary.decode(ids[: length - len(start)])
        whole = [r for r, end in zip(made.records, made.ends, strict=True) if end <= len(held)]
        stops.append(_asked_records(prompt, length, whole, tokens))
    return Passage(name, tuple((start + ids)[: lengths[-1]]), tuple(stops))


def _asked_records(prompt: Prompt, length: int, records: Sequence[dict[str, Any]], tokens: int) -> Stop:
    """The most records, evenly spread, whose numbers and JSON lines fit into `tokens`."""
    if not records:
        raise SakuinError(f"a length of {length:,} tokens holds no whole record; take a larger one.")
    least = 0
    for count in range(len(records), 0, -1):
        chosen = [records[int((i + 0.5) * len(records) / count)] for i in range(count)]
        numbers = ", ".join(str(record["order"]) for record in chosen)
        question, said = prompt.encode(SOME.format(numbers=numbers)).ids, prompt.encode(as_lines(chosen))
        least = len(question) + len(said.ids)
        if least <= tokens:
            known = _within(said, value_spans(chosen), len(question))
            return Stop(length, (*question, *said.ids), known)
    raise SakuinError(f"at least {least} tokens must follow {length:,} tokens of records, got {tokens}.")


def _within(said: Encoded, spans: Sequence[tuple[int, int]], before: int) -> tuple[int, ...]:
    """Which tokens, counted from `before` on, have characters of one of the spans."""
    return tuple(
        before + at
        for at, (begin, end) in enumerate(zip(said.starts, said.ends, strict=True))
        if any(begin < stop and end > first for first, stop in spans)
    )


def _tokens_of(
    encode: Callable[[str], list[int]], text: Callable[[int], str], need: int, name: str
) -> list[int]:
    """`need` tokens of a text."""
    characters = 3 * need
    while True:
        found = text(characters)
        ids = encode(found[:characters])
        if len(ids) >= need:
            return ids[:need]
        if len(found) < characters:  # all of it
            raise SakuinError(
                f"{name} has {len(ids):,} tokens, and {need:,} are needed: give a longer text or smaller "
                "lengths."
            )
        characters *= 2
