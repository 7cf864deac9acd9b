"""The last minutes, interval by interval, for the console's charts.

Sums over all who ask, so that a token costs a few additions. Called by
`sakuin.server.metrics.metrics`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

INTERVAL_S = 2.0
LENGTH = 150
"""Intervals that are kept: five minutes."""


class _Mean:
    """A weighted mean of what was noted."""

    __slots__ = ("sum", "weight")

    def __init__(self) -> None:
        self.sum = self.weight = 0.0

    def add(self, value: float, weight: float = 1.0) -> None:
        self.sum += value * weight
        self.weight += weight

    def mean(self, scale: float = 1.0) -> float | None:
        return scale * self.sum / self.weight if self.weight else None


class _Interval:
    __slots__ = ("coverage", "first", "memory", "number", "token", "tokens", "touched")

    def __init__(self, number: int) -> None:
        self.number = number
        self.first, self.token, self.coverage, self.touched = _Mean(), _Mean(), _Mean(), _Mean()
        self.tokens = 0
        self.memory: int | None = None


class Series:
    """Means and sums of the last intervals. clock : seconds since 1970; where it is set back, the newest
    interval goes on. All methods may be called from any thread."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: deque[_Interval] = deque(maxlen=LENGTH + 1)
        self._first = self._interval().number

    def first_token(self, seconds: float) -> None:
        """An answer's first token came after so many seconds."""
        with self._lock:
            interval = self._interval()
            interval.tokens += 1
            interval.first.add(seconds)

    def token(self, seconds: float) -> None:
        """Another token came after so many seconds."""
        with self._lock:
            interval = self._interval()
            interval.tokens += 1
            interval.token.add(seconds)

    def answer(self, coverage: float, touched: float, steps: int) -> None:
        """An answer of so many steps has ended."""
        with self._lock:
            interval = self._interval()
            interval.coverage.add(coverage, steps)
            interval.touched.add(touched, steps)

    def memory(self, resident: int | None) -> None:
        """The process takes so many bytes now."""
        with self._lock:
            self._interval().memory = resident

    def told(self) -> tuple[float, dict[str, list[float | None]]]:
        """The end of the last whole interval, in seconds since 1970, and what is known of each of
        the last `LENGTH` whole ones, the oldest first. None where nothing is known; in an interval without
        tokens, tokens a second are 0."""
        with self._lock:
            end = self._interval().number
            kept = {interval.number: interval for interval in self._kept}
            wanted = [kept.get(number) or _Interval(number) for number in range(end - LENGTH, end)]
            return end * INTERVAL_S, {
                "first_token_ms": [one.first.mean(1e3) for one in wanted],
                "token_ms": [one.token.mean(1e3) for one in wanted],
                "tokens_per_s": [
                    one.tokens / INTERVAL_S if one.number >= self._first else None for one in wanted
                ],
                "coverage": [one.coverage.mean() for one in wanted],
                "touched": [one.touched.mean() for one in wanted],
                "memory_bytes": [one.memory for one in wanted],
            }

    def _interval(self) -> _Interval:
        """The one that runs. The caller holds the lock."""
        number = int(self._clock() / INTERVAL_S)
        if not self._kept or self._kept[-1].number < number:
            self._kept.append(_Interval(number))
        return self._kept[-1]
