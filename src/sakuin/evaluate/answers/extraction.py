"""Structured extraction: every record of a long text as JSON, in each configuration's own words.

Published work found that retrieval methods which pass needle tests fail here, where one answer needs many
places of the text, one after another. The model is shown the first two records as JSON and goes on by itself;
its answer is scored against the text, and against full attention's own answer.

Called by `sakuin eval extract`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sakuin.backends.open import backend_of, vocabulary_of
from sakuin.errors import SakuinError
from sakuin.evaluate.configurations import FULL, Configuration
from sakuin.evaluate.prefilled import Prefilled, check_offloaded, touched_share
from sakuin.evaluate.results import Results
from sakuin.evaluate.texts.planted import technical_english
from sakuin.evaluate.texts.records import ASKED, Records, as_lines, parsed
from sakuin.version import __version__

Say = Callable[[str], None]

LEAST_LENGTH = 1024
SHOWN = 2
"""Records that the model is shown as JSON."""
_SPARE = 2
"""Tokens of an answer beyond the right one's, in lines."""
_START = '{"order":'
"""How the answer begins, which is said for the model."""


@dataclass(frozen=True)
class Extraction:
    """What one configuration wrote of one text. records : in the text, but for the two that are shown.
    right : how many of them are in the answer. wrong : other records in it. answer : the text written."""

    length: int
    seed: int
    configuration: str
    records: int
    right: int
    wrong: int
    answer: str
    touched_share: float


def about(model: str, dtype: str) -> dict[str, Any]:
    """What says that results belong together; lengths and seeds may be added later."""
    prose = hashlib.sha256(technical_english().encode()).hexdigest()[:16]
    return {
        "evaluation": "extraction",
        "model": model,
        "dtype": dtype,
        "sakuin": __version__,
        "prose": prose,
    }


def run(
    model: Any,
    tokenizer: Any,
    lengths: Sequence[int],
    seeds: int,
    configurations: Sequence[Configuration],
    results: Results,
    say: Say = lambda _: None,
    by_number: bool = False,
) -> Iterator[Extraction]:
    """Every text with full attention and each configuration; what `results` holds is not run again.

    by_number : each record is asked for by itself, its line begun with its number; else all in one go, which
        small models cannot do.
    """
    wanted = list(configurations)
    if all(c.name != FULL for c in wanted):
        wanted.insert(0, Configuration(FULL, None))
    if min(lengths) < LEAST_LENGTH:
        raise SakuinError(f"lengths must be at least {LEAST_LENGTH:,} tokens, got {min(lengths):,}.")
    documents = [
        _Document.made(tokenizer, length, seed, by_number) for length in lengths for seed in range(seeds)
    ]
    for one in documents:  # before the first is read
        one.check_fits(model)
    for one in documents:
        if any(one.key(c) not in results for c in wanted):
            with backend_of(model, tokenizer).steady():
                _measure(model, tokenizer, one, wanted, results, say)
        for c in wanted:
            yield Extraction(**results[one.key(c)])


