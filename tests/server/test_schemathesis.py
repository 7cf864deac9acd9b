"""schemathesis over the description of the API: what it says may be sent and answered, and what it does not.

Each address gets its share of the examples, valid ones and broken ones; no answer may be a 5xx, have a status
or a content type that is not described, or a form other than what is described.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from whole_server import Whole, add, whole

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with whole(tmp_path_factory.mktemp("library"), body_s=5.0) as found:
        with found.client() as client:
            add(client, "fox")
        yield found


def examine(server: Whole, each: int) -> Counter[int]:
    """So many examples of each address; how often which status was answered."""
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    seen: Counter[int] = Counter()
    how = settings(
        max_examples=each,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @given(case=operation.as_strategy(generation_mode=mode))
            @how
            def one(case: Any) -> None:
                bounded(case)
                # Whoever watches what is read gets an answer that ends with it; a stream is no JSON.
                answer = case.call(base_url=server.url, timeout=120)
                seen[answer.status_code] += 1
                case.validate_response(answer, checks=CHECKS)

            with suppress(Unsatisfiable):  # an address that takes nothing can be sent nothing wrong
                one()
            assert server.failed == [], (operation.label, server.failed)
    return seen


def bounded(case: Any) -> None:
    """A case that takes no minute: a tiny model says thousands of tokens where nothing bounds them."""
    if not isinstance(case.body, dict):
        return
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        if isinstance(case.body.get(name), int) and case.body[name] > 4:
            case.body[name] = 4
    if "model" in case.body and "messages" in case.body and "max_tokens" not in case.body:
        case.body.setdefault("max_completion_tokens", 2)
    if isinstance(case.body.get("model"), str) and len(case.body["model"]) % 3:
        case.body["model"] = "tiny@fox" if len(case.body["model"]) % 3 == 2 else "tiny"


def test_the_api_is_what_it_says(server: Whole) -> None:
    seen = examine(server, 3)
    assert seen[200] > 5
    assert seen[400] > 10
    print(dict(seen))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_api_is_what_it_says_in_ten_thousand_examples(server: Whole) -> None:
    seen = examine(server, 300)
    print(dict(seen))
    assert seen.total() >= 10_000
