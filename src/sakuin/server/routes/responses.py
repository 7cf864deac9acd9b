"""`POST /v1/responses`, the form without state."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import JSONResponse
from starlette.responses import Response as HttpResponse

from sakuin.server.asking.running import Alive, Done, Piece, Read, Running
from sakuin.server.asks import Asker, The
from sakuin.server.constraints.speech import Arguments, Begun, Event, Said
from sakuin.server.json_bodies import JsonRoute
from sakuin.server.problems import COMMON, errors, problem_of
from sakuin.server.routes.answers import evidence_of, while_there
from sakuin.server.routes.chat import content_of
from sakuin.server.routes.conversing import Form, conversing
from sakuin.server.schemas.chat import ChatRequest
from sakuin.server.schemas.responses import Response, ResponseRequest
from sakuin.server.stream import EventStream, comment, data

router = APIRouter(tags=["answers"], route_class=JsonRoute)

_ANSWERS: dict[int | str, dict[str, Any]] = {
    **COMMON,
    **errors(404, 409),
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
}


@router.post("/v1/responses", response_model=Response, responses=_ANSWERS)
async def responses(request: Request, body: ResponseRequest, service: The, tenant: Asker) -> HttpResponse:
    """Answer; nothing is kept but what any request that begins the same goes on from."""
    chat = body.chat()
    begun = await conversing(service, tenant, chat, "input")
    answer = _Answer(body, chat, begun.form, service.settings.keep_alive_s)
    if body.stream:
        return EventStream(answer.events(begun.running))
    return JSONResponse(await while_there(request, answer.whole(begun.running)))


def _id(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex}"


class _Answer:
    """One answer: the items of its output, as they come."""

    def __init__(self, body: ResponseRequest, chat: ChatRequest, form: Form, alive_s: float) -> None:
        self._body, self._chat, self._form, self._alive_s = body, chat, form, alive_s
        self._speech = form.speech()
        self._output: list[dict[str, Any]] = []
        self._number = 0
        shown = body.model_dump(
            include={"instructions", "max_output_tokens", "temperature", "top_p", "metadata", "user"}
        )
        tools = [tool.model_dump() for tool in body.tools or []]
        choice = body.tool_choice
        form_said = body.text.format if body.text is not None else None
        self._head: dict[str, Any] = {
            "id": _id("resp"),
            "object": "response",
            "created_at": int(time.time()),
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            **shown,
            "model": body.model,
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "text": {"format": form_said.model_dump(by_alias=True) if form_said else {"type": "text"}},
            "tools": tools,
            "tool_choice": choice.model_dump() if isinstance(choice, BaseModel) else choice or "auto",
            "truncation": "disabled",
        }

    async def whole(self, running: Running) -> dict[str, Any]:
        """All of it at once."""
        async for event in running.events():
            if isinstance(event, Done):
                self._take(self._speech.add(content_of(self._chat, event)))
                self._take(self._speech.end())
                return self._ended(event)
        raise AssertionError

    async def events(self, running: Running) -> AsyncGenerator[bytes, None]:
        """As events."""
        try:
            for kind in ("created", "in_progress"):
                yield self._event(f"response.{kind}", response={**self._head, "output": []})
            async for event in running.events(self._alive_s):
                if isinstance(event, Read | Alive):
                    yield comment(event.comment)
                    continue
                told: list[Event] = []
                if isinstance(event, Piece):
                    if not self._chat.holds_back:
                        told = self._speech.add(event.text)
                else:
                    if self._chat.holds_back:
                        told = self._speech.add(content_of(self._chat, event))
                    told = [*told, *self._speech.end()]
                for said in self._take(told):
                    yield said
                if isinstance(event, Done):
                    for said in self._close():
                        yield said
                    ended = self._ended(event)
                    yield self._event(f"response.{ended['status']}", response=ended)
        except Exception as error:
            problem = problem_of(error)
            failed = {"code": problem.code or "server_error", "message": str(problem)}
            ended = {**self._head, "status": "failed", "error": failed, "output": self._output}
            yield self._event("response.failed", response=ended)

    def _ended(self, done: Done) -> dict[str, Any]:
        """The answer when all is said."""
        self._close()
        said, whole = done.said, done.said.ended not in ("length", "window")
        usage = {
            "input_tokens": said.prompt_tokens,
            "input_tokens_details": {"cached_tokens": said.cached},
            "output_tokens": said.tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": said.prompt_tokens + said.tokens,
        }
        ended = {
            "status": "completed" if whole else "incomplete",
            "incomplete_details": None if whole else {"reason": "max_output_tokens"},
            "output": self._output,
            "usage": usage,
        }
        return self._head | ended | (evidence_of(done.found) if self._chat.wants_evidence else {})

    # -- items -----------------------------------------------------------------------------------------------

    def _take(self, events: list[Event]) -> list[bytes]:
        """Put what is said into items; what is told of it."""
        told: list[bytes] = []
        for event in events:
            if isinstance(event, Said):
                told += self._said(event.text)
            elif isinstance(event, Begun):
                told += self._close()
                item = {
                    "type": "function_call",
                    "id": _id("fc"),
                    "call_id": event.id,
                    "name": event.name,
                    "arguments": "",
                    "status": "in_progress",
                }
                told += self._open(item)
            elif isinstance(event, Arguments):
                item = self._output[-1]
                item["arguments"] += event.piece
                told.append(self._of_item("response.function_call_arguments.delta", delta=event.piece))
        return told

    def _said(self, text: str) -> list[bytes]:
        told: list[bytes] = []
        if not self._output or self._output[-1]["type"] != "message" or self._is_closed:
            if not text.strip():
                return told
            told += self._close()
            message = {"type": "message", "id": _id("msg"), "role": "assistant", "status": "in_progress"}
            told += self._open(message | {"content": []})
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            told.append(self._of_item("response.content_part.added", content_index=0, part=dict(part)))
            self._output[-1]["content"].append(part)
        self._output[-1]["content"][0]["text"] += text
        more = {"content_index": 0, "delta": text, "logprobs": []}
        told.append(self._of_item("response.output_text.delta", **more))
        return told

    @property
    def _is_closed(self) -> bool:
        return not self._output or self._output[-1]["status"] == "completed"

    def _open(self, item: dict[str, Any]) -> list[bytes]:
        self._output.append(item)
        at = len(self._output) - 1
        return [self._event("response.output_item.added", output_index=at, item={**item})]

    def _close(self) -> list[bytes]:
        """The last item is whole."""
        if self._is_closed:
            return []
        item, told = self._output[-1], list[bytes]()
        item["status"] = "completed"
        if item["type"] == "message":
            part = item["content"][0]
            done = {"content_index": 0, "text": part["text"], "logprobs": []}
            told.append(self._of_item("response.output_text.done", **done))
            told.append(self._of_item("response.content_part.done", content_index=0, part=part))
        else:
            more = {"name": item["name"], "arguments": item["arguments"]}
            told.append(self._of_item("response.function_call_arguments.done", **more))
        at = len(self._output) - 1
        return [*told, self._event("response.output_item.done", output_index=at, item=item)]

    def _of_item(self, kind: str, **more: Any) -> bytes:
        return self._event(kind, item_id=self._output[-1]["id"], output_index=len(self._output) - 1, **more)

    def _event(self, kind: str, **more: Any) -> bytes:
        self._number += 1
        return data({"type": kind, "sequence_number": self._number - 1, **more}, kind)
