"""`POST /v1/completions`."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from sakuin.server.asking.origins import Start, of_any
from sakuin.server.asking.prompts import of_text
from sakuin.server.asking.running import Alive, Done, Event, Piece, Read, Running
from sakuin.server.asking.wanted import Likely, Said
from sakuin.server.asks import Asker, The, audited
from sakuin.server.json_bodies import JsonRoute
from sakuin.server.problems import COMMON, Problem, errors, problem_of
from sakuin.server.routes.answers import FINISH, biased, context_of, token_text, while_there
from sakuin.server.schemas.common import usage_of
from sakuin.server.schemas.completions import MOST_PROMPTS, Completion, CompletionRequest
from sakuin.server.service import Service
from sakuin.server.stream import EventStream, comment, data
from sakuin.server.tenants.tenant import Tenant
from sakuin.server.threads import in_thread

router = APIRouter(tags=["answers"], route_class=JsonRoute)

_ANSWERS: dict[int | str, dict[str, Any]] = {
    **COMMON,
    **errors(404),
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
}


@router.post("/v1/completions", response_model=Completion, responses=_ANSWERS)
async def completions(request: Request, body: CompletionRequest, service: The, tenant: Asker) -> Response:
    """Go on with a text, or with several."""
    if await context_of(service, tenant, body.model, None) is not None:
        raise Problem(400, "A context is asked by /v1/chat/completions, not by this.", "model")
    wanted = biased(
        body,
        service.n_vocabulary,
        max_tokens=body.max_tokens,
        logprobs=body.logprobs,
        scored=bool(body.echo and body.logprobs is not None),
        raw=True,
    )
    if wanted.scored and wanted.n > 1:
        raise Problem(400, "n must be 1 where the prompt's own logprobs are wanted (echo).", "n")
    if (choices := len(body.prompts) * wanted.n) > MOST_PROMPTS:
        raise Problem(
            400, f"n for each prompt makes {choices:,} choices; a request may have {MOST_PROMPTS}.", "n"
        )
    starts = await in_thread(_starts, service, tenant, body, wanted.scored)
    for start in starts:
        said = service.backend.vocabulary.decode(start.asked.ids) if service.audit.contents else None
        audited(service, "complete", tenant, None, said, prompt_tokens=len(start.asked.ids))
    running: list[Running] = []
    try:
        for start in starts:
            running.append(Running(service.engine, tenant.name, start, wanted, tenant.allowed.priority))
    except BaseException:
        for one in running:
            one.cancel()
        raise
    answer = _Answer(service, body, starts)
    if body.stream:
        return EventStream(answer.chunks(running))
    return JSONResponse(await while_there(request, answer.whole(running)))


def _starts(service: Service, tenant: Tenant, body: CompletionRequest, scored: bool) -> list[Start]:
    starts = []
    for prompt in body.prompts:
        if not isinstance(prompt, str) and max(prompt) >= service.n_vocabulary:
            raise Problem(
                400, f"The model has {service.n_vocabulary:,} tokens; {max(prompt):,} is none.", "prompt"
            )
        asked = of_text(service.backend, prompt)
        # The prompt's own logprobs need a reading from its beginning.
        service.check_length(tenant, len(asked.ids), "prompt")
        opened = [] if scored else service.contexts_like(tenant, asked.ids)
        starts.append(of_any(service.engine, tenant.name, asked, opened, fresh=scored))
    return starts


async def _together(
    running: Sequence[Running], alive_s: float = 0.0
) -> AsyncGenerator[tuple[int, Event], None]:
    """What happens to any of several requests."""
    events: asyncio.Queue[tuple[int, Event | BaseException | None]] = asyncio.Queue()

    async def follow(i: int) -> None:
        try:
            async for event in running[i].events(alive_s):
                events.put_nowait((i, event))
            events.put_nowait((i, None))
        except Exception as error:
            events.put_nowait((i, error))

    tasks = [asyncio.ensure_future(follow(i)) for i in range(len(running))]
    try:
        left = len(running)
        while left:
            i, event = await events.get()
            if isinstance(event, BaseException):
                raise event
            if event is None:
                left -= 1
            else:
                yield i, event
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for one in running:
            one.cancel()


class _Answer:
    """How it is sent: whole, or chunk by chunk."""

    def __init__(self, service: Service, body: CompletionRequest, starts: Sequence[Start]) -> None:
        self._service, self._body, self._starts = service, body, starts
        self._n = body.n or 1
        self._head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": body.model,
        }

    async def whole(self, running: Sequence[Running]) -> dict[str, Any]:
        """All of it at once."""
        done: dict[int, Done] = {}
        async for i, event in _together(running):
            if isinstance(event, Done):
                done[i * self._n + event.number] = event
        choices = [self._choice(number, done[number].said) for number in sorted(done)]
        return {**self._head, "choices": choices, "usage": self._usage(done)}

    async def chunks(self, running: Sequence[Running]) -> AsyncGenerator[bytes, None]:
        """As events."""
        done: dict[int, Done] = {}
        at: dict[int, int] = {}
        usage = self._body.stream_options is not None and self._body.stream_options.include_usage
        more: dict[str, Any] = {"usage": None} if usage else {}
        try:
            async for i, event in _together(running, self._service.settings.keep_alive_s):
                if isinstance(event, Read | Alive):
                    yield comment(event.comment)
                    continue
                number = i * self._n + event.number
                choice: dict[str, Any] = {"text": "", "index": number, "logprobs": None}
                if isinstance(event, Piece):
                    choice |= {"text": event.text, "finish_reason": None}
                    if self._body.logprobs is not None:
                        choice["logprobs"] = self._logprobs(event.likely, at.get(number, 0))
                    at[number] = at.get(number, 0) + len(event.text)
                else:
                    done[number] = event
                    choice["finish_reason"] = FINISH[event.said.ended]
                yield data({**self._head, "choices": [choice], **more})
            if usage:
                yield data({**self._head, "choices": [], "usage": self._usage(done)})
        except Exception as error:
            yield data(problem_of(error).body())
        yield data("[DONE]")

    def _choice(self, number: int, said: Said) -> dict[str, Any]:
        text, logprobs = said.text, None
        asked = self._starts[number // self._n].asked
        prompt = ""
        if self._body.echo:
            given = self._body.prompts[number // self._n]
            prompt = given if isinstance(given, str) else self._service.backend.vocabulary.decode(given)
        if self._body.logprobs is not None:
            logprobs = self._logprobs(said.likely, len(prompt))
            if self._body.echo:
                logprobs = _joined(self._scored(asked.ids, said.scored), logprobs)
        return {
            "text": prompt + text,
            "index": number,
            "logprobs": logprobs,
            "finish_reason": FINISH[said.ended],
        }

    def _scored(self, ids: Sequence[int], scored: Sequence[Likely]) -> dict[str, list[Any]]:
        """Of the prompt's own tokens; the first has none."""
        first: dict[str, list[Any]] = {
            "tokens": [token_text(self._service.backend, ids[0])],
            "token_logprobs": [None],
            "top_logprobs": [None],
            "text_offset": [0],
        }
        return _joined(first, self._logprobs(scored, len(first["tokens"][0])))

    def _logprobs(self, likely: Sequence[Likely], at: int) -> dict[str, list[Any]]:
        backend = self._service.backend
        names = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
        found: dict[str, list[Any]] = {name: [] for name in names}
        for one in likely:
            text = token_text(backend, one.token)
            found["tokens"].append(text)
            found["token_logprobs"].append(one.logprob)
            top: dict[str, float] = {}
            for token, logprob in one.others:
                top.setdefault(token_text(backend, token), logprob)
            found["top_logprobs"].append(top)
            found["text_offset"].append(at)
            at += len(text)
        return found

    def _usage(self, done: dict[int, Done]) -> dict[str, Any]:
        firsts = [done[i * self._n].said for i in range(len(self._starts))]
        return usage_of(
            sum(one.prompt_tokens for one in firsts),
            sum(one.said.tokens for one in done.values()),
            sum(one.cached for one in firsts),
        )


def _joined(first: dict[str, list[Any]], then: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {name: [*first[name], *then[name]] for name in first}
