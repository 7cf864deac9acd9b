"""Does the evidence name the sentence that says it, and does support tell whether the text says it at all?

Documents of six styles hold one fact each, at any place, the first sentence too. Each is asked for its
fact, and once more with the fact taken out. Counted are the right answers whose first passage is the fact's
sentence (it holds all of it), and how support parts questions whose answer is there and found from such whose
answer was taken out: the area under the curve (AUC), and the errors at the floor below which the command says
that the document seems not to speak of it.

Run: python -m benchmarks.answers.evidence [--model smollm2] [--lengths "400 4000"] [--documents "60 20"]
Takes about ten minutes of one core for SmolLM2 to 4,000 tokens, sixteen for Gemma 3 270M to 16,000. Lengths
are about; logs of 4,000 tokens are shorter texts than stories.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import sakuin
from benchmarks.common import argument_parser, command, console, show, write
from sakuin.backends import catalogue
from sakuin.context.support import LITTLE
from sakuin.evaluate.texts import generated
from sakuin.evaluate.texts.planted import technical_english

SAID = 24
"""Most tokens of an answer."""

THINGS = (
    *(
        "apple",
        "bread",
        "bridge",
        "candle",
        "cart",
        "chair",
        "cloud",
        "coin",
        "fence",
        "garden",
        "hen",
        "kettle",
    ),
    *("ladder", "lamp", "meadow", "orchard", "river", "silver", "stone", "table", "window"),
)
PEOPLE = ("Anna Berg", "Tom Lund", "Maria Costa", "Ivan Petrov", "Keiko Sato", "Paul Novak", "Lena Haas")
TOWNS = ("Bergheim", "Halden", "Lundby", "Marstal", "Norby", "Solna", "Tarvik", "Velden")
MINUTES = (
    "{p} reported that the {a} in {t} had been repaired.",
    "The group agreed to look at the {a} again next month.",
    "{p} asked {q} to write to the office in {t}.",
    "There was a long talk about the {a} and no decision.",
    "The budget for the {a} stays as it was last year.",
    "{p} thanked {q} for the work on the {a}.",
    "The visit to {t} was moved to another week.",
)
STORY = (
    "The {a} stood beside the {b}, and the wind came from the river.",
    "In the morning {p} walked to the {a} and came back late.",
    "Nobody in {t} remembered who had built the {a}.",
    "It rained on the {b} for three days.",
    "{p} and {q} carried the {a} over the {b}.",
    "The children of {t} painted the {a}, and the {b} was left as it was.",
)


@dataclass(frozen=True)
class Fact:
    """A sentence, the question that asks for it, and what a right answer holds."""

    sentence: str
    question: str
    value: str


def fact(rng: random.Random) -> Fact:
    """One of twelve kinds, with names and numbers of its own."""
    town, person, thing = rng.choice(TOWNS), rng.choice(PEOPLE), rng.choice(THINGS)
    number, few = str(rng.randrange(1000, 9999)), str(rng.randrange(12, 98))
    hour = f"{rng.randrange(5, 22)}:{rng.choice(('10', '25', '40', '55'))}"
    month = rng.choice(("January", "March", "April", "June", "August", "October"))
    year, day = rng.randrange(2027, 2039), rng.randrange(1, 28)
    kinds = (
        (f"The ferry to {town} leaves at {hour}.", f"When does the ferry to {town} leave?", hour),
        (f"The door code of the archive is {number}.", "What is the door code of the archive?", number),
        (
            f"The support contract with {town} ends on {day} {month} {year}.",
            f"When does the support contract with {town} end?",
            str(year),
        ),
        (f"A ticket for the museum costs {few} euros.", "How much does a ticket for the museum cost?", few),
        (
            f"The new director of the hospital is {person}.",
            "Who is the new director of the hospital?",
            person.split()[1],
        ),
        (f"The key of the cellar lies under the {thing}.", "Where does the key of the cellar lie?", thing),
        (
            f"The phone number of the harbour office is {number}.",
            "What is the phone number of the harbour office?",
            number,
        ),
        (f"The concert takes place in {town}.", "Where does the concert take place?", town),
        (
            f"The invoice must be paid within {few} days.",
            "Within how many days must the invoice be paid?",
            few,
        ),
        (
            f"The password of the printer is {thing}{few}.",
            "What is the password of the printer?",
            thing + few,
        ),
        (f"{person} was born on {day} {month} {year - 60}.", f"When was {person} born?", str(year - 60)),
        (
            f"The tower of the church in {town} is {few} metres high.",
            f"How high is the tower of the church in {town}?",
            few,
        ),
    )
    return Fact(*rng.choice(kinds))


def _filled(forms: tuple[str, ...]) -> Callable[[random.Random, int], list[str]]:
    def sentences(rng: random.Random, characters: int) -> list[str]:
        found: list[str] = []
        while sum(map(len, found)) < characters:
            words = {"p": rng.choice(PEOPLE), "q": rng.choice(PEOPLE), "t": rng.choice(TOWNS)}
            words |= {"a": rng.choice(THINGS), "b": rng.choice(THINGS)}
            found.append(rng.choice(forms).format(**words))
        return found

    return sentences


def _diary(rng: random.Random, characters: int) -> list[str]:
    days: list[str] = []
    while sum(map(len, days)) < characters:
        a, b, c = (rng.choice(THINGS) for _ in range(3))
        days.append(f"On day {len(days) + 1} the {a} beside the {b} was painted by the {c} keeper.")
    return days


def _clauses(rng: random.Random, characters: int) -> list[str]:
    text = generated.contracts(characters, rng.randrange(10**6))
    return [part for part in text[: text.rfind("\n", 0, characters)].split("\n\n") if part.strip()]


def _lines(rng: random.Random, characters: int) -> list[str]:
    text = generated.logs(characters // 2, rng.randrange(10**6))  # many tokens a character
    return text.rstrip("\n").split("\n")


def _technical(rng: random.Random, characters: int) -> list[str]:
    whole = technical_english()
    at = whole.index(". ", rng.randrange(len(whole) - 2 * characters)) + 2
    text = whole[at : at + characters]
    return re.split(r"(?<=[.]) +", text[: text.rfind(". ") + 1])


STYLES: dict[str, tuple[Callable[[random.Random, int], list[str]], str]] = {
    "diary": (_diary, "\n\n"),
    "minutes": (_filled(MINUTES), " "),
    "story": (_filled(STORY), " "),
    "contract": (_clauses, "\n\n"),
    "log": (_lines, "\n"),
    "technical": (_technical, " "),
}


@dataclass(frozen=True)
class Text:
    """A document with its fact, and the same without it. place : of the fact, from 0 to 1."""

    style: str
    fact: Fact
    having: str
    lacking: str
    place: float


def text(i: int, characters: int) -> Text:
    """The i-th document of about so many characters; in every fifth the fact is the first sentence."""
    rng = random.Random(7919 * i + characters)
    style = list(STYLES)[i % len(STYLES)]
    write_, between = STYLES[style]
    parts, one = write_(rng, characters), fact(rng)
    at = 0 if i % 5 == 0 else rng.randrange(len(parts) + 1)
    having = between.join([*parts[:at], one.sentence, *parts[at:]])
    return Text(style, one, having, between.join(parts), at / len(parts))


def asked(model: tuple[Any, Any], one: Text) -> dict[str, Any]:
    """What is answered of it with the fact and without."""
    having = sakuin.Context.from_text(*model, one.having).ask(one.fact.question, SAID)
    lacking = sakuin.Context.from_text(*model, one.lacking).ask(one.fact.question, SAID)
    first = having.evidence[0].text if having.evidence else ""
    return {
        "style": one.style,
        "place": one.place,
        "right": one.fact.value.casefold() in having.text.casefold(),
        "leads": one.fact.sentence in first,
        "wide": len(first) / len(one.fact.sentence),
        "there": having.support,
        "gone": lacking.support,
        "answers": [having.text, lacking.text],
    }


def summed(length: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the rows of a length say together."""
    right = [row for row in rows if row["right"]]
    there = [row["there"] for row in right if row["there"] is not None]
    gone = [row["gone"] for row in rows if row["gone"] is not None]
    pairs = [(a > b) + (a == b) / 2 for a in there for b in gone]
    return {
        "length": length,
        "documents": len(rows),
        "right": len(right),
        "leads": sum(row["leads"] for row in right),
        "wide": median(row["wide"] for row in right) if right else None,
        "auc": sum(pairs) / len(pairs) if pairs else None,
        "there": median(there) if there else None,
        "gone": median(gone) if gone else None,
        "doubted": sum(value < LITTLE for value in there) / max(len(there), 1),
        "believed": sum(value >= LITTLE for value in gone) / max(len(gone), 1),
    }


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--lengths", default="400 4000", help="of the documents, in tokens, about")
    parser.add_argument("--documents", default="60 20", help="of each length")
    chosen = parser.parse_args()
    if chosen.model in catalogue.MODELS and not catalogue.MODELS[chosen.model].is_here:
        catalogue.get(chosen.model, say=console.print)
    model = sakuin.load(chosen.model, device="cpu")
    results, rows = [], []
    lengths, documents = ([int(word) for word in x.split()] for x in (chosen.lengths, chosen.documents))
    for length, n in zip(lengths, documents, strict=True):
        own = []
        for i in range(n):
            own.append(asked(model, text(i, int(3.8 * length))))
            console.print(length, i, {k: v for k, v in own[-1].items() if k != "answers"})
        results.append(summed(length, own))
        rows += own
    show(f"evidence, {chosen.model}", results[0], (result.values() for result in results))
    context = sakuin.Context.from_text(*model, text(0, 1000).having)
    content = {
        "command": command(),
        "model": chosen.model,
        "backend": context.backend.name,
        "floor": LITTLE,
        "results": results,
        "answers": rows,
    }
    write(f"evidence-{chosen.model}", content)


if __name__ == "__main__":
    main()
