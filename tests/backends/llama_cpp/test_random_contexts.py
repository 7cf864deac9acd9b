"""Random operations on contexts, by both backends: tokens and cache agree whatever was stopped on its way,
and logits are those of transformers' own cache over the same tokens."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from interrupts import interrupted, some_lines
from stored import CONFIG, MORE, QUESTION, TEXT, WINDOWED, model_of
from tiny_gguf import write
from transformers import DynamicCache

from sakuin import Context, load
from sakuin.backends.llama_cpp import locate
from sakuin.documents import Document
from sakuin.errors import SakuinError

ROOMS = ("context", "backends", "cache", "snapshot", "prompts")
FLAT = CONFIG.with_changes(index="flat")
BY_LLAMA = ("llama.cpp llama", "llama.cpp gemma3", "llama.cpp lfm2")
SHORT = TEXT[:500]


class Case:
    """A model, as the user has it, and the same of transformers, to compare with. limit : of the difference
    of logits, as a share of the largest (llama.cpp keeps windows in fp16)."""

    def __init__(self, model: Any, tokenizer: Any, reference: Any, limit: float) -> None:
        self.model, self.tokenizer, self.reference, self.limit = model, tokenizer, reference, limit

    @torch.no_grad()
    def check(self, context: Context) -> None:
        """Its tokens and its cache agree."""
        backend, ids = context.backend, list(context._reading.ids)
        more = backend.vocabulary.encode(QUESTION).ids
        got = backend.forward(backend.fork(context.cache), more, every=True)
        cache = DynamicCache(config=self.reference.config)
        for part in (ids, more):
            expected = self.reference(torch.tensor([part]), cache=cache).logits[0]
        assert (got - expected).abs().max() <= self.limit * expected.abs().max()
        held = context.cache.n_tokens if backend.name == "llama.cpp" else context.cache.get_seq_length()
        assert held == context.tokens == len(ids)


@pytest.fixture(scope="module", params=["llama", WINDOWED, *BY_LLAMA])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    if not request.param.startswith("llama.cpp"):
        model, tokenizer = model_of(request.param)
        return Case(model, tokenizer, model, 1e-4)
    if not locate.available():
        pytest.skip("there is no llama.cpp here")
    folder: Path = tmp_path_factory.mktemp("models")
    tiny = write(request.param.split()[1], folder)
    model, tokenizer = load(tiny.gguf, dtype="fp32", backend="llama.cpp")
    return Case(model, tokenizer, tiny.model, 5e-3 if "gemma3" in request.param else 1e-3)


class Operations:
    """One sequence of operations on contexts that began as one."""

    def __init__(self, case: Case, seed: int) -> None:
        self.case, self.chance = case, random.Random(seed)
        self.context = Context.from_text(case.model, case.tokenizer, SHORT, FLAT)
        self.others: list[Context] = []

    def text(self) -> str:
        start = self.chance.randrange(len(MORE) - 150)
        return MORE[start : start + self.chance.choice((2, 30, 150))]

    def append(self) -> None:
        self.context.append(self.text())

    def append_a_document(self) -> None:
        before, document = self.context.tokens, Document(f"{self.chance.randrange(3)}.txt", self.text())
        if self.chance.random() < 0.4:
            self.context.append_beside(document)
            return
        try:
            self.context.append(document, replace=self.chance.random() < 0.5)
        except SakuinError:  # it is there and was changed, or a talk was about it
            assert self.context.tokens == before

    def fork(self) -> None:
        self.others.append(self.context.fork())

    def change(self) -> None:
        if self.others:
            at = self.chance.randrange(len(self.others))
            self.context, self.others[at] = self.others[at], self.context

    def ask(self) -> None:
        before = self.context.tokens
        answer = self.context.ask(QUESTION, max_new_tokens=3)
        assert answer.reused_tokens == self.context.tokens == before

    def chat(self) -> None:
        self.context.chat(QUESTION, max_new_tokens=3)

    def stopped_by_progress(self) -> None:
        """An append that its progress stops."""
        left = self.chance.randrange(4)

        def stop(done: int, total: int, phase: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt

        before = self.context.tokens
        try:
            self.context.append(self.text(), stop)
        except KeyboardInterrupt:
            assert self.context.tokens == before

    def stopped_by_its_reader(self) -> None:
        """A chat whose reader goes away."""

        def gone(piece: str) -> None:
            raise BrokenPipeError

        before = self.context.tokens
        try:
            self.context.chat(QUESTION, max_new_tokens=3, stream=gone)
        except BrokenPipeError:
            assert self.context.tokens == before

    def interrupted(self) -> None:
        """An append or a question that Ctrl-C ends at any line."""
        what: list[Callable[[], Any]] = [
            lambda: self.context.append(self.text()),
            lambda: self.context.chat(QUESTION, max_new_tokens=2),
            lambda: self.context.ask(QUESTION, max_new_tokens=2),
            lambda: self.context.fork(),
        ]
        interrupted(self.chance.choice(what), self.chance.randrange(1, 4000), ROOMS)

    def step(self) -> None:
        actions = [self.append, self.append_a_document, self.fork, self.change, self.ask, self.chat]
        actions += [self.stopped_by_progress, self.stopped_by_its_reader, self.interrupted, self.interrupted]
        self.chance.choice(actions)()


def run(case: Case, seed: int, steps: int) -> None:
    operations = Operations(case, seed)
    for number in range(steps):
        try:
            operations.step()
            case.check(operations.context)
        except BaseException as error:
            error.add_note(f"seed {seed}, step {number}")
            raise
    for context in operations.others:
        case.check(context)


def test_random_operations_keep_tokens_and_cache_together(case: Case) -> None:
    for seed in range(2):
        run(case, seed, 6)


@pytest.mark.slow
def test_500_sequences_of_random_operations_keep_tokens_and_cache_together(case: Case) -> None:
    for seed in range(100):  # of each of five models
        run(case, 1000 + seed, 12)


def test_an_append_that_is_interrupted_anywhere_leaves_the_old_context_or_the_new_one(case: Case) -> None:
    base = Context.from_text(case.model, case.tokenizer, SHORT, FLAT)
    for line in some_lines(lambda: base.fork().append(MORE[:80]), ROOMS, 6):
        context = base.fork()
        interrupted(lambda context=context: context.append(MORE[:80]), line, ROOMS)
        assert context._reading.body in (SHORT, SHORT + MORE[:80])
        case.check(context)
