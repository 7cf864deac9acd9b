"""`POST /v1/chat/completions`."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from sakuin.context.context import Context
from sakuin.server.asking.found import NOT_THERE, with_marks
from sakuin.server.asking.origins import Start, of_any, of_named
from sakuin.server.asking.prompts import of_messages
from sakuin.server.asking.running import Done, Piece, Read, Running
from sakuin.server.asking.wanted import Wanted
from sakuin.server.asks import Asker, The
from sakuin.server.problems import COMMON, Problem, errors, problem_of
from sakuin.server.routes.answers import FINISH, context_of, evidence_of, logprobs_of, while_there
from sakuin.server.schemas.chat import ChatCompletion, ChatRequest
from sakuin.server.schemas.common import usage_of
from sakuin.server.service import Service
from sakuin.server.stream import EventStream, comment, data
from sakuin.server.tenants.tenant import Tenant

router = APIRouter(tags=["answers"])

_ANSWERS: dict[int | str, dict[str, Any]] = {
    **COMMON,
    **errors(404, 409),
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
}


@router.post("/v1/chat/completions", response_model=ChatCompletion, responses=_ANSWERS)
async def chat(request: Request, body: ChatRequest, service: The, tenant: Asker) -> Response:
    """Answer a conversation, of a stored context or of what it says itself."""
    wanted = wanted_of(service, body)
    context = await context_of(service, tenant, body.model, body.context)
    start = await run_in_threadpool(_start, service, tenant, body, context)
    running = Running(service.engine, tenant.name, start, wanted, tenant.allowed.priority)
    answer = _Answer(service, body)
    if body.stream:
        return EventStream(answer.chunks(running), service.settings.keep_alive_s)
    return JSONResponse(await while_there(request, answer.whole(running)))


def wanted_of(service: Service, body: ChatRequest) -> Wanted:
    """What a request wants of its answer."""
    try:
        return body.wanted(
            service.n_vocabulary,
            max_tokens=body.max_completion_tokens or body.max_tokens,
            logprobs=(body.top_logprobs or 0) if body.logprobs else None,
            evidence=body.wants_evidence,
        )
    except ValueError as error:
        raise Problem(400, f"logit_bias: {error}.", "logit_bias") from None


def _start(service: Service, tenant: Tenant, body: ChatRequest, context: Context | None) -> Start:
    messages = [{"role": one.role, "content": one.text} for one in body.messages]
    if context is not None:
        return of_named(service.engine, tenant.name, context, messages, evidence=body.wants_evidence)
    asked = of_messages(service.backend, messages)
    opened = service.open_contexts(tenant)
    return of_any(service.engine, tenant.name, asked, opened, evidence=body.wants_evidence)


@dataclass
class _Choice:
    """A choice as it is told."""

    content: str
    finish: str


class _Answer:
    """How one answer is sent: whole, or chunk by chunk."""

    def __init__(self, service: Service, body: ChatRequest) -> None:
        self._service, self._body = service, body
        self._head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": body.model,
        }

    async def whole(self, running: Running) -> dict[str, Any]:
        """All of it at once."""
        done: dict[int, Done] = {}
        async for event in running.events():
            if isinstance(event, Done):
                done[event.number] = event
        choices = []
        for number in sorted(done):
            told, likely = self._told(done[number]), done[number].said.likely
            wanted = self._body.logprobs
            choices.append(
                {
                    "index": number,
                    "message": {"role": "assistant", "content": told.content, "refusal": None},
                    "logprobs": logprobs_of(self._service.backend, said.likely)
                    if self._body.logprobs
                    else None,
                    "finish_reason": told.finish,
                }
            )
        head = {**self._head, "object": "chat.completion", "choices": choices, "usage": self._usage(done)}
        return head | (evidence_of(done[0].found) if self._body.wants_evidence else {})

    async def chunks(self, running: Running) -> AsyncIterator[bytes]:
        """As events."""
        done: dict[int, Done] = {}
        try:
            for number in range(self._body.n or 1):
                yield self._chunk(number, {"role": "assistant", "content": ""})
            async for event in running.events():
                if isinstance(event, Read):
                    yield comment(f"prefill {event.done}/{event.total}")
                elif isinstance(event, Piece):
                    if not self._body.holds_back:
                        yield self._chunk(event.number, {"content": event.text}, event)
                else:
                    done[event.number] = event
                    told = self._told(event)
                    if self._body.holds_back:
                        yield self._chunk(event.number, {"content": told.content})
                    yield self._chunk(event.number, {}, finish=told.finish, more=evidence_of(event.found))
            if self._body.stream_options is not None and self._body.stream_options.include_usage:
                yield data(
                    {**self._head, "object": "chat.completion.chunk", "choices": []}
                    | {"usage": self._usage(done)}
                )
        except Exception as error:
            yield data(problem_of(error).body())
        yield data("[DONE]")

    def _told(self, done: Done) -> _Choice:
        """What is told of a choice."""
        content, found = done.said.text.rstrip(), done.found
        if found is not None and self._body.refuse_unsupported and found.is_supported is False:
            content = NOT_THERE
        elif found is not None and self._body.footnotes:
            content = with_marks(content, found.marks)
        return _Choice(content, FINISH[done.said.ended])

    def _chunk(
        self,
        number: int,
        delta: dict[str, Any],
        piece: Piece | None = None,
        finish: str | None = None,
        more: dict[str, Any] | None = None,
    ) -> bytes:
        logprobs = None
        if piece is not None and self._body.logprobs:
            logprobs = logprobs_of(self._service.backend, piece.likely)
        choice = {"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        said: dict[str, Any] = {**self._head, "object": "chat.completion.chunk", "choices": [choice]}
        if self._body.stream_options is not None and self._body.stream_options.include_usage:
            said["usage"] = None
        return data(said | (more or {}))

    @staticmethod
    def _usage(done: dict[int, Done]) -> dict[str, Any]:
        first = done[0].said
        return usage_of(first.prompt_tokens, sum(one.said.tokens for one in done.values()), first.cached)