@dataclass(frozen=True)
class _Document:
    """A text in tokens, its records, and what is asked after it: how each answer begins, in words and with
    the question before it in tokens. most : tokens that an answer may have."""

    length: int
    seed: int
    by_number: bool
    ids: list[int]
    records: list[dict[str, Any]]
    asked: list[tuple[str, list[int]]]
    most: int

    @classmethod
    def made(cls, tokenizer: Any, length: int, seed: int, by_number: bool) -> _Document:
        vocabulary = vocabulary_of(tokenizer)
        start = vocabulary.beginning

        def encode(piece: str) -> list[int]:
            return vocabulary.encode(piece).ids

        text, records = _cut(Records.make(6 * length, seed), encode, length - len(start))
        shown = ASKED + as_lines(records[:SHOWN])
        # As long as the right answer may be, and a little more, in which something wrong would show.
        line = -(-len(encode(as_lines(records))) // len(records))
        most = line + _SPARE if by_number else line * (len(records) - SHOWN + _SPARE)
        begun = _numbered(records) if by_number else [_START]
        asked = [(begin, encode(shown + begin)) for begin in begun]
        return cls(length, seed, by_number, start + encode(text), records, asked, most)

    def check_fits(self, model: Any) -> None:
        """`SakuinError` where the text, what is asked and the answer are more than the model reads."""
        limit = backend_of(model).shape.window
        whole = len(self.ids) + max(len(ids) for _, ids in self.asked) + self.most
        if limit is not None and whole > limit:
            raise SakuinError(
                f"a text of {self.length:,} tokens with its {len(self.records)} records takes {whole:,}, and "
                f"this model reads {limit:,}; take a smaller length."
            )

    def key(self, configuration: Configuration) -> str:
        """Under which answers are kept; its digest is of all tokens."""
        whole = repr((self.ids, [ids for _, ids in self.asked], self.most)).encode()
        named = f"{self.length} {self.seed} {hashlib.sha256(whole).hexdigest()[:12]} {configuration.key}"
        return named + (" by number" if self.by_number else "")


def _measure(
    model: Any,
    tokenizer: Any,
    one: _Document,
    configurations: Sequence[Configuration],
    results: Results,
    say: Say,
) -> None:
    where = f"{one.length:,} tokens, seed {one.seed}"
    say(f"{where}: reading")
    document = Prefilled.read(model, one.ids)
    for c in sorted(configurations, key=lambda c: (c.like is not None, c.kind)):
        key = one.key(c)
        if key in results:
            continue
        say(f"{where}: {c.name}")
        lines, shares = [], []
        for begun, ids in one.asked:
            cache = document.cache(c, ids)
            retrieval = document.backend.retrieval(cache)
            check_offloaded(retrieval, one.length)
            said = document.answer(cache, ids, tokenizer, one.most, one_line=one.by_number)
            lines.append(f"{begun} {said}")
            shares.append(0.0 if retrieval is None else touched_share(retrieval))
        answer = "\n".join(lines)
        shown = {json.dumps(record) for record in one.records[:SHOWN]}
        said_ones = {json.dumps(record) for record in parsed(answer)}
        true = {json.dumps(record) for record in one.records[SHOWN:]}
        results.add(
            key,
            {
                "length": one.length,
                "seed": one.seed,
                "configuration": c.name,
                "records": len(true),
                "right": len(said_ones & true),
                "wrong": len(said_ones - true - shown),
                "answer": answer,
                "touched_share": sum(shares) / len(shares),
            },
        )


def _numbered(records: list[dict[str, Any]]) -> list[str]:
    """How the lines of the records that are not shown begin."""
    return [f'{_START} {record["order"]}, "name":' for record in records[SHOWN:]]


def _cut(made: Records, encode: Callable[[str], list[int]], length: int) -> tuple[str, list[dict[str, Any]]]:
    """The longest text that ends with a record's sentence in `length` tokens, and its records."""
    low, high = SHOWN, len(made.ends)
    while low < high:  # the most records whose text fits
        middle = (low + high + 1) // 2
        fits = len(encode(made.text[: made.ends[middle - 1]])) <= length
        low, high = (middle, high) if fits else (low, middle - 1)
    return made.text[: made.ends[low - 1]], made.records[:low]


@dataclass(frozen=True)
class Score:
    """Texts of one configuration together. right, wrong : records; of `records`. like_full : of the records
    that full attention has right, the share that this has right too, None where there are none. same : of the
    texts, those whose answer is full attention's to the letter."""

    configuration: str
    texts: int
    records: int
    right: int
    wrong: int
    like_full: float | None
    same: int
    touched_share: float


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def scores(extractions: Iterable[Extraction]) -> list[Score]:
    """One for each configuration, in the order of the extractions."""
    found: dict[str, dict[tuple[int, int], Extraction]] = {}
    for each in extractions:
        found.setdefault(each.configuration, {})[each.length, each.seed] = each
    full = {at: _right(each) for at, each in found[FULL].items()}
    return [
        Score(
            configuration=name,
            texts=len(own),
            records=sum(each.records for each in own.values()),
            right=sum(each.right for each in own.values()),
            wrong=sum(each.wrong for each in own.values()),
            like_full=_share(
                sum(len(full[at] & _right(each)) for at, each in own.items()),
                sum(len(full[at]) for at in own),
            ),
            same=sum(each.answer == found[FULL][at].answer for at, each in own.items()),
            touched_share=sum(each.touched_share for each in own.values()) / len(own),
        )
        for name, own in found.items()
    ]


def _right(each: Extraction) -> set[str]:
    """The records of the text that are in its answer."""
    made = Records.make(6 * each.length, each.seed)
    true = {json.dumps(record) for record in made.records[SHOWN : each.records + SHOWN]}
    return {json.dumps(record) for record in parsed(each.answer)} & true
