"""What a server measures is what happened, the same for Prometheus, the console and the docs."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families as parsed
from stored import QUESTION, TEXT, model_of

from sakuin import Context, RetrievalConfig
from sakuin.server import problems
from sakuin.server.logs import Requests
from sakuin.server.metrics.metrics import Metrics, Sources
from sakuin.server.metrics.series import INTERVAL_S, LENGTH
from sakuin.server.metrics.table import ASKED_FOR, ENDS, MEASURED, OF_THE_PROCESS, Declared
from sakuin.server.routes.metrics import router
from sakuin.server.scheduler import Scheduler

PAGE = Path(__file__).parents[2] / "docs/metrics.md"
CONFIG = RetrievalConfig(sink=4, recent=16, segment=128, index="sketch")


def app_of(metrics: Metrics) -> FastAPI:
    app = FastAPI()
    app.state.service = SimpleNamespace(metrics=metrics)
    problems.install(app)
    app.include_router(router)

    @app.get("/v1/contexts/{name}")
    async def context(name: str) -> str:
        return name

    app.add_middleware(Requests, measured=metrics.request)
    return app


@pytest.fixture(scope="module")
def asked() -> Iterator[tuple[TestClient, Any]]:
    """A server that has answered one question, by a real model and scheduler, and the answer."""
    context = Context.from_text(*model_of(), TEXT, CONFIG)
    with Scheduler(context.backend) as scheduler:
        metrics = Metrics(
            Sources(
                queue=scheduler.counts,
                turns=lambda: scheduler.turns,
                contexts=lambda: {"open": 1, "stored": 3},
                readings=lambda: {"queued": 0, "reading": 0},
                kv_bytes=lambda: {"device": 1, "disk": 0} | {"host": 4096},
                library_bytes=lambda: 7,
                disk_free=lambda: 10**12,
                model="fox",
                backend="transformers",
            )
        )
        with TestClient(app_of(metrics)) as client:
            start = time.perf_counter()
            moments = list[float]()
            answer = context.ask(QUESTION, 8, stream=lambda _: moments.append(time.perf_counter()))
            metrics.queue(0.002)
            metrics.prefill(answer.tokens - answer.reused_tokens, answer.prefill_s, answer.reused_tokens)
            metrics.first_token(moments[0] - start)
            for before, after in pairwise(moments):
                metrics.per_token(after - before)
            metrics.answered(answer.ended, answer.stats, 0.2)
            client.get("/v1/contexts/secret?key=hidden")
            client.get("/nowhere/secret")
            client.request("BREW", "/metrics")
            yield client, (answer, len(moments), scheduler.turns)


def values(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Samples by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parsed(text)
        for sample in family.samples
    }


def told(metrics: Metrics, name: str, **labels: str) -> float | None:
    return values(metrics.text().decode()).get((name, tuple(sorted(labels.items()))))


def test_prometheus_is_told_what_happened(asked: tuple[TestClient, Any]) -> None:
    client, (answer, pieces, turns) = asked
    reply = client.get("/metrics")
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = values(reply.text)

    def of(name: str, **labels: str) -> float:
        return found[f"sakuin_{name}", tuple(sorted(labels.items()))]

    stats = answer.stats
    assert stats["steps"]
    assert stats["error"] > 0
    assert of("generated_tokens_total") == pieces == of("token_seconds_count") + 1
    assert of("prompt_tokens_total", how="reused") == answer.reused_tokens > 500
    assert of("prompt_tokens_total", how="read") == answer.tokens - answer.reused_tokens > 0
    assert of("coverage_ratio_sum") == pytest.approx(stats["coverage"])
    assert of("touched_ratio_sum") == pytest.approx(stats["touched_share"])
    assert of("estimated_error_ratio_sum") == pytest.approx(stats["error"])
    assert of("touched_bytes_total") == pytest.approx(stats["touched_bytes"] * stats["steps"])
    assert of("support_ratio_bucket", le="0.3") - of("support_ratio_bucket", le="0.1") == 1
    for layer in stats["layers"]:
        number = str(layer["layer"])
        assert of("layer_coverage_ratio_sum", layers=number) == pytest.approx(layer["coverage"])
        assert of("layer_estimated_error_ratio_sum", layers=number) == pytest.approx(layer["error"])
    assert of("answers_total", ended=answer.ended) == 1
    assert of("answers_total", ended="error") == 0
    assert (of("running"), of("waiting"), of("turns_total")) == (0, 0, turns)
    assert of("kv_bytes", where="host") == 4096
    assert of("contexts", state="stored") == 3
    assert of("memory_available_bytes") > 0
    assert of("library_bytes") == 7
    assert found["process_resident_memory_bytes", ()] > 1e7
    assert not [name for name, _ in found if name.endswith("_created")]


def test_requests_are_counted_by_pattern_and_never_by_path(asked: tuple[TestClient, Any]) -> None:
    text = asked[0].get("/metrics").text
    found = values(text)

    def requests(route: str, method: str, status: str) -> float:
        return found["sakuin_requests_total", (("method", method), ("route", route), ("status", status))]

    assert requests("/v1/contexts/{name}", "GET", "200") == 1
    assert requests("unmatched", "GET", "404") == 1
    assert requests("/metrics", "other", "405") == 1  # whoever asks cannot make up series
    assert "secret" not in text
    assert "hidden" not in text
    assert "BREW" not in text


def declared() -> dict[str, Declared]:
    return {one.full_name: one for one in (*MEASURED, *ASKED_FOR)}


def test_all_that_is_declared_is_exported_and_nothing_else(asked: tuple[TestClient, Any]) -> None:
    families = {family.name: family for family in parsed(asked[0].get("/metrics").text)}
    names = {f"sakuin_{one.name}": one for one in declared().values()}
    assert families.keys() == names.keys() | {name.removesuffix("_total") for name in OF_THE_PROCESS}
    for name, one in names.items():
        family = families[name]
        assert (family.type, family.documentation) == (one.kind, one.meaning)
        assert {label for s in family.samples for label in s.labels} - {"le"} == set(one.labels), name


def test_the_page_has_each_metric() -> None:
    page = PAGE.read_text(encoding="utf-8")
    rows = [
        f"| `{name}` | {one.kind} | {', '.join(f'`{label}`' for label in one.labels)} | {one.meaning} |"
        for name, one in declared().items()
    ]
    assert [line for line in page.splitlines() if line.startswith("| `sakuin_")] == rows
    assert set(OF_THE_PROCESS) <= set(page.replace("`", " ").replace(",", " ").split())


# -- what is measured ------------------------------------------------------------------------------------


def test_waiting_times_are_told_from_five_milliseconds_to_a_minute() -> None:
    metrics = Metrics()
    for seconds in (0.004, 0.006, 59, 61):
        metrics.first_token(seconds)
    assert told(metrics, "sakuin_first_token_seconds_bucket", le="0.005") == 1
    assert told(metrics, "sakuin_first_token_seconds_bucket", le="0.01") == 2
    assert told(metrics, "sakuin_first_token_seconds_bucket", le="60.0") == 3
    assert told(metrics, "sakuin_first_token_seconds_bucket", le="+Inf") == 4


def stats_of(numbers: range, error: Callable[[int], float | None], steps: int = 5) -> dict[str, Any]:
    figures = {"coverage": 0.9, "touched_share": 0.1, "seconds": 0.01, "touched_bytes": 10, "steps": steps}
    layers = [{"layer": number, **figures, "error": error(number)} for number in numbers]
    return {**figures, "error": error(0), "layers": layers}


def test_layers_are_told_in_four_groups() -> None:
    metrics = Metrics()
    metrics.answered("stop", stats_of(range(30), lambda number: number / 1000))
    for name, mean in (("0-6", 0.003), ("7-14", 0.0105), ("15-21", 0.018), ("22-29", 0.0255)):
        assert told(metrics, "sakuin_layer_estimated_error_ratio_sum", layers=name) == pytest.approx(mean)
    hybrid = Metrics()
    hybrid.answered("stop", stats_of(range(5, 18, 6), lambda _: None))
    names = ("5", "11", "17")
    assert [told(hybrid, "sakuin_layer_coverage_ratio_count", layers=name) for name in names] == [1, 1, 1]
    assert told(hybrid, "sakuin_layer_estimated_error_ratio_count", layers="5") is None  # it does not know it
    assert told(hybrid, "sakuin_estimated_error_ratio_count") == 0


@pytest.mark.parametrize("stats", [None, {}, stats_of(range(4), lambda _: 0.0, steps=0)])
def test_without_retrieval_nothing_is_told_of_it(stats: dict[str, Any] | None) -> None:
    metrics = Metrics()
    metrics.answered("stop", stats)
    assert told(metrics, "sakuin_answers_total", ended="stop") == 1
    assert told(metrics, "sakuin_coverage_ratio_count") == 0
    assert set(metrics.stats()["series"]["coverage"]) == {None}


@pytest.mark.parametrize("number", [math.nan, math.inf, -1.0])
def test_what_is_no_measurement_spoils_no_sum(number: float) -> None:
    metrics = Metrics()
    for tell in (metrics.first_token, metrics.per_token, metrics.queue):
        tell(number)
        tell(0.5)
    metrics.prefill(10, number)
    for name in ("first_token_seconds", "token_seconds", "queue_seconds"):
        assert told(metrics, f"sakuin_{name}_sum") == 0.5
    assert told(metrics, "sakuin_prefill_rate_count") == 0
    metrics.answered("because", None)
    assert told(metrics, "sakuin_answers_total", ended="error") == 1


def test_many_threads_lose_nothing() -> None:
    metrics = Metrics(clock=lambda: 1000.0)

    def count() -> None:
        for _ in range(2000):
            metrics.per_token(0.25)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told(metrics, "sakuin_token_seconds_sum") == 4000 == 0.25 * 16000
    assert told(metrics, "sakuin_generated_tokens_total") == 16000


def test_servers_in_one_process_measure_for_themselves() -> None:
    one, other = Metrics(), Metrics()
    one.per_token(1)
    assert told(one, "sakuin_token_seconds_count") == 1
    assert told(other, "sakuin_token_seconds_count") == 0
    assert not [family.name for family in REGISTRY.collect() if family.name.startswith("sakuin")]


def test_a_source_that_fails_costs_its_own_figure_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken() -> int:
        raise OSError("the disk is gone")

    metrics = Metrics(Sources(disk_free=broken, library_bytes=lambda: 5))
    with caplog.at_level(logging.ERROR, "sakuin.server.metrics"):
        texts = [metrics.text().decode() for _ in range(3)]
    assert all("sakuin_library_bytes 5" in text and "disk_free" not in text for text in texts)
    assert [record.getMessage() for record in caplog.records] == ["the metric disk_free cannot be told"]


# -- the last minutes ------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 10_000.0

    def __call__(self) -> float:
        return self.now


def test_charts_get_the_last_whole_intervals() -> None:
    clock = Clock()
    metrics = Metrics(Sources(queue=lambda: (2, 5), contexts=lambda: {"open": 1, "stored": 4}), clock)
    metrics.first_token(0.3)
    metrics.per_token(0.1)
    metrics.per_token(0.2)
    metrics.answered("stop", stats_of(range(4), lambda _: 0.01, steps=1) | {"coverage": 0.5})
    metrics.answered("stop", stats_of(range(4), lambda _: 0.01, steps=3))
    assert metrics.stats()["series"]["token_ms"] == [None] * LENGTH  # the interval is not over
    clock.now += INTERVAL_S
    metrics.per_token(9)
    found = metrics.stats()
    series = found.pop("series")
    assert found == {"now": 10_002.0, "interval": 2.0, "running": 2, "waiting": 5, "contexts": 4}
    assert {len(of) for of in series.values()} == {LENGTH}
    last = {name: of[-1] for name, of in series.items() if name != "memory_bytes"}
    assert last == pytest.approx(
        {"first_token_ms": 300, "token_ms": 150, "tokens_per_s": 1.5, "coverage": 0.8, "touched": 0.1}
    )
    assert series["memory_bytes"][-1] > 1e7
    assert {of[-2] for of in series.values()} == {None}  # before it began nothing is known
    clock.now += 2 * INTERVAL_S
    series = metrics.stats()["series"]
    assert series["tokens_per_s"][-3:] == [1.5, 0.5, 0.0]
    assert series["token_ms"][-2:] == [9000, None]


def test_charts_stay_short_and_survive_a_clock_that_is_set() -> None:
    clock = Clock()
    metrics = Metrics(clock=clock)
    for _ in range(3 * LENGTH):
        metrics.per_token(0.1)
        clock.now += INTERVAL_S
    clock.now -= 3600
    metrics.per_token(0.1)
    assert metrics.stats()["now"] == 10_000 + (3 * LENGTH - 1) * INTERVAL_S
    clock.now += 7200
    assert set(metrics.stats()["series"]["token_ms"]) == {None}
    assert len(metrics.series._kept) <= LENGTH + 1


def test_stats_are_told_over_http(asked: tuple[TestClient, Any]) -> None:
    found = asked[0].get("/v1/stats").json()
    assert list(found) == ["now", "interval", "series", "running", "waiting", "contexts"]
    assert (found["running"], found["waiting"], found["contexts"]) == (0, 0, 3)
    bare = TestClient(app_of(Metrics())).get("/v1/stats").json()
    assert (bare["running"], bare["waiting"], bare["contexts"]) == (None, None, None)


def test_memory_is_noted_while_nobody_asks() -> None:
    clock = Clock()
    with Metrics(clock=clock) as metrics:
        ends = time.monotonic() + 60
        while metrics.series._kept[-1].memory is None and time.monotonic() < ends:
            time.sleep(0.05)
        assert metrics.series._kept[-1].memory
    assert metrics._thread is not None
    assert not metrics._thread.is_alive()


def test_ends_are_those_of_answers() -> None:
    from typing import get_args

    from sakuin.context.saying import Ended

    assert set(ENDS) == {*get_args(Ended), "error"}
