"""A cache that holds the first tokens of another: what a context goes on from when a document in the middle
of it is replaced or removed.

Layers with an index can go back to any token. Layers without one (sliding windows, recurrent states) only to
where their state was kept, about every `sakuin.snapshot.parts.CHECKPOINT` tokens. Called by
`sakuin.context.context`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sakuin.backends.base import Backend
from sakuin.config import RetrievalConfig
from sakuin.snapshot.part import Part
from sakuin.snapshot.parts import all_parts, restored_cache


@dataclass(frozen=True)
class Beginning:
    """A cache with the first `n_tokens` tokens, and the windows kept on the way.

    as_read : so many of them are as a fresh reading would have them, segments and all. goes_on : so is what
    comes next; else it is not shared with other contexts.
    """

    cache: Any
    n_tokens: int
    windows: list[Part]
    as_read: int
    goes_on: bool = True


def beginning(
    backend: Backend, config: RetrievalConfig | None, cache: Any, windows: Sequence[Part], n_tokens: int
) -> Beginning:
    """The longest beginning of `cache`, which stays as it is, of at most `n_tokens` tokens.

    windows : the states that were kept. With full attention, and where no state was kept so early, it has no
    tokens, and all is read anew.
    """
    done = n_tokens
    if backend.retrieval(cache) is None or config is None:
        done = 0
    elif backend.shape.has_windows:
        done = max((part.end for part in windows if part.end <= n_tokens), default=0)
    if not done:
        return Beginning(backend.new_cache(config), 0, [], 0)
    assert config is not None
    fork = backend.fork(cache)
    whole = backend.retrieval(fork)
    assert whole is not None
    sealed = whole.sealed_end()
    for layer in whole.layers.values():
        layer.crop(done)
    parts = [part for part in all_parts(backend, fork, done) if part.kind != "window"]
    end = whole.sealed_end()
    if done < sealed and done == end:
        parts = [part for part in parts if part.kind != "tail"]  # which holds nothing but what came after
    # Where a segment is cut, what an index knows of the queries so far stays, also of those that are gone: it
    # is what the model asks for in such a text, and a segment sealed anew would else have few to be made by.
    cut = end < done < sealed
    as_read = (end or min(config.sink, done)) if cut else done
    kept = [part for part in windows if part.end <= done]
    last = [part for part in kept if part.end == done]
    return Beginning(restored_cache(backend, config, [*parts, *last], done), done, kept, as_read, not cut)
