"""`sakuin.Client`: contexts and questions from Python, without torch; what goes wrong is a sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from contexts_app import Held, served
from fastapi import Request
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from stored import MORE, QUESTION, TEXT

from sakuin import Client
from sakuin.client import Reply, ServerError
from sakuin.errors import SakuinError
from sakuin.server.problems import problem_of
from sakuin.server.tenants.tenant import Tenant


def add_chat(held: Held) -> None:
    """As much of the chat's routes as the client needs, over the real contexts."""

    @held.app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"data": [{"id": "tiny@fox"}, {"id": "tiny"}]}

    @held.app.post("/v1/chat/completions")
    async def chat(request: Request) -> Any:
        asked = await request.json()
        assert asked["model"] == "tiny"
        question = asked["messages"][0]["content"]
        try:
            context = await run_in_threadpool(held.shelves.of(Tenant()).open, asked["context"])
        except SakuinError as error:
            return problem_of(error).response()
        answer = await run_in_threadpool(context.ask, question, asked.get("max_tokens", 8))
        passages = [
            {"document": s.file, "text": s.text, "weight": s.weight, "start": s.start, "end": s.end, "new": 1}
            for s in answer.evidence
        ]
        told = {"evidence": passages, "support": answer.support, "supported": True}
        usage = {"prompt_tokens": answer.tokens, "completion_tokens": answer.new_tokens}
        if not asked.get("stream"):
            message = {"role": "assistant", "content": answer.text}
            whole = {"choices": [{"message": message, "finish_reason": "length"}], "usage": usage}
            return JSONResponse(whole | told)

        async def chunks() -> Any:
            yield ": prefill 1024/7456\n\n"
            for piece in answer.text:
                yield f"data: {json.dumps({'choices': [{'delta': {'content': piece}}]})}\n\n"
            if question == "Fail.":
                yield 'data: {"error": {"message": "The server is going down.", "code": "closing"}}\n\n'
            yield f"data: {json.dumps({'choices': [{'delta': {}, 'finish_reason': 'length'}]} | told)}\n\n"
            yield f"data: {json.dumps({'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n"

        return StreamingResponse(chunks(), media_type="text/event-stream")


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with served(tmp_path / "library") as (held, http):
        add_chat(held)
        with Client(str(http.base_url)) as found:
            yield found


def test_contexts_come_grow_change_and_go(client: Client, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "b.md").write_text("# Hours\n\nFrom nine to five.\n")
    seen: list[dict[str, Any]] = []
    found = client.contexts.add("fox", [tmp_path / "a.txt", tmp_path / "b.md"], progress=seen.append)
    assert (found["status"], found["id"]) == ("ready", "fox")
    assert seen[-1] == found
    assert [one["name"] for one in client.contexts.text("fox")] == ["a.txt", "b.md"]
    more = client.contexts.add(text=TEXT, pinned=True, keep_for=60, wait=False)
    assert client.contexts.wait(more["id"])["pinned"]
    assert [one["id"] for one in client.contexts.list()] == sorted(["fox", more["id"]])
    assert client.contexts.append("fox", text=MORE)["tokens"] > found["tokens"]
    assert client.contexts.update(more["id"], name="other", keep_for=None)["kept_until"] is None
    client.contexts.delete("other")
    assert client.contexts.get("fox")["askable"]
    with pytest.raises(ServerError, match="no context 'other'") as caught:
        client.contexts.get("other")
    assert (caught.value.status, caught.value.code) == (404, "context_not_found")


def test_a_question_is_answered_with_its_evidence(client: Client) -> None:
    client.contexts.add("fox", text=TEXT)
    pieces: list[str] = []
    whole = client.ask("fox", QUESTION, max_tokens=8)
    assert isinstance(whole, Reply)
    assert client.ask("fox", QUESTION, max_tokens=8, stream=pieces.append) == whole
    assert "".join(pieces) == whole.text
    assert whole.evidence
    assert TEXT[whole.evidence[0].start : whole.evidence[0].end] == whole.evidence[0].text
    assert (whole.ended, whole.supported, whole.usage["completion_tokens"]) == ("length", True, 8)
    for stream in (None, pieces.append):
        with pytest.raises(ServerError, match="no context 'nobody'"):
            client.ask("nobody", QUESTION, stream=stream)
    with pytest.raises(ServerError, match="going down") as caught:
        client.ask("fox", "Fail.", stream=pieces.append)
    assert caught.value.code == "closing"


def test_what_cannot_be_is_said(client: Client, tmp_path: Path) -> None:
    with pytest.raises(SakuinError, match="not both"):
        client.contexts.add("x")
    with pytest.raises(SakuinError, match="not both"):
        client.contexts.add("x", [tmp_path / "a.txt"], text="hello")
    with pytest.raises(SakuinError, match=r"none\.txt cannot be read \(No such file"):
        client.contexts.add("x", tmp_path / "none.txt")
    with pytest.raises(TypeError, match="update takes"):
        client.contexts.update("x", colour="red")
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7 \n" + b"\0" * 500)
    with pytest.raises(ServerError, match=r"a\.pdf"):
        client.contexts.add("x", tmp_path / "a.pdf")
    with pytest.raises(ServerError, match="There is no"):
        client.contexts.get("../x")


def test_a_server_that_is_not_there_is_said() -> None:
    with pytest.raises(ServerError, match="cannot be reached"), Client("http://127.0.0.1:9") as client:
        client.contexts.list()
    with pytest.raises(ServerError, match="cannot be reached"), Client("no address") as client:
        client.contexts.list()
    with pytest.raises(SakuinError, match="odd letters"):
        Client("http://127.0.0.1:9", "ключ")
    nothing = httpx.MockTransport(lambda _: httpx.Response(200, text="<html>"))
    with (
        pytest.raises(ServerError, match="is no sakuin server"),
        Client("http://x", transport=nothing) as client,
    ):
        client.contexts.list()


def test_the_key_is_sent_and_v1_may_be_in_the_address() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"data": []})

    with Client("http://x/v1/", "sk-a-b", transport=httpx.MockTransport(answer)) as client:
        assert client.contexts.list() == []
    assert (str(seen[0].url), seen[0].headers["authorization"]) == ("http://x/v1/contexts", "Bearer sk-a-b")


def test_the_client_needs_no_torch() -> None:
    code = (
        "import sakuin, sys; sakuin.Client('http://x'); "
        "print(sorted({'torch', 'transformers', 'fastapi'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
