"""The decode steps of one sequence that need no Python.

Called by `sakuin.cache.sequence`.
"""

from __future__ import annotations

from dataclasses import dataclass

from sakuin.index import _native
from sakuin.index.base import Index, Pair


@dataclass(frozen=True)
class _Made:
    """Steps, if there are such, and what they were made of."""

    index: Index
    memory: Pair
    start: int
    steps: _native.SketchSteps | None


class NativeSteps:
    """They are made once, and anew where the index or its memory is another."""

    def __init__(self) -> None:
        self._made: _Made | None = None
        self._spent: list[tuple[float, ...]] = []  # by those that were made before

    def steps(self, index: Index, before: Pair, memory: Pair, start: int) -> _native.SketchSteps | None:
        """Steps that attend over keys and values `(n_kv_heads, n, head_dim)`: `before` the index, the index,
        and `memory` from `start` on, where they put what is new. None where there are no such steps."""
        made = self._made
        if made is None or made.index is not index or made.memory[0] is not memory[0] or made.start != start:
            self.forget()
            on_cpu = memory[0].device.type == "cpu"
            steps = index.native_steps(before, memory, start) if on_cpu else None
            self._made = made = _Made(index, memory, start, steps)
        return made.steps

    def take_sums(self) -> list[tuple[float, ...]]:
        """What they spent since the last call, as `SketchSteps.sums` gives it."""
        if self._made is not None and self._made.steps is not None:
            self._spent.append(self._made.steps.sums())
        spent, self._spent = self._spent, []
        return spent

    def forget(self) -> None:
        """The sink tokens may be others from now on."""
        self._spent = self.take_sums()
        self._made = None
