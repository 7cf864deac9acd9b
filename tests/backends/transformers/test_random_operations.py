"""Random operations on a RetrievalCache beside the same on transformers' own cache: their logits agree."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
from interrupts import interrupted
from tiny import FLAT, close, tiny, tokens
from transformers import DynamicCache

from sakuin import RetrievalCache

ROOMS = ("backends/transformers", "cache", "index", "attention")
FAMILIES = ("llama", "gemma3_text", "gpt_oss", "gemma3n_text")
MOST_ROWS, MOST_TOKENS = 4, 420


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {family: tiny(family) for family in FAMILIES}


class Both:
    """One sequence of operations, on both caches. Some rows of the batch may be padded at their beginning."""

    def __init__(self, model: Any, seed: int) -> None:
        self.model, self.chance = model, random.Random(seed)
        self.ours: Any = RetrievalCache(model.config, FLAT)
        self.theirs: Any = DynamicCache(config=model.config)
        self.drafts = self.chance.random() < 0.5  # else layers with a window cannot go back
        rows = self.chance.choice((1, 1, 2, 3))
        self.mask = torch.ones(rows, 0, dtype=torch.long)
        self.others: list[tuple[Any, Any, torch.Tensor]] = []
        if self.drafts:
            self.ours.activate_past_recording()
            self.theirs.activate_past_recording()
        self.append(self.chance.choice((30, 120, 230)), padded=rows > 1)

    @property
    def rows(self) -> int:
        return self.mask.shape[0]

    @property
    def length(self) -> int:
        return self.mask.shape[1]

    def given(self, n: int, padded: bool = False) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The next n tokens, and the mask over all, with the positions that belong to it."""
        ids = tokens(n, self.rows, seed=self.chance.randrange(1 << 30))
        new = torch.ones(self.rows, n, dtype=torch.long)
        if padded:
            for row in new[1:]:
                row[: self.chance.randrange(n - 1)] = 0
        mask = torch.cat([self.mask, new], 1)
        places = (mask.cumsum(1) - 1).clamp(min=0)[:, -n:]
        return ids, {"attention_mask": mask, "position_ids": places}

    @torch.no_grad()
    def append(self, n: int, padded: bool = False) -> None:
        ids, given = self.given(n, padded)
        got, expected = (self.model(ids, cache=one, **given).logits for one in (self.ours, self.theirs))
        self.mask = given["attention_mask"]
        real = self.mask[:, -n:].bool()
        assert close(got[real], expected[real])
        assert self.ours.get_seq_length() == self.theirs.get_seq_length() == self.length

    def append_some(self) -> None:
        self.append(self.chance.choice((1, 1, 1, 3, 16, 17, 60)))

    def crop(self) -> None:
        n = self.chance.choice((0, 1, 5, 40, self.length))
        n = min(n, self.length, self.length if self.rows == 1 else 20)
        refused = None
        try:
            self.ours.crop(-n)
        except RuntimeError as error:
            refused = error
        if refused is None:
            self.theirs.crop(-n)
            self.mask = self.mask[:, : self.length - n]
        if self.length == 0:
            self.append(50)

    def fork(self) -> None:
        self.others.append((self.ours.fork(), copy.deepcopy(self.theirs), self.mask))

    def change(self) -> None:
        """Go on with another of the forks."""
        if self.others:
            here = self.ours, self.theirs, self.mask
            at = self.chance.randrange(len(self.others))
            (self.ours, self.theirs, self.mask), self.others[at] = self.others[at], here

    def choose(self) -> None:
        """What beam search and its kin do to rows."""
        kind = self.chance.choice(("reorder", "repeat", "select"))
        if kind == "reorder":
            rows = torch.tensor([self.chance.randrange(self.rows) for _ in range(self.rows)])
            for one in (self.ours, self.theirs):
                one.reorder_cache(rows)
            self.mask = self.mask[rows]
        elif kind == "repeat" and 2 * self.rows <= MOST_ROWS:
            for one in (self.ours, self.theirs):
                one.batch_repeat_interleave(2)
            self.mask = self.mask.repeat_interleave(2, 0)
        elif kind == "select" and self.rows > 1:
            rows = torch.tensor(sorted(self.chance.sample(range(self.rows), self.rows - 1)))
            for one in (self.ours, self.theirs):
                one.batch_select_indices(rows)
            self.mask = self.mask[rows]

    @torch.no_grad()
    def refuse(self) -> None:
        """A pass that is refused, of which nothing stays."""
        n = self.chance.choice((1, 7, 40))
        ids, given = self.given(n)
        wrong: list[dict[str, Any]] = [
            {"attention_mask": torch.zeros(self.rows, 1, n, n)},
            {"attention_mask": torch.zeros(self.rows, 1, n, self.length + n, dtype=torch.bool)},
            given | {"head_bias": torch.ones(1)},
        ]
        hidden = given["attention_mask"].clone()
        hidden[0, self.chance.randrange(self.length)] ^= 1
        wrong.append(given | {"attention_mask": hidden})
        with suppress(ValueError, NotImplementedError, RuntimeError):
            self.model(ids, cache=self.ours, **self.chance.choice(wrong))
            raise AssertionError("the pass was not refused")
        assert self.ours.get_seq_length() == self.length

    @torch.no_grad()
    def interrupt(self) -> None:
        """A pass that Ctrl-C ends at some line: all of it stays, or nothing."""
        ids, given = self.given(self.chance.choice((1, 1, 7, 60)))
        line = self.chance.randrange(1, 600)
        interrupted(lambda: self.model(ids, cache=self.ours, **given), line, ROOMS)
        n = self.ours.get_seq_length() - self.length
        assert n in (0, ids.shape[1])
        if n:
            self.model(ids, cache=self.theirs, **given)
            self.mask = given["attention_mask"]
        elif self.chance.random() < 0.5:
            self.append(ids.shape[1])

    def step(self) -> None:
        actions: list[Callable[[], None]] = [self.append_some] * 4
        actions += [self.crop, self.fork, self.change, self.choose, self.refuse, self.interrupt]
        self.chance.choice(actions)()
        if self.length > MOST_TOKENS:
            self.others = []
            for one in (self.ours, self.theirs):
                one.reset()
            self.mask = self.mask[:, :0]
            self.append(100)


def run(model: Any, seed: int, steps: int) -> None:
    both = Both(model, seed)
    for number in range(steps):
        try:
            both.step()
        except BaseException as error:
            error.add_note(f"seed {seed}, step {number}")
            raise
    both.append(2)
    for one in both.others:
        both.ours, both.theirs, both.mask = one
        both.append(1)


@pytest.mark.parametrize("family", FAMILIES)
def test_random_operations_agree_with_transformers_own_cache(models: dict[str, Any], family: str) -> None:
    for seed in range(4):
        run(models[family], seed, 15)


@pytest.mark.slow
def test_500_sequences_of_random_operations_agree_with_transformers_own_cache(models: dict[str, Any]) -> None:
    for seed in range(500):
        run(models[FAMILIES[seed % len(FAMILIES)]], 1000 + seed, 25)
