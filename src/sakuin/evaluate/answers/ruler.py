"""RULER with full attention and other configurations beside it: does the score survive?

Every sample's prompt is read once; each configuration answers from there, so that scores are paired sample by
sample. Called by `sakuin eval ruler`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from sakuin.backends.base import Backend
from sakuin.backends.open import backend_of
from sakuin.capacity import need
from sakuin.config import RetrievalConfig
from sakuin.context.generate import generate
from sakuin.errors import SakuinError
from sakuin.evaluate.configurations import FULL, Configuration, with_full
from sakuin.evaluate.decode import decode_answer
from sakuin.evaluate.paired import Difference, difference
from sakuin.evaluate.prefilled import Prefilled, touched_share
from sakuin.evaluate.results import Results
from sakuin.evaluate.texts.ruler_samples import (
    Sample,
    check_installed,
    check_least,
    check_tasks,
    samples,
    versions,
)
from sakuin.prompts.template import Prompt
from sakuin.version import __version__

SEED = 42
"""RULER's own."""


@dataclass(frozen=True)
class Scored:
    """One sample, answered in one configuration.

    score : RULER's, 0 to 100. tokens : of the prompt. new_tokens : of the answer, one that ends it included.
    touched_share : of the decode steps, None with full attention and where the whole prompt is attended
        exactly. seconds : for the answer alone.
    margin : nats by which full attention prefers its own token where the answers part, for scores that differ
        from full attention's; near 0 it hesitates itself, and either answer is as good. None for others.
    """

    task: str
    length: int
    index: int
    configuration: str
    score: float
    prediction: str
    references: tuple[str, ...]
    tokens: int
    new_tokens: int
    touched_share: float | None
    seconds: float
    margin: float | None = None


@dataclass(frozen=True)
class Row:
    """One configuration at one length against full attention, over all samples or one task's.

    task : its name, or None for the mean over all tasks. length : None for that over all lengths too.
    full, score : mean scores, 0 to 100, of full attention and of the configuration.
    loss : the difference, configuration less full attention, over all samples; below 0 is worse.
    solved, kept : samples that full attention answers wholly (score 100), and those of them that the
        configuration answers wholly too. kept_loss : the difference over these alone, None where there are
        none.
    same : samples whose answer is full attention's to the letter.
    """

    length: int | None
    configuration: str
    task: str | None
    full: float
    score: float
    loss: Difference
    solved: int
    kept: int
    kept_loss: Difference | None
    touched_share: float | None
    same: int


def about(model: Any, name: str, seed: int) -> dict[str, Any]:
    """What must be the same for results to belong together."""
    return {
        "evaluation": "ruler",
        "model": name,
        "dtype": str(model.dtype).removeprefix("torch."),
        "window": backend_of(model).shape.window,
        "seed": seed,
        "sakuin": __version__,
        **versions(),
    }


def ruler(
    model: Any,
    tokenizer: Any,
    configurations: Sequence[Configuration],
    results: Results,
    length: int = 4096,
    tasks: Iterable[str] = ("all",),
    count: int = 10,
    seed: int = SEED,
    say: Callable[[str], None] = lambda _: None,
) -> list[Scored]:
    """Answer `count` samples of each task at a length in each configuration; full attention is always one.

    model, tokenizer : as `sakuin.load` gives them.
    results : where answers are kept as they come; what it holds already is not asked again.
    length : of prompt and answer together, in tokens.
    say : is told what is being done.

    Goes through all tasks before it takes the next sample of each, so that an interrupted run has something
    of every task. Raises `SakuinError` for a length that the model cannot read, unknown tasks, and where the
    package with RULER's generators is missing.
    """
    check_installed()
    chosen = check_tasks(tasks)
    if count < 1:
        raise SakuinError(f"there must be at least one sample, got {count}.")
    check_length(model, length)
    wanted = with_full(configurations)
    backend = backend_of(model, tokenizer)
    prompt = Prompt.of(backend.vocabulary)
    scored = []
    made: dict[str, list[Sample]] = {}
    with backend.steady():
        for index, task in product(range(count), chosen):
            if task not in made:
                made[task] = samples(tokenizer, task, length, count, seed, say)
            say(f"{task}, {length:,} tokens, sample {index + 1} of {count}")
            scored += _answered(backend, prompt, made[task][index], wanted, results)
    return scored


def differing(scored: Sequence[Scored]) -> list[dict[str, Any]]:
    """Each answer whose score is not full attention's: where it is, both scores, and its margin."""
    full = {(s.length, s.task, s.index): s.score for s in scored if s.configuration == FULL}
    return [
        {
            "length": one.length,
            "configuration": one.configuration,
            "task": one.task,
            "index": one.index,
            "full": full[one.length, one.task, one.index],
            "score": one.score,
            "margin": one.margin,
        }
        for one in scored
        if one.score != full[one.length, one.task, one.index]
    ]


def summarized(scored: Sequence[Scored]) -> list[Row]:
    """Each configuration but full attention at each length: its tasks in order, then the mean over them; at
    the end the mean over tasks and lengths, where there are several lengths."""
    full = {(s.length, s.task, s.index): s for s in scored if s.configuration == FULL}
    groups: dict[str, dict[int, dict[str, list[Scored]]]] = {}
    for one in scored:
        if one.configuration != FULL:
            lengths = groups.setdefault(one.configuration, {})
            lengths.setdefault(one.length, {}).setdefault(one.task, []).append(one)
    rows = []
    for name, lengths in groups.items():
        for length, tasks in lengths.items():
            for task, found in tasks.items():
                rows.append(_row(length, name, task, [found], full))
            rows.append(_row(length, name, None, list(tasks.values()), full))
    for name, lengths in groups.items():
        if len(lengths) > 1:
            every = [found for tasks in lengths.values() for found in tasks.values()]
            rows.append(_row(None, name, None, every, full))
    return rows


