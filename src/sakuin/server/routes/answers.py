"""What the routes that answer have in common: the context that is meant, a request that runs until its client
goes, and how passages and logprobs are sent."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from starlette.requests import Request

from sakuin.backends.base import Backend
from sakuin.context.context import Context
from sakuin.server.asking.found import Found
from sakuin.server.asking.wanted import Likely, Wanted
from sakuin.server.problems import Gone, Problem
from sakuin.server.schemas.common import Sampled
from sakuin.server.service import Service
from sakuin.server.tenants.tenant import Tenant
from sakuin.server.threads import in_thread

T = TypeVar("T")


async def context_of(service: Service, tenant: Tenant, model: str, context: str | None) -> Context | None:
    """The context that a request names, by the model's name or by itself, opened; None for none.

    Raises `Problem` where there is no such model or context.
    """
    name, at, by_model = model.partition("@") if not service.name.count("@") else (model, "", "")
    if name != service.name:
        raise Problem(
            404,
            f"There is no model {model[:200]!r}; /v1/models lists what there is.",
            "model",
            "model_not_found",
        )
    if at and context is not None and context != by_model:
        raise Problem(400, "model and context name different contexts: give one of them.", "context")
    wanted = by_model if at else context
    if wanted is None:
        return None
    return await in_thread(service.context, tenant, wanted)


def biased(body: Sampled, n_vocabulary: int, **more: Any) -> Wanted:
    """What a request wants of its answer. Raises `Problem` where a bias is for no token."""
    try:
        return body.wanted(n_vocabulary, **more)
    except ValueError as error:
        raise Problem(400, f"logit_bias: {error}.", "logit_bias") from None


async def while_there(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives. It is cancelled when the client goes, which raises `Gone`."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Gone
        return task.result()
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def evidence_of(found: Found | None) -> dict[str, Any]:
    """What is sent of where an answer was looked up."""
    if found is None:
        return {}
    passages = [
        {
            "mark": number,
            "document": span.file,
            "text": span.text,
            "weight": round(span.weight, 6),
            "start": span.start,
            "end": span.end,
            "line_start": span.line_start,
            "line_end": span.line_end,
            "page": span.page,
            "heading": span.heading,
        }
        for number, span in enumerate(found.passages, 1)
    ]
    support = None if found.support is None else round(found.support, 6)
    footnotes = [{"at": at, "mark": mark} for at, mark in found.marks]
    told = {"support": support, "supported": found.is_supported}
    return {"evidence": passages, "footnotes": footnotes, **told}


def logprobs_of(backend: Backend, likely: Sequence[Likely]) -> dict[str, Any]:
    """Logprobs as chat completions have them."""

    def one(token: int, logprob: float) -> dict[str, Any]:
        text = token_text(backend, token)
        return {"token": text, "logprob": max(logprob, -9999.0), "bytes": list(text.encode())}

    return {
        "content": [
            one(each.token, each.logprob) | {"top_logprobs": [one(*other) for other in each.others]}
            for each in likely
        ],
        "refusal": None,
    }


def token_text(backend: Backend, token: int) -> str:
    """What a token says by itself; a special one says nothing."""
    return backend.vocabulary.decode([token])


FINISH = {"stop": "stop", "stop string": "stop", "loop": "stop", "length": "length", "window": "length"}
"""Why an answer ended, in OpenAI's words."""
