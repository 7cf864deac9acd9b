"""What every kind of index refuses in a sentence, and that it is as it was afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from reference.exact import made

from sakuin import merge
from sakuin.index import build_index
from sakuin.kinds import BUILT_IN

N = 300
PAIR = (torch.ones(2, 128, 16), torch.ones(2, 128, 16))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda i, q: i.attend(q, scaling=1.0, tolerance=-1.0), "tolerance"),
        (lambda i, q: i.attend(q, scaling=1.0, tolerance=float("nan")), "tolerance"),
        (lambda i, q: i.attend(q[:5], scaling=1.0), "6 heads|multiple of the index's 2 heads"),
        (lambda i, q: i.attend(q[..., :63], scaling=1.0), "head_dim 64"),
        (lambda i, q: i.attend(q.int(), scaling=1.0), "float32"),
        (lambda i, q: i.attend(q, scaling=float("nan")), "scaling"),
        (lambda i, q: i.attend(q, scaling=1.0, softcap=0.0), "softcap"),
        (lambda i, q: i.attend(q, scaling=1.0, static_lse=torch.zeros(6)), "static_lse"),
        (lambda i, q: i.attend(q, scaling=1.0, mass=torch.zeros(2, 5)), "mass"),
        (lambda i, q: i.search(q, 0), "k must"),
        (lambda i, q: i.search(q, N + 1), "300"),
        (lambda i, q: i.search(q, True), "k must"),
        (lambda i, q: i.search(q, "all"), "k must"),
        (lambda i, q: i.search(5, 1), "q must be a torch tensor"),
        (lambda i, q: i.attend(None, scaling=1.0), "q must be a torch tensor"),
        (lambda i, q: i.attend(q, scaling=1.0, tolerance="fine"), "tolerance"),
        (lambda i, q: i.attend(q, scaling="x"), "scaling"),
        (lambda i, q: i.attend(q, scaling=1.0, softcap="x"), "softcap"),
        (lambda i, q: i.attend(q, scaling=1.0, static_lse=5), "static_lse"),
        (lambda i, q: i.attend(q, scaling=1.0, mass=5), "mass"),
        (lambda i, q: i.crop("all"), "300"),
        (lambda i, q: i.append(5, 5), "keys|one shape"),
        (lambda i, q: i.crop(N + 1), "300"),
        (lambda i, q: i.append(q[:2], q[:2, :1]), "the same heads and tokens"),
        (lambda i, q: i.append(q[:2] * torch.nan, q[:2]), "NaN"),
        (lambda i, q: i.append(q[:2], q[:2] * torch.inf), "infinit|NaN"),
    ],
)
@pytest.mark.parametrize("kind", BUILT_IN)
def test_bad_input_is_refused_in_a_sentence_that_names_it(kind, call, words):
    data = made(N)
    index = build_index(kind, data.keys, data.values, queries=data.queries, group_size=3, segment=256)
    with pytest.raises((ValueError, TypeError), match=words):
        call(index, data.q)
    assert index.n_tokens == N


@pytest.mark.parametrize("kind", ["ivf", "sketch"])
def test_keys_that_overflow_what_is_reckoned_of_them_are_refused(kind):
    data = made(N)
    index = build_index(kind, data.keys, data.values, queries=data.queries, group_size=3, segment=256)
    with pytest.raises(ValueError, match="too large"):
        index.append(data.q[:2] * 1e30, data.q[:2])
    assert index.n_tokens == N


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda index: index.search(torch.zeros(2, 1, 16), True), "k must be a whole number"),
        (lambda index: index.search(torch.zeros(2, 1, 16), "all"), "k must be a whole number"),
        (lambda index: index.search(torch.zeros(2, 1, 16), 1.0), "k must be a whole number"),
        (lambda index: index.crop("all"), "crop takes"),
        (lambda index: index.crop(-1), "crop takes"),
        (lambda index: index.crop(1.5), "crop takes"),
        (lambda index: merge(5), "merge takes a list of PartialAttention"),
        (lambda index: merge([5]), "merge takes a list of PartialAttention"),
        (lambda index: build_index(5, *PAIR), "kind must be one of"),
        (lambda index: build_index(["flat"], *PAIR), "kind must be one of"),
        (lambda index: build_index("flat", 5, PAIR[1]), "keys must be a torch tensor, got int"),
        (lambda index: build_index("flat", PAIR[0].numpy(), PAIR[1]), "keys must be a torch tensor"),
        (lambda index: build_index("flat", *PAIR, group_size=True), "group_size must be a whole number"),
        (lambda index: build_index("flat", *PAIR, group_size=0), "group_size must be a whole number"),
    ],
)
def test_arguments_that_are_none_are_refused(call: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        call(build_index("flat", *PAIR))


def test_numbers_of_numpy_are_numbers() -> None:
    index = build_index("flat", *PAIR, group_size=np.int64(2), segment=np.int32(64))
    scores, ids = index.search(torch.ones(4, 1, 16), np.int64(3))
    assert scores.shape == ids.shape == (4, 1, 3)
