"""Is it said that a text does not speak of what was asked, where it is another kind of text than those that
the floor was chosen on?

Twelve short texts (an e-mail, a recipe, a packing list, a judgment, a table, a log, a German lease and
others) are asked questions that they answer, two each that they might answer and do not (`near`), and one of
general knowledge (`far`). They come from a try of a new user, and nothing was chosen on them
(`unanswered_texts.json`). Counted is whose support lies below the floor.

Run: python -m benchmarks.answers.unanswered [--models smollm2 gemma3-270m]
Takes a minute on two cores.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import sakuin
from benchmarks.common import argument_parser, command, console, show, write
from sakuin.backends import catalogue
from sakuin.context.support import LITTLE

TEXTS = Path(__file__).with_name("unanswered_texts.json")
SAID = 32
"""Most tokens of an answer."""


def asked(model: tuple[Any, Any], one: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What is answered to each question of a text, and of which kind the question is: "right" and "wrong" are
    those that the text answers, by what was said."""
    context = sakuin.Context.from_text(*model, one["text"])
    for fact in one["answered"]:
        answer = context.ask(fact["question"], SAID)
        right = fact["value"].casefold() in answer.text.casefold()
        yield _row(one, "right" if right else "wrong", fact["question"], answer)
    for kind, questions in (("near", one["near"]), ("far", [one["far"]])):
        for question in questions:
            yield _row(one, kind, question, context.ask(question, SAID))


def _row(one: dict[str, Any], kind: str, question: str, answer: sakuin.Answer) -> dict[str, Any]:
    return {
        "text": one["name"],
        "kind": kind,
        "question": question,
        "answer": answer.text,
        "support": answer.support,
    }


def counts(
    name: str, rows: list[dict[str, Any]], kinds: Sequence[str] = ("right", "near", "far")
) -> dict[str, Any]:
    """How many questions of each kind there are, and how many of them are doubted."""
    result: dict[str, Any] = {"model": name}
    for kind in kinds:
        supports = [row["support"] for row in rows if row["kind"] == kind]
        result |= {kind: len(supports), f"{kind}_doubted": sum(each < LITTLE for each in supports)}
    return result


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--models", nargs="+", default=["smollm2", "gemma3-270m"])
    chosen = parser.parse_args()
    texts, results, answers = json.loads(TEXTS.read_text("utf-8")), [], []
    for name in chosen.models:
        if name in catalogue.MODELS and not catalogue.MODELS[name].is_here:
            catalogue.get(name, say=console.print)
        model = sakuin.load(name, device="cpu")
        rows = [row for one in texts for row in asked(model, one)]
        results.append(counts(name, rows))
        answers += [{"model": name} | row for row in rows]
    show("doubted", results[0], (result.values() for result in results))
    write("unanswered", {"command": command(), "floor": LITTLE, "results": results, "answers": answers})


if __name__ == "__main__":
    main()
