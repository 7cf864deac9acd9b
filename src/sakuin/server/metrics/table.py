"""What is measured: each metric's name, kind, meaning and labels, at one place.

`sakuin.server.metrics.metrics` makes them of this; docs/metrics.md, the board and the alerts are checked
against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["histogram", "counter", "gauge"]

SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60)
"""Bounds of what people wait for: 5 ms to a minute."""
STEP_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)
"""Bounds of what the index takes of a decode step."""
RATES = (10, 25, 50, 100, 200, 400, 800, 1600, 3200, 6400, 12800)
"""Bounds of tokens a second."""
COVERAGES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1)
TOUCHED = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2)
ERRORS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1)
SUPPORTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
"""Bounds of support; 0.3 is the floor below which a text seems not to speak of what was asked."""


@dataclass(frozen=True)
class Declared:
    """A metric.

    name : without the prefix `sakuin_`, and of a counter without `_total`. bounds : upper ones of a
    histogram's buckets.
    """

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def full_name(self) -> str:
        """As it is asked for; a histogram has `_bucket`, `_sum` and `_count` of it."""
        return f"sakuin_{self.name}{'_total' * (self.kind == 'counter')}"


def _histogram(name: str, meaning: str, bounds: tuple[float, ...], *labels: str) -> Declared:
    return Declared(name, "histogram", meaning, labels, bounds)


def _counter(name: str, meaning: str, *labels: str) -> Declared:
    return Declared(name, "counter", meaning, labels)


def _gauge(name: str, meaning: str, *labels: str) -> Declared:
    return Declared(name, "gauge", meaning, labels)


MEASURED = (
    _histogram(
        "first_token_seconds",
        "From a request to the first token of its answer, in seconds.",
        SECONDS,
    ),
    _histogram("token_seconds", "From one token of an answer to the next, in seconds.", SECONDS),
    _histogram("queue_seconds", "What a request waited before it was begun, in seconds.", SECONDS),
    _histogram(
        "prefill_rate", "Tokens a second at which a prompt was read, without those that were reused.", RATES
    ),
    _histogram(
        "request_seconds",
        "From a request to the end of its answer, in seconds, by the route's pattern.",
        SECONDS,
        "route",
    ),
    _counter("requests", "Requests, by the route's pattern, method and status.", "route", "method", "status"),
    _counter("answers", "Answers of the model, by what ended them.", "ended"),
    _counter("generated_tokens", "Tokens that were generated."),
    _counter("prompt_tokens", 'Tokens of prompts: "read" now, or "reused" since they were before.', "how"),
    _histogram(
        "coverage_ratio",
        "Share of the softmax mass attended exactly or from codes, mean of an answer's steps.",
        COVERAGES,
    ),
    _histogram(
        "touched_ratio",
        "What was read of index and offloaded keys and values, over these at 2 bytes a number, by answer.",
        TOUCHED,
    ),
    _histogram(
        "estimated_error_ratio",
        "Relative error of the attention output as the index estimates it, mean of an answer's steps.",
        ERRORS,
    ),
    _histogram("support_ratio", "How much an answer looked up in the text; below 0.3 is little.", SUPPORTS),
    _histogram(
        "layer_coverage_ratio", "Coverage of a quarter of the layers, by answer.", COVERAGES, "layers"
    ),
    _histogram(
        "layer_touched_ratio", "Touched share of a quarter of the layers, by answer.", TOUCHED, "layers"
    ),
    _histogram(
        "layer_estimated_error_ratio",
        "Estimated error of a quarter of the layers, by answer.",
        ERRORS,
        "layers",
    ),
    _histogram(
        "index_step_seconds",
        "What all layers' indexes take of a decode step, in seconds, mean of an answer's steps.",
        STEP_SECONDS,
    ),
    _counter("touched_bytes", "Bytes that decode steps read of indexes, keys and values."),
)
"""What is noted when it happens."""

ASKED_FOR = (
    _gauge("running", "Requests that are computed now, in one batch."),
    _gauge("waiting", "Requests that wait for their turn."),
    _counter("turns", "Passes of the model that the scheduler has run."),
    _gauge("contexts", 'Contexts: "open" in memory, and "stored".', "state"),
    _gauge("readings", 'Uploads: "queued", and "reading" now.', "state"),
    _gauge("kv_bytes", 'Bytes of keys, values and indexes, on "device", "host" and "disk".', "where"),
    _gauge("library_bytes", "Bytes of stored contexts."),
    _gauge("disk_free_bytes", "Bytes that are free where contexts are stored."),
    _gauge("memory_available_bytes", "Bytes that this process may still take, by machine and container."),
    _gauge("info", "1, with what runs.", "version", "model", "backend"),
)
"""What is asked for when somebody reads the metrics; what the server cannot tell is left out."""

OF_THE_PROCESS = (
    "process_virtual_memory_bytes",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_max_fds",
)
"""Names that Prometheus' own library gives, on Linux."""

ENDS = ("stop", "stop string", "length", "window", "loop", "interrupted", "error")
"""Why answers end: as `sakuin.context.answer.Answer.ended` says, or by an error."""
