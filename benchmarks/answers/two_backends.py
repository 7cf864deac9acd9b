"""A context that one backend has read and the other is asked about: are the answers those of the reader?

Four documents of technical English hold five magic numbers each. Every document is read by transformers and
by llama.cpp, from the same GGUF file, and stored. Then both backends load both stored contexts and say the
likeliest answer to each question, to the letter the same or not.

llama.cpp is asked twice. As a user asks, short passes round what they multiply to 8 bits, which alone changes
where a small model hesitates. Steadily (`Backend.steady`) nothing is rounded: then only the context is left.

Each answer is held against that of the backend that read (llama.cpp's without rounding), and against that of
the same asker from the context that it would have read itself.

Run: python -m benchmarks.answers.two_backends [--model smollm2] [--documents 4] [--tokens 4500]
Takes twelve minutes on one core (SmolLM2, fp32). A model with sliding windows or recurrent layers is
refused: their state is the backend's own.
"""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sakuin
from benchmarks.common import argument_parser, command, console, show, write
from sakuin.backends import catalogue
from sakuin.backends.open import backend_of
from sakuin.evaluate.texts.generated import words
from sakuin.evaluate.texts.planted import technical_english

BACKENDS = ("transformers", "llama.cpp")
STEADY = "llama.cpp, steady"
ASKERS = (*BACKENDS, STEADY)
READERS = {"transformers": "transformers", "llama.cpp": STEADY}
"""Who answers for a backend that has read."""
NEEDLES = 5
"""In each document."""
SAID = 24
CHARACTERS = 4.2
"""Of a token, about; never so few that a document is longer than asked."""


@dataclass(frozen=True)
class Needle:
    """A fact, in which document it is, and how it is asked for."""

    document: int
    what: str
    number: str

    @property
    def fact(self) -> str:
        return f"One of the special magic numbers for the {self.what} is: {self.number}."

    @property
    def question(self) -> str:
        return f"What is the special magic number for the {self.what} mentioned in the text?"


def needles(documents: int) -> list[Needle]:
    """Others for each document; each is about something else."""
    things = [f"{city} {thing}" for thing in words("goods") for city in words("cities")]
    most = len(things) // NEEDLES
    if not 1 <= documents <= most:
        raise SystemExit(f"--documents must be from 1 to {most}, got {documents}.")
    # Far apart in the list, so that neither city nor thing comes twice in a document.
    step = len(words("cities")) + 1
    return [
        Needle(i // NEEDLES, things[i * step % len(things)], str(10_000 + 7_919 * (i + 1) % 90_000))
        for i in range(documents * NEEDLES)
    ]


def written(document: int, facts: list[str], tokens: int) -> str:
    """A part of the text of its own, with the facts spread over it as paragraphs."""
    characters = int(tokens * CHARACTERS)
    whole = technical_english()
    if len(whole) < (document + 1) * characters:
        raise SystemExit(f"the text is too short for {document + 1} documents of {tokens:,} tokens.")
    paragraphs = whole[document * characters : (document + 1) * characters].split("\n\n")
    for i, fact in reversed(list(enumerate(facts))):
        paragraphs.insert(round((i + 0.5) / len(facts) * len(paragraphs)), fact)
    return "\n\n".join(paragraphs)


def read(model: tuple[Any, Any], texts: list[str], folder: Path) -> list[int]:
    """Read and store each text as a context in `folder`; how many tokens each has."""
    counts = []
    for i, text in enumerate(texts):
        context = sakuin.Context.from_text(*model, text)
        context.save(folder / str(i))
        counts.append(context.tokens)
        console.print(f"{context.backend.name} read {context.tokens:,} tokens in {context.prefill_s:.0f} s")
    return counts


def asked(model: tuple[Any, Any], folder: Path, planted: list[Needle]) -> list[str]:
    """The answer to each needle's question, from the contexts in `folder`."""
    answers: list[str] = []
    for document in sorted({needle.document for needle in planted}):
        context = sakuin.Context.load(folder / str(document), *model)
        own = [needle for needle in planted if needle.document == document]
        answers += [context.ask(needle.question, max_new_tokens=SAID).text for needle in own]
    return answers


def rows(planted: list[Needle], answers: dict[tuple[str, str], list[str]]) -> list[dict[str, Any]]:
    """One for each reader and asker: how many numbers were found, and how many answers are those of the
    backend that read, and those of the asker from a context of its own."""

    def same(given: list[str], other: tuple[str, str]) -> int:
        return sum(answer == before for answer, before in zip(given, answers[other], strict=True))

    return [
        {
            "reader": reader,
            "asker": asker,
            "needles": len(planted),
            "found": sum(needle.number in answer for needle, answer in zip(planted, given, strict=True)),
            "as_reader": same(given, (reader, READERS[reader])),
            "as_own": same(given, (asker.partition(",")[0], asker)),
        }
        for (reader, asker), given in answers.items()
    ]


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--documents", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=4500, help="of a document, about")
    chosen = parser.parse_args()
    planted = needles(chosen.documents)
    texts = [
        written(i, [needle.fact for needle in planted if needle.document == i], chosen.tokens)
        for i in range(chosen.documents)
    ]
    if chosen.model in catalogue.MODELS and not catalogue.MODELS[chosen.model].is_here:
        catalogue.get(chosen.model, say=console.print)
    models = {
        backend: sakuin.load(chosen.model, "fp32", device="cpu", backend=backend) for backend in BACKENDS
    }
    answers: dict[tuple[str, str], list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for reader in BACKENDS:
            kept = Path(folder) / reader
            counts = read(models[reader], texts, kept)
            for asker in ASKERS:
                backend, steady = asker.partition(",")[0], asker == STEADY
                with backend_of(*models[backend]).steady() if steady else nullcontext():
                    answers[reader, asker] = asked(models[backend], kept, planted)
    result = rows(planted, answers)
    show(f"{len(planted)} needles", result[0], (row.values() for row in result))
    content = {
        "command": command(),
        "model": chosen.model,
        "dtype": "fp32",
        "tokens": counts,
        "results": result,
        "answers": [
            {"number": needle.number} | {f"{r} | {a}": given[i] for (r, a), given in answers.items()}
            for i, needle in enumerate(planted)
        ],
    }
    write(f"two_backends-{chosen.model}", content)


if __name__ == "__main__":
    main()
