"""The native core reads numbers as they lie: a tensor that means others is refused, never read wrongly."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import sakuin

KINDS = ("sketch", "flat", "ivf", "graph")
ODD: dict[str, Callable[[Tensor], Tensor]] = {
    # What a complex rotation's imaginary part can be: its numbers lie in memory with the other sign.
    "a negative view": lambda x: torch.complex(x, x).conj().imag,
    "sparse_coo": lambda x: x.to_sparse(),
}


def _made() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(*shape, generator=draw) for shape in [(2, 300, 32)] * 2 + [(4, 64, 32), (4, 1, 32)]
    )  # type: ignore[return-value]


@pytest.mark.parametrize("what", ODD)
@pytest.mark.parametrize("kind", KINDS)
def test_tensors_that_mean_other_numbers_are_refused(kind: str, what: str) -> None:
    keys, values, queries, q = _made()
    odd, words = ODD[what], f"must be a plain dense tensor, got {what}"
    index = sakuin.build_index(kind, keys, values, queries=queries)
    for call in (
        lambda: index.search(odd(q), 5),
        lambda: index.attend(odd(q), scaling=0.2),
        lambda: sakuin.build_index(kind, odd(keys), values, queries=queries),
        lambda: sakuin.build_index(kind, keys, odd(values), queries=queries),
        lambda: index.append(odd(keys), values),
    ):
        with pytest.raises(ValueError, match=words):
            call()


@pytest.mark.parametrize("kind", KINDS)
def test_resolved_they_are_what_they_mean(kind: str) -> None:
    keys, values, queries, q = _made()
    index = sakuin.build_index(kind, keys, values, queries=queries)
    odd = ODD["a negative view"](q).resolve_neg()
    assert torch.equal(index.attend(odd, scaling=0.2).out, index.attend(-q, scaling=0.2).out)
