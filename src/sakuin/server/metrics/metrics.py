"""What a server measures of itself, for Prometheus and for the console.

What happens often is a few additions: the scheduler's thread calls `per_token` for every token. What an
answer's cache knows is taken up once, when the answer has ended. Sizes are asked for when somebody reads
them. Called by whoever answers requests, and by `sakuin.server.routes.metrics`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from resource import getpagesize
from typing import Any, Self

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from sakuin.machine.memory import available
from sakuin.server.metrics.series import INTERVAL_S, Series
from sakuin.server.metrics.table import ASKED_FOR, ENDS, MEASURED, Declared
from sakuin.version import __version__

log = logging.getLogger("sakuin.server.metrics")

_GROUPS = 4
"""Groups of layers, however many there are."""
_MOST = 1e12
"""What is more, and NaN, is no measurement, and would spoil a sum for ever."""
_METHODS = ("GET", "POST", "DELETE", "PATCH", "PUT", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class Sources:
    """What a server can say of its state, each by a function that may be called from any thread; None is
    not known, and is left out.

    queue : requests that are computed and that wait, as `Scheduler.counts`. turns : passes so far.
    contexts : how many are "open" and "stored". readings : uploads that are "queued" and "reading".
    kv_bytes : of open caches on "device", "host" and "disk", as `WholeCache.nbytes`. library_bytes : of
    stored contexts. disk_free : bytes where they are stored. model, backend : names.
    """

    queue: Callable[[], tuple[int, int]] | None = None
    turns: Callable[[], int] | None = None
    contexts: Callable[[], Mapping[str, int]] | None = None
    readings: Callable[[], Mapping[str, int]] | None = None
    kv_bytes: Callable[[], Mapping[str, int]] | None = None
    library_bytes: Callable[[], int] | None = None
    disk_free: Callable[[], int] | None = None
    memory_available: Callable[[], int] | None = field(default=lambda: available().bytes)
    model: str = ""
    backend: str = ""


class Metrics:
    """All that is measured. `with Metrics(sources) as metrics:` also notes the process's memory as time goes
    by; without, it is noted when somebody asks. All methods may be called from any thread, and what they are
    told never raises: a number that is none is left out."""

    def __init__(self, sources: Sources | None = None, clock: Callable[[], float] = time.time) -> None:
        self.sources = sources or Sources()
        self.series = Series(clock)
        self._registry = CollectorRegistry()
        self._made: dict[str, Any] = {one.name: self._make(one) for one in MEASURED}
        self._first, self._token = self._made["first_token_seconds"], self._made["token_seconds"]
        self._tokens = self._made["generated_tokens"]
        ProcessCollector(registry=self._registry)
        for ended in ENDS:  # a rate is known from the first one on only where 0 was told before
            self._made["answers"].labels(ended)
        for how in ("read", "reused"):
            self._made["prompt_tokens"].labels(how)
        self._named: dict[tuple[int, ...], list[tuple[str, tuple[int, ...]]]] = {}
        self._failed: set[str] = set()
        self._ends = threading.Event()
        self._thread: threading.Thread | None = None

    def _make(self, one: Declared) -> Histogram | Counter:
        name = f"sakuin_{one.name}"
        if one.kind == "counter":
            return Counter(name, one.meaning, one.labels, registry=self._registry)
        return Histogram(name, one.meaning, one.labels, registry=self._registry, buckets=one.bounds)

    def __enter__(self) -> Self:
        self._ends.clear()
        self._thread = threading.Thread(target=self._watch, name="sakuin metrics", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        while not self._ends.wait(INTERVAL_S / 2):
            self.series.memory(resident_bytes())

    # -- what happens ----------------------------------------------------------------------------------------

    def queue(self, seconds: float) -> None:
        """A request was begun that had waited so long (`Job.waited`)."""
        self._observe("queue_seconds", seconds)

    def prefill(self, tokens: int, seconds: float, reused: int = 0) -> None:
        """A prompt stands: so many tokens were read in so many seconds, so many were reused."""
        self._made["prompt_tokens"].labels("read").inc(max(tokens, 0))
        self._made["prompt_tokens"].labels("reused").inc(max(reused, 0))
        if tokens > 0 and 0 < seconds < _MOST:
            self._observe("prefill_rate", tokens / seconds)

    def first_token(self, seconds: float) -> None:
        """An answer's first token came so long after its request."""
        if 0 <= seconds < _MOST:
            self._first.observe(seconds)
            self._tokens.inc()
            self.series.first_token(seconds)

    def per_token(self, seconds: float) -> None:
        """Another token of an answer came so long after the one before."""
        if 0 <= seconds < _MOST:
            self._token.observe(seconds)
            self._tokens.inc()
            self.series.token(seconds)

    def answered(
        self, ended: str, stats: Mapping[str, Any] | None = None, support: float | None = None
    ) -> None:
        """An answer has ended.

        ended : one of `ENDS`; others are counted as "error". stats : of its own cache, as `WholeCache.stats`
        says; empty with full attention. support : as `Answer.support`.
        """
        self._made["answers"].labels(ended if ended in ENDS else "error").inc()
        if support is not None:
            self._observe("support_ratio", support)
        if not stats or not stats["steps"]:  # nothing went through an index
            return
        self._observe("coverage_ratio", stats["coverage"])
        self._observe("touched_ratio", stats["touched_share"])
        self._observe("estimated_error_ratio", stats["error"])
        self._observe("index_step_seconds", stats["seconds"])
        self._made["touched_bytes"].inc(max(stats["touched_bytes"] * stats["steps"], 0))
        self.series.answer(stats["coverage"], stats["touched_share"], stats["steps"])
        self._layers(stats["layers"])

    def _layers(self, layers: Sequence[Mapping[str, Any]]) -> None:
        """Means of each group of layers."""
        by_number = {layer["layer"]: layer for layer in layers}
        for name, numbers in self._groups(tuple(by_number)):
            for metric, of in (
                ("layer_coverage_ratio", "coverage"),
                ("layer_touched_ratio", "touched_share"),
                ("layer_estimated_error_ratio", "error"),
            ):
                steps = [by_number[number] for number in numbers if by_number[number]["steps"]]
                known = [layer[of] for layer in steps if layer[of] is not None]
                self._observe(metric, sum(known) / len(known) if known else None, name)

    def _groups(self, numbers: tuple[int, ...]) -> list[tuple[str, tuple[int, ...]]]:
        """The layers in four groups as even as can be, each with its name: "0-7"."""
        found = self._named.get(numbers)
        if found is None:
            edges = [len(numbers) * i // _GROUPS for i in range(_GROUPS + 1)]
            parts = [numbers[start:end] for start, end in pairwise(edges) if start < end]
            found = [(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}", part) for part in parts]
            self._named[numbers] = found
        return found

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered. route : its pattern, never its path."""
        method = method if method in _METHODS else "other"
        self._made["requests"].labels(route, method, str(status)).inc()
        self._observe("request_seconds", seconds, route)

    def _observe(self, name: str, value: float | None, *labels: str) -> None:
        if value is not None and 0 <= value < _MOST:
            metric = self._made[name]
            (metric.labels(*labels) if labels else metric).observe(value)

    # -- what is told ----------------------------------------------------------------------------------------

    def text(self) -> bytes:
        """All of it in Prometheus' text format, version 0.0.4."""
        return generate_latest(self)  # it is asked to collect

    def collect(self) -> Iterator[Metric]:
        """All of it, as a collector of prometheus-client gives it; for a registry of your own."""
        for metric in self._registry.collect():
            # When each series began is noise: in this format it doubles the counters.
            metric.samples = [one for one in metric.samples if not one.name.endswith("_created")]
            yield metric
        state = self._state()
        for one in ASKED_FOR:
            if one.name in state:
                yield _family(one, state[one.name])

    def _state(self) -> dict[str, Iterable[tuple[tuple[str, ...], float]]]:
        """What the sources say, by metric: labels and values."""
        sources = self.sources
        queue = self._asked("queue", sources.queue)
        found: dict[str, Any] = {"running": queue and queue[0], "waiting": queue and queue[1]}
        found |= {
            "turns": self._asked("turns", sources.turns),
            "contexts": self._asked("contexts", sources.contexts),
            "readings": self._asked("readings", sources.readings),
            "kv_bytes": self._asked("kv_bytes", sources.kv_bytes),
            "library_bytes": self._asked("library_bytes", sources.library_bytes),
            "disk_free_bytes": self._asked("disk_free", sources.disk_free),
            "memory_available_bytes": self._asked("memory_available", sources.memory_available),
        }
        told: dict[str, Iterable[tuple[tuple[str, ...], float]]] = {
            "info": [((__version__, sources.model, sources.backend), 1)]
        }
        for name, value in found.items():
            if isinstance(value, Mapping):
                told[name] = [((label,), of) for label, of in value.items()]
            elif value is not None:
                told[name] = [((), value)]
        return told

    def _asked(self, name: str, source: Callable[[], Any] | None) -> Any:
        """What a source says; None where there is none, and where it fails, which is logged once."""
        if source is None:
            return None
        try:
            return source()
        except Exception as error:  # a figure that is missing stops nobody
            if name not in self._failed:
                self._failed.add(name)
                log.error("the metric %s cannot be told", name, exc_info=error)
            return None

    def stats(self) -> dict[str, Any]:
        """For the console's charts: {"now", "interval", "series", "running", "waiting", "contexts"}."""
        self.series.memory(resident_bytes())
        now, series = self.series.told()
        running, waiting = self._asked("queue", self.sources.queue) or (None, None)
        contexts = self._asked("contexts", self.sources.contexts) or {}
        return {
            "now": now,
            "interval": INTERVAL_S,
            "series": series,
            "running": running,
            "waiting": waiting,
            "contexts": contexts.get("stored"),
        }


def _family(one: Declared, values: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    kind = CounterMetricFamily if one.kind == "counter" else GaugeMetricFamily
    family = kind(f"sakuin_{one.name}", one.meaning, labels=one.labels)
    for labels, value in values:
        family.add_metric(labels, value)
    return family


def resident_bytes(statm: Path = Path("/proc/self/statm")) -> int | None:
    """Bytes of memory that this process takes; None where the system does not say."""
    try:
        return int(statm.read_text().split()[1]) * getpagesize()
    except (OSError, ValueError, IndexError):
        return None
