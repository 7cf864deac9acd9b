"""What is wrong is said of the field that was sent, also where two disagree or another form of the same is
answered."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from served import Served

USER = [{"role": "user", "content": "Hello."}]
LONG = "word " * 20_000


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/chat/completions", {"messages": USER, "top_logprobs": 5}, "top_logprobs"),
        (
            "/v1/chat/completions",
            {"messages": USER, "max_tokens": 1, "max_completion_tokens": 2},
            "max_tokens",
        ),
        ("/v1/chat/completions", {"messages": USER, "stream_options": {}}, "stream_options"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": LONG}]}, "messages"),
        ("/v1/completions", {"prompt": "a", "best_of": 3}, "best_of"),
        ("/v1/completions", {"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ("/v1/completions", {"prompt": "a", "echo": True, "stream": True}, "echo"),
        ("/v1/responses", {"input": LONG}, "input"),
        (
            "/v1/responses",
            {"input": [{"type": "function_call_output", "call_id": "a", "output": "b"}]},
            "input",
        ),
        ("/v1/count_tokens", {"prompt": "a", "messages": USER}, "messages"),
        ("/tokenize", {"content": LONG}, "content"),
    ],
)
def test_the_field_is_named(tiny_served: Served, path: str, body: dict[str, Any], field: str) -> None:
    answer = tiny_served.post(path, **{"model": "tiny", **body})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, field), error
    assert error["message"].count("\n") == 0


def test_an_upload_in_json_is_taken_strictly(tiny_served: Served) -> None:
    for body, says in (
        ('{"name": "a", "name": "b", "text": "x"}', "name"),
        ('{"name": "a", "text": "x", "pinned": "yes"}', "pinned"),
        ('{"name": "a", "text": NaN}', "text"),
    ):
        headers = {"Content-Type": "application/json"}
        answer = httpx.post(f"{tiny_served.url}/v1/contexts", content=body, headers=headers, timeout=60)
        assert answer.status_code == 400
        assert says in answer.json()["error"]["message"], answer.json()
