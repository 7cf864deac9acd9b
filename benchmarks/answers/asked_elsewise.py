"""Is it said that a text does not speak of what was asked, where it speaks of something like it?

Texts of six styles with three planted facts each are asked for these, for three facts that are not there
(`gone`), and two questions about the things of the facts that no text answers (`near`). Nothing was chosen on
these facts: words, looks and floor of `sakuin.context.spoken_of` were chosen on those of
`benchmarks.answers.evidence`.

Run: python -m benchmarks.answers.asked_elsewise [--model smollm2] [--length 300] [--documents 12]
Takes about two minutes on two cores.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sakuin
from benchmarks.answers.evidence import PEOPLE, STYLES, THINGS, TOWNS
from benchmarks.answers.unanswered import counts
from benchmarks.common import argument_parser, command, console, show, write
from sakuin.backends import catalogue
from sakuin.context.support import LITTLE

SAID = 20
"""Most tokens of an answer."""
FACTS = 3
"""So many facts are in a text, and as many are asked for that are not."""


@dataclass(frozen=True)
class Fact:
    """A sentence, its question, what a right answer holds, and a question that it does not answer."""

    sentence: str
    question: str
    value: str
    near: str


def facts(rng: random.Random) -> list[Fact]:
    """Six facts of different kinds."""
    town, person, thing = rng.choice(TOWNS), rng.choice(PEOPLE), rng.choice(THINGS)
    number, few = str(rng.randrange(100, 999)), str(rng.randrange(12, 98))
    animal, name = rng.choice(("goat", "donkey", "parrot")), rng.choice(("Bella", "Oskar", "Mimi"))
    colour, day = rng.choice(("green", "red", "blue")), rng.choice(("Monday", "Tuesday", "Saturday"))
    rows = (
        f"Room {number} is set aside for the chess club.|Which room is set aside for the chess club?|{number}"
        "|How many members does the chess club have?",
        f"The baker's {animal} is called {name}.|What is the name of the baker's {animal}?|{name}"
        f"|How old is the baker's {animal}?",
        f"The train from {town} arrives at platform {few}.|At which platform does the train from {town} "
        f"arrive?|{few}|How many seats does the train from {town} have?",
        f"The library is closed on {day}.|On which day is the library closed?|{day}"
        "|How many books does the library have?",
        f"The front door of the mill was painted {colour}.|What colour was the front door of the mill "
        f"painted?|{colour}|Who owns the mill?",
        f"The swimming pool is {few} metres long.|How long is the swimming pool?|{few}"
        "|What does it cost to use the swimming pool?",
        f"The prize for the best cake went to {person}.|Who won the prize for the best cake?"
        f"|{person.split()[1]}|How much sugar was in the best cake?",
        f"The spare fuse lies behind the {thing}.|Where does the spare fuse lie?|{thing}"
        "|How strong is the spare fuse?",
        f"The speed limit on the old bridge is {few} kilometres per hour.|What is the speed limit on the old "
        f"bridge?|{few}|When was the old bridge opened?",
        f"{person} bought the farm for {number} thousand crowns.|For how much did {person} buy the farm?"
        f"|{number}|From whom did {person} buy the farm?",
    )
    return [Fact(*row.split("|")) for row in rng.sample(rows, 2 * FACTS)]


def asked(model: tuple[Any, Any], i: int, tokens: int) -> Iterator[dict[str, Any]]:
    """What is answered of the i-th text."""
    rng = random.Random(7907 * i + tokens)
    write_, between = list(STYLES.values())[i % len(STYLES)]
    parts, found = write_(rng, int(3.8 * tokens)), facts(rng)
    for fact in found[:FACTS]:
        parts.insert(rng.randrange(len(parts) + 1), fact.sentence)
    context = sakuin.Context.from_text(*model, between.join(parts))
    questions = [("there", fact.question, fact.value) for fact in found[:FACTS]]
    questions += [("gone", fact.question, "") for fact in found[FACTS:]]
    questions += [("near", fact.near, "") for fact in found[: FACTS - 1]]
    for kind, question, value in questions:
        answer = context.ask(question, SAID)
        if kind == "there":
            kind = "right" if value.casefold() in answer.text.casefold() else "wrong"
        yield {
            "text": i,
            "kind": kind,
            "question": question,
            "answer": answer.text,
            "support": answer.support,
        }


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--length", type=int, default=300, help="of a text, in tokens, about")
    parser.add_argument("--documents", type=int, default=12)
    chosen = parser.parse_args()
    if chosen.model in catalogue.MODELS and not catalogue.MODELS[chosen.model].is_here:
        catalogue.get(chosen.model, say=console.print)
    model = sakuin.load(chosen.model, device="cpu")
    rows = [row for i in range(chosen.documents) for row in asked(model, i, chosen.length)]
    result = counts(chosen.model, rows, ("right", "gone", "near"))
    show("doubted", result, [result.values()])
    content = {"command": command(), "floor": LITTLE, "results": [result], "answers": rows}
    write(f"asked_elsewise-{chosen.model}", content)


if __name__ == "__main__":
    main()
