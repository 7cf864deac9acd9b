"""What every kind of index refuses in a sentence, and that it is as it was afterwards."""

from __future__ import annotations

import pytest
import torch
from reference.exact import made

from sakuin.index import build_index
from sakuin.kinds import BUILT_IN

N = 300


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
        (lambda i, q: i.crop(N + 1), "300"),
        (lambda i, q: i.append(q[:2], q[:2, :1]), "one shape"),
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
