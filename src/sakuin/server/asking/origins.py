"""What a prompt is read on from: a context that is named, or whatever the tenant has that begins the same.

Called by the routes that answer, in a thread that may wait.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sakuin.config import RetrievalConfig
from sakuin.context.context import Context
from sakuin.prompts.reading import Reading
from sakuin.server.asking.engine import Engine
from sakuin.server.asking.kept import LEAST, Known
from sakuin.server.asking.prompts import Asked, of_context
from sakuin.server.asking.speaking import Beginning


@dataclass(frozen=True)
class Start:
    """A prompt, and what it is read on from. config : of its cache. held : bytes that a context keeps
    anyway."""

    asked: Asked
    beginning: Beginning
    config: RetrievalConfig
    held: int = 0


def of_named(
    engine: Engine, tenant: str, context: Context, messages: Sequence[dict[str, str]], *, evidence: bool
) -> Start:
    """A question about a context."""
    held, cache, drawn = context.begun()
    asked = of_context(engine.backend, context.prompt, held, context.system, messages)
    # With evidence, the question is asked once more of what is read before it.
    most = asked.asked_at if evidence else len(asked.ids) - 1
    found = engine.kept.longest(tenant, asked.ids, (), most, least=len(held.ids) + LEAST)
    begun = Beginning(cache, len(held.ids)) if found is None else Beginning(*found)
    nbytes = sum(engine.backend.nbytes(cache).values())
    begun = replace(begun, drawn=drawn if evidence else None)
    return Start(asked, begun, context.config or engine.config, nbytes)


def of_any(
    engine: Engine,
    tenant: str,
    asked: Asked,
    contexts: Iterable[Context] = (),
    *,
    evidence: bool = False,
    fresh: bool = False,
) -> Start:
    """A prompt that names no context. contexts : those of the tenant that are open. fresh : read it from its
    beginning, whatever is known."""
    # With evidence, what any question draws is measured where the text ends.
    most = min(len(asked.ids) - 1, asked.based) if evidence else len(asked.ids) - 1
    known = [one for context in contexts if (one := _known(context)) is not None]
    found = None if fresh else engine.kept.longest(tenant, asked.ids, known, most)
    if found is None:
        return Start(asked, Beginning(engine.backend.new_cache(engine.config), 0), engine.config)
    return Start(asked, Beginning(*found), engine.config)


_arrays: weakref.WeakKeyDictionary[Context, tuple[Reading, np.ndarray]] = weakref.WeakKeyDictionary()


def _known(context: Context) -> Known | None:
    """A context as what a prompt may begin with."""
    if context.config is None:
        return None
    reading, cache, windows = context.held()
    kept = _arrays.get(context)
    if kept is None or kept[0] is not reading:
        kept = _arrays[context] = reading, np.asarray(reading.ids, np.int32)
    return Known(kept[1], cache, context.config, windows)
