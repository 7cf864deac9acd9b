"""Needles in a haystack: facts planted at every depth of texts of every length, asked for afterwards.

A needle says a magic number; one question asks for all of a text. Every cell of the grid, a length, a depth
and a seed, is read once (what lies before the needle once for all depths of a length) and answered by every
configuration. Where full attention itself does not answer, a miss says nothing of an index; so it always
runs.

Called by `sakuin eval needle`.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sakuin.backends.open import backend_of, vocabulary_of
from sakuin.errors import SakuinError
from sakuin.evaluate.configurations import FULL, Configuration
from sakuin.evaluate.prefilled import Prefilled, check_offloaded, touched_share
from sakuin.evaluate.results import Results
from sakuin.evaluate.texts.generated import words
from sakuin.prompts.template import Prompt
from sakuin.version import __version__

Say = Callable[[str], None]

_NEEDLE = "\nOne of the special magic numbers for the {what} is: {number}.\n"
_ONE = "What is the special magic number for the {what} mentioned in the text?"
_ALL = "What are all the special magic numbers for the {what} mentioned in the text? Name all {n} of them."
_NEW_TOKENS = 24
_MORE_TOKENS = 12
LEAST_LENGTH = 256
_FIRST, _NEWEST = 192, 640
"""Tokens of a document before and behind which no needle is: more than sink and recent window hold beside the
question."""


@dataclass(frozen=True)
class Grid:
    """What is tried.

    lengths : of the documents, in tokens. depths : from 0 to 1, of what an index has to find: behind the
        first tokens and before the newest, which every configuration attends exactly at its defaults. seeds :
        how many; each has other needles in another part of the haystack. needles : in each document, the
        first at the depth, the others spread evenly between it and the end. Documents of less than 1,920
        tokens have depth 1 at two thirds, which the recent window may hold.
    """

    lengths: tuple[int, ...]
    depths: tuple[float, ...]
    seeds: int = 1
    needles: int = 1

    def __post_init__(self) -> None:
        for depth in self.depths:
            if not 0 <= depth <= 1:
                raise SakuinError(f"depths must be from 0 to 1, got {depth:g}.")
        if min(self.lengths) < LEAST_LENGTH:
            raise SakuinError(f"lengths must be at least {LEAST_LENGTH} tokens, got {min(self.lengths)}.")
        if self.seeds < 1 or not 1 <= self.needles <= 16:
            raise SakuinError(
                f"there must be at least one seed and 1 to 16 needles, got {self.seeds} and {self.needles}."
            )

    @property
    def new_tokens(self) -> int:
        """Most tokens of an answer."""
        return _NEW_TOKENS + _MORE_TOKENS * (self.needles - 1)


@dataclass(frozen=True)
class Cell:
    """One answer. found : which of the `needles` numbers are in it. touched_share : of the offloaded keys and
    values, by `sakuin.evaluate.prefilled`; 0 with full attention, which has none."""

    length: int
    depth: float
    seed: int
    needles: int
    configuration: str
    answer: str
    found: list[str]
    touched_share: float


def about(model: str, dtype: str, grid: Grid, text: str) -> dict[str, Any]:
    """What says that results belong together; lengths, depths and seeds may be added later."""
    return {
        "evaluation": "needle",
        "model": model,
        "dtype": dtype,
        "sakuin": __version__,
        "needles": grid.needles,
        "haystack": hashlib.sha256(text.encode()).hexdigest()[:16],
    }


def run(
    model: Any,
    tokenizer: Any,
    text: str,
    grid: Grid,
    configurations: Sequence[Configuration],
    results: Results,
    say: Say = lambda _: None,
) -> Iterator[Cell]:
    """Every cell of the grid with full attention and each configuration; what `results` holds is not run
    again."""
    wanted = list(configurations)
    if all(c.name != FULL for c in wanted):
        wanted.insert(0, Configuration(FULL, None))
    asker = _Asker(model, tokenizer, text, grid)
    for length in grid.lengths:
        for seed in range(grid.seeds):
            documents = [asker.document(length, depth, seed) for depth in grid.depths]
            missing = [each for each in documents if any(each.key(c) not in results for c in wanted)]
            if missing:
                with asker.backend.steady():
                    asker.measure(missing, wanted, results, say)
            for each in documents:
                for c in wanted:
                    yield Cell(**results[each.key(c)])


@dataclass(frozen=True)
class _Document:
    """One document of the grid, in tokens behind the prompt's head. before : the haystack up to the first
    needle, which documents of several depths share. rest : from that needle on. question : what is asked."""

    length: int
    depth: float
    seed: int
    numbers: list[str]
    before: list[int]
    rest: list[int]
    question: list[int]

    def key(self, configuration: Configuration) -> str:
        """Under which an answer is kept; its digest is of all tokens."""
        whole = repr((self.before, self.rest, self.question)).encode()
        digest = hashlib.sha256(whole).hexdigest()[:12]
        return f"{self.length} {self.depth:g} {self.seed} {digest} {configuration.key}"


class _Asker:
    """A model, a haystack and how it is asked."""

    def __init__(self, model: Any, tokenizer: Any, text: str, grid: Grid) -> None:
        self.model, self.tokenizer, self.grid = model, tokenizer, grid
        self.backend = backend_of(model, tokenizer)
        self.prompt = Prompt.of(vocabulary_of(tokenizer))
        self.hay = self.prompt.encode(text)
        # Where a needle may go: after a line's end.
        self.breaks = [i + 1 for i, end in enumerate(self.hay.ends) if text[end - 1] == "\n"]
        longest, most = max(grid.lengths), self.backend.shape.window
        if len(self.hay.ids) < longest or not self.breaks:
            raise SakuinError(
                f"the haystack has {len(self.hay.ids):,} tokens, and {longest:,} are needed: give longer "
                "texts, or smaller lengths."
            )
        whole = longest + len(self.prompt.head) + len(self._question("harbour")) + grid.new_tokens
        if most is not None and whole > most:
            raise SakuinError(
                f"a document of {longest:,} tokens with its question and answer takes {whole:,}, and this "
                f"model reads {most:,}; take at most {longest - (whole - most):,}."
            )

    def _question(self, what: str) -> list[int]:
        n = self.grid.needles
        asked = _ONE.format(what=what) if n == 1 else _ALL.format(what=what, n=n)
        return self.prompt.question("", asked).ids

    def document(self, length: int, depth: float, seed: int) -> _Document:
        """Its tokens; those of one length and seed differ in where the needles are."""
        rng = random.Random(1000 * length + seed)
        what = f"{rng.choice(words('cities'))} {rng.choice(words('goods'))}"
        numbers = [str(rng.randrange(10_000, 100_000)) for _ in range(self.grid.needles)]
        needles = [self.prompt.encode(_NEEDLE.format(what=what, number=number)).ids for number in numbers]
        hay = length - sum(map(len, needles))
        start = 0 if seed == 0 else rng.randrange(max(1, len(self.hay.ids) - hay))
        places = [
            self._place(start, hay, depth + (1 - depth) * i / len(needles)) for i in range(len(needles))
        ]
        rest: list[int] = []
        for needle, place, until in zip(needles, places, [*places[1:], start + hay], strict=True):
            rest += [*needle, *self.hay.ids[place:until]]
        before = self.hay.ids[start : places[0]]
        return _Document(length, depth, seed, numbers, before, rest, self._question(what))

    def measure(
        self,
        documents: Iterable[_Document],
        configurations: Sequence[Configuration],
        results: Results,
        say: Say,
    ) -> None:
        """All configurations on some documents of one length and seed."""
        head = self.prompt.head
        base = Prefilled.read(self.model, head)
        for one in sorted(documents, key=lambda one: len(one.before)):
            where = f"{one.length:,} tokens, depth {one.depth:g}, seed {one.seed}"
            say(f"{where}: reading")
            base = base.extend(one.before[len(base.ids) - len(head) :])
            read = base.extend(one.rest)
            for c in sorted(configurations, key=lambda c: (c.like is not None, c.kind)):
                if one.key(c) not in results:
                    say(f"{where}: {c.name}")
                    results.add(one.key(c), self._cell(read, one, c))

    def _place(self, start: int, hay: int, depth: float) -> int:
        """The line's end nearest to a depth of the haystack's tokens from `start` on."""
        first, last = min(_FIRST, hay // 8), hay - min(_NEWEST, hay // 3)
        wanted = start + first + depth * (last - first)
        inside = [at for at in self.breaks if start <= at <= start + hay] or [start + hay]
        return min(inside, key=lambda at: abs(at - wanted))

    def _cell(self, read: Prefilled, one: _Document, configuration: Configuration) -> dict[str, Any]:
        cache = read.cache(configuration, one.question)
        retrieval = read.backend.retrieval(cache)
        check_offloaded(retrieval, one.length)
        answer = read.answer(
            cache, one.question, self.tokenizer, self.grid.new_tokens, one_line=self.prompt.one_line
        )
        return {
            "length": one.length,
            "depth": one.depth,
            "seed": one.seed,
            "needles": len(one.numbers),
            "configuration": configuration.name,
            "answer": answer,
            "found": [number for number in one.numbers if number in answer],
            "touched_share": 0.0 if retrieval is None else touched_share(retrieval),
        }


@dataclass(frozen=True)
class Tally:
    """Cells of one configuration together. found : share of the needles found. lost : cells in which full
    attention found one that this did not; gained : in which this found one that full attention did not;
    solved : in which full attention found any."""

    configuration: str
    cells: int
    found: float
    solved: int
    lost: int
    gained: int
    touched_share: float


def tallies(cells: Iterable[Cell]) -> list[Tally]:
    """One for each configuration, in the order of the cells."""
    found: dict[str, dict[tuple[int, float, int], Cell]] = {}
    for cell in cells:
        found.setdefault(cell.configuration, {})[cell.length, cell.depth, cell.seed] = cell
    full = found[FULL]
    return [
        Tally(
            configuration=name,
            cells=len(own),
            found=sum(len(cell.found) for cell in own.values()) / sum(cell.needles for cell in own.values()),
            solved=sum(bool(full[at].found) for at in own),
            lost=sum(bool({*full[at].found} - {*cell.found}) for at, cell in own.items()),
            gained=sum(bool({*cell.found} - {*full[at].found}) for at, cell in own.items()),
            touched_share=sum(cell.touched_share for cell in own.values()) / len(own),
        )
        for name, own in found.items()
    ]