def _row(
    length: int | None,
    name: str,
    task: str | None,
    groups: Sequence[Sequence[Scored]],
    full: Mapping[tuple[int, str, int], Scored],
) -> Row:
    """What is the mean over groups of samples, each of one task and length."""
    pairs = {
        f"{found[0].length} {found[0].task}": [
            (full[one.length, one.task, one.index].score, one.score) for one in found
        ]
        for found in groups
    }
    solved = {key: [pair for pair in each if pair[0] == 100] for key, each in pairs.items()}
    kept = [pair for each in solved.values() for pair in each]
    shares = [
        sum(known) / len(known)
        for found in groups
        if (known := [one.touched_share for one in found if one.touched_share is not None])
    ]

    def mean(which: int) -> float:
        return sum(sum(pair[which] for pair in each) / len(each) for each in pairs.values()) / len(pairs)

    return Row(
        length=length,
        configuration=name,
        task=task,
        full=mean(0),
        score=mean(1),
        loss=difference(pairs),
        solved=len(kept),
        kept=sum(after == 100 for _, after in kept),
        kept_loss=difference(solved) if kept else None,
        touched_share=sum(shares) / len(shares) if shares else None,
        same=sum(
            one.prediction == full[one.length, one.task, one.index].prediction
            for found in groups
            for one in found
        ),
    )


def check_length(model: Any, length: int) -> None:
    """`SakuinError` where RULER has no samples so short, or the model or this machine's memory no room for so
    many tokens."""
    check_least(length)
    shape = backend_of(model).shape
    window = shape.window
    if window is not None and length > window:
        raise SakuinError(
            f"a length of {length:,} tokens is more than the {window:,} that this model reads; take a "
            "shorter one, or --window for a longer window by YaRN."
        )
    wanted = need.estimate(shape, length, model.dtype, RetrievalConfig(), weights=0)
    need.check(wanted, f"a prompt of {length:,} tokens")


def _answered(
    backend: Backend,
    prompt: Prompt,
    sample: Sample,
    wanted: Sequence[Configuration],
    results: Results,
) -> list[Scored]:
    ids = sample.ids(prompt)
    keys = {one.name: _key(sample, ids, one) for one in wanted}
    read: Prefilled | None = None
    tried: list[int] = []
    found: list[Scored] = []
    for one in wanted:
        key = keys[one.name]
        if key not in results:
            if read is None:
                read = Prefilled.read(backend.model, ids[:-1])
            if (one.share or one.like) and not tried:
                # What full attention goes on with: the steps on which the knobs of configurations are turned.
                tried = _tried(backend, read, ids[-1])
            scored, said = _answer(backend, read, sample, ids, one, tried)
            if found and scored.score != found[0].score:  # full attention's, which comes first
                scored = replace(scored, margin=_margin(read, ids[-1], said))
            results.add(key, asdict(scored))
        held = results[key]
        found.append(Scored(**{**held, "references": tuple(held["references"])}))
    return found


def _answer(
    backend: Backend,
    read: Prefilled,
    sample: Sample,
    ids: Sequence[int],
    one: Configuration,
    tried: Sequence[int],
) -> tuple[Scored, list[int]]:
    """The answer, and all tokens said, one that ends it included."""
    cache = read.cache(one, tried)
    started = perf_counter()
    # A score counts what an answer holds, so that more text cannot lower it.
    said = decode_answer(backend, cache, ids[-1], sample.most, lambda text: sample.score(text) == 100)
    seconds = perf_counter() - started
    retrieval = backend.retrieval(cache)
    scored = Scored(
        task=sample.task,
        length=sample.length,
        index=sample.index,
        configuration=one.name,
        score=sample.score(said.text),
        prediction=said.text,
        references=sample.references,
        tokens=len(ids),
        new_tokens=len(said.ids),
        touched_share=touched_share(retrieval) if retrieval and retrieval.stats()["steps"] else None,
        seconds=seconds,
    )
    return scored, said.ids


def _margin(read: Prefilled, last: int, said: Sequence[int]) -> float | None:
    """By how many nats full attention prefers another token where it first would not go on as `said`."""
    logits: list[Tensor] = []
    read.continued(read.full_cache(), [last, *said[:-1]], logits.append)
    rows = torch.cat(logits)
    behind = rows.amax(1) - rows.gather(1, torch.tensor(said, device=rows.device)[:, None])[:, 0]
    first = behind.nonzero()
    return float(behind[first[0, 0]]) if len(first) else None


def _tried(backend: Backend, read: Prefilled, last: int) -> list[int]:
    return [last, *(token.id for token in generate(backend, read.full_cache(), last, 31))]


def _key(sample: Sample, ids: Sequence[int], one: Configuration) -> str:
    """Everything that an answer depends on beside `about`: the prompt's tokens, the settings, the length of
    the answer."""
    state = [list(ids), sample.references, sample.most, one.state]
    digest = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:12]
    return f"{sample.task} {sample.length} {sample.index} {one.name} {digest}"
