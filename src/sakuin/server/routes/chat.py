"""`POST /v1/chat/completions`."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from sakuin.server.asking.found import NOT_THERE, with_marks
from sakuin.server.asking.running import Alive, Done, Piece, Read, Running
from sakuin.server.asks import Asker, The
from sakuin.server.constraints.speech import ToolSpeech
from sakuin.server.json_bodies import JsonRoute
from sakuin.server.problems import COMMON, errors, problem_of
from sakuin.server.routes.answers import FINISH, evidence_of, logprobs_of, while_there
from sakuin.server.routes.conversing import Form, conversing
from sakuin.server.schemas.chat import ChatCompletion, ChatRequest
from sakuin.server.schemas.common import usage_of
from sakuin.server.service import Service
from sakuin.server.stream import EventStream, comment, data

router = APIRouter(tags=["answers"], route_class=JsonRoute)

_ANSWERS: dict[int | str, dict[str, Any]] = {
    **COMMON,
    **errors(404, 409),
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
}


@router.post("/v1/chat/completions", response_model=ChatCompletion, responses=_ANSWERS)
async def chat(request: Request, body: ChatRequest, service: The, tenant: Asker) -> Response:
    """Answer a conversation, of a stored context or of what it says itself."""
    begun = await conversing(service, tenant, body)
    answer = _Answer(service, body, begun.form)
    if body.stream:
        return EventStream(answer.chunks(begun.running))
    return JSONResponse(await while_there(request, answer.whole(begun.running)))


def content_of(body: ChatRequest, done: Done) -> str:
    """The text of a choice as it is told: with footnotes, or that the text does not speak of it."""
    content, found = done.said.text.rstrip(), done.found
    if found is not None and body.refuse_unsupported and found.is_supported is False:
        return NOT_THERE
    if found is not None and body.footnotes:
        return with_marks(content, found.marks)
    return content


class _Answer:
    """How one answer is sent: whole, or chunk by chunk."""

    def __init__(self, service: Service, body: ChatRequest, form: Form) -> None:
        self._service, self._body, self._form = service, body, form
        self._speeches: dict[int, ToolSpeech] = {}
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
        choices = [self._choice(done[number]) for number in sorted(done)]
        head = {**self._head, "object": "chat.completion", "choices": choices, "usage": self._usage(done)}
        return head | (evidence_of(done[0].found) if self._body.wants_evidence else {})

    def _choice(self, done: Done) -> dict[str, Any]:
        content, wanted = content_of(self._body, done), self._body.logprobs
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if self._form.tools:
            speech = self._form.speech()
            speech.add(content)
            speech.end()
            message["content"] = speech.text.strip() or None
            if speech.calls:
                message["tool_calls"] = [call.model_dump() for call in speech.calls]
            self._speeches[done.number] = speech
        return {
            "index": done.number,
            "message": message,
            "logprobs": logprobs_of(self._service.backend, done.said.likely) if wanted else None,
            "finish_reason": self._finish(done),
        }

    def _finish(self, done: Done) -> str:
        speech = self._speeches.get(done.number)
        calls = speech is not None and bool(speech.calls)
        return "tool_calls" if calls and done.said.ended != "length" else FINISH[done.said.ended]

    async def chunks(self, running: Running) -> AsyncGenerator[bytes, None]:
        """As events."""
        done: dict[int, Done] = {}
        try:
            for number in range(self._body.n or 1):
                yield self._chunk(number, {"role": "assistant", "content": ""})
                self._speeches[number] = self._form.speech()
            async for event in running.events(self._service.settings.keep_alive_s):
                if isinstance(event, Read | Alive):
                    yield comment(event.comment)
                elif isinstance(event, Piece):
                    if not self._body.holds_back:
                        for chunk in self._pieces(event.number, event.text, event):
                            yield chunk
                else:
                    done[event.number] = event
                    if self._body.holds_back:
                        for chunk in self._pieces(event.number, content_of(self._body, event)):
                            yield chunk
                    for last in self._speeches[event.number].end():
                        yield self._chunk(event.number, last.delta())
                    finish = self._finish(event)
                    yield self._chunk(event.number, {}, finish=finish, more=evidence_of(event.found))
            if self._body.stream_options is not None and self._body.stream_options.include_usage:
                yield data(
                    {**self._head, "object": "chat.completion.chunk", "choices": []}
                    | {"usage": self._usage(done)}
                )
        except Exception as error:
            yield data(problem_of(error).body())
        yield data("[DONE]")

    def _pieces(self, number: int, text: str, piece: Piece | None = None) -> list[bytes]:
        """A piece of text as chunks: of text, or of calls."""
        if not self._form.tools:
            return [self._chunk(number, {"content": text}, piece)]
        events = self._speeches[number].add(text)
        deltas = [event.delta() for event in events] or ([{}] if piece is not None and piece.likely else [])
        return [self._chunk(number, delta, None if i else piece) for i, delta in enumerate(deltas)]

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
