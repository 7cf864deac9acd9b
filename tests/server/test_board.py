"""The board for Grafana and the alerts for Prometheus are whole, and ask for what a server exports."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families as parsed

from sakuin.server.metrics import metrics as room
from sakuin.server.metrics.metrics import Metrics, Sources

FOLDER = Path(room.__file__).parent
PAGE = Path(__file__).parents[2] / "docs/metrics.md"


@cache
def exported() -> dict[str, list[dict[str, str]]]:
    """The labels of each sample by its name, of a server that has answered one request and knows all."""
    metrics = Metrics(
        Sources(
            queue=lambda: (1, 0),
            turns=lambda: 1,
            contexts=lambda: {"open": 1, "stored": 1},
            readings=lambda: {"queued": 0, "reading": 0},
            kv_bytes=lambda: {"device": 1, "host": 1, "disk": 1},
            library_bytes=lambda: 1,
            disk_free=lambda: 1,
        )
    )
    figures = {
        "coverage": 1,
        "touched_share": 0.1,
        "error": 0.1,
        "seconds": 0.1,
        "touched_bytes": 1,
        "steps": 1,
    }
    metrics.answered("stop", figures | {"layers": [{"layer": 0, **figures}]}, 1)
    metrics.request("/v1/models", "GET", 200, 0.1)
    found: dict[str, list[dict[str, str]]] = {"up": [{}]}  # which is Prometheus' own
    for family in parsed(metrics.text().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def board() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "board.json").read_text(encoding="utf-8"))
    return found


def panels() -> list[dict[str, Any]]:
    return [panel for panel in board()["panels"] if panel["type"] != "row"]


def alerts() -> list[dict[str, Any]]:
    found = yaml.safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))
    return [rule for group in found["groups"] for rule in group["rules"]]


def expressions() -> list[str]:
    shown = [target["expr"] for panel in panels() for target in panel["targets"]]
    of_variables = [
        variable["definition"].removeprefix("label_values(").rpartition(",")[0]
        for variable in board()["templating"]["list"]
        if variable["type"] == "query"
    ]
    return [*shown, *of_variables, *(rule["expr"] for rule in alerts())]


OF_PROMETHEUS = {"job", "instance"}
"""Labels that Prometheus adds."""


def selected(node: Any) -> Iterator[Any]:
    """The selectors in an expression, and the labels by which it groups or matches."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    elif isinstance(node, promql_parser.MatrixSelector):
        yield node.vector_selector
    for name in ("expr", "lhs", "rhs"):
        if getattr(node, name, None) is not None:
            yield from selected(getattr(node, name))
    for argument in getattr(node, "args", ()):
        yield from selected(argument)


def grouped(node: Any) -> Iterator[tuple[Any, set[str]]]:
    """What is aggregated, and by which labels."""
    if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
        yield node.expr, set(node.modifier.labels)
    for name in ("expr", "lhs", "rhs"):
        if getattr(node, name, None) is not None:
            yield from grouped(getattr(node, name))
    for argument in getattr(node, "args", ()):
        yield from grouped(argument)


@pytest.mark.parametrize("expression", expressions())
def test_board_and_alerts_ask_for_what_is_exported(expression: str) -> None:
    by_name = exported()
    tree = promql_parser.parse(expression.replace("$__rate_interval", "1m"))
    found = list(selected(tree))
    assert found
    for selector in found:
        assert selector.name in by_name, selector.name
        labels = by_name[selector.name]
        for matcher in selector.matchers.matchers:
            if matcher.name in OF_PROMETHEUS:
                continue
            assert matcher.name in labels[0], f"{selector.name} has no label {matcher.name}"
            if matcher.name in ("le", "ended", "how"):  # all of whose values are known
                assert matcher.value in {each[matcher.name] for each in labels}
    for aggregated, wanted in grouped(tree):
        (name,) = {selector.name for selector in selected(aggregated)}
        assert wanted - OF_PROMETHEUS <= set(by_name[name][0]), f"{name} has not all of {wanted}"


def test_what_is_no_query_is_told_apart() -> None:
    with pytest.raises(ValueError, match="invalid promql query"):
        promql_parser.parse("sum by (le (rate(sakuin_turns_total[5m])))")


def test_the_board_is_whole() -> None:
    found = board()
    everything = found["panels"]
    assert found["schemaVersion"] == 42
    assert len({panel["id"] for panel in everything}) == len(everything) > 20
    taken = set[tuple[int, int]]()
    for panel in everything:
        at = panel["gridPos"]
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells
    variables = {variable["name"]: variable for variable in found["templating"]["list"]}
    assert variables["datasource"]["query"] == "prometheus"
    for panel in panels():
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert all('job=~"$job", instance=~"$instance"' in target["expr"] for target in panel["targets"])


def test_alerts_speak_of_what_they_watch() -> None:
    rules = {rule["alert"]: rule for rule in alerts()}
    assert len(rules) == len(alerts()) >= 8
    for rule in rules.values():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["for"]
        assert rule["annotations"]["summary"].endswith(".")
        assert "$labels.instance" in str(rule["annotations"])
    watched = " ".join(rule["expr"] for rule in rules.values())
    for name in ("first_token_seconds", "queue_seconds", "requests_total", "memory", "estimated_error"):
        assert name in watched


def test_the_page_has_each_alert() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"^\| `(Sakuin\w+)` ", page, re.MULTILINE) == [rule["alert"] for rule in alerts()]
