"""`POST /tokenize`, and `POST /v1/count_tokens`: how long a request is, before it is asked."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from sakuin.context.checks import check_characters
from sakuin.context.context import Context
from sakuin.server.asking.prompts import length_of, of_context, of_messages, of_text
from sakuin.server.asks import Asker, The
from sakuin.server.json_bodies import JsonRoute
from sakuin.server.problems import COMMON, errors
from sakuin.server.routes.answers import context_of, token_text
from sakuin.server.routes.conversing import messages_of
from sakuin.server.schemas.tokens import Counted, CountRequest, Tokenized, TokenizeRequest
from sakuin.server.service import Service
from sakuin.server.threads import in_thread

router = APIRouter(tags=["tokens"], route_class=JsonRoute)


@router.post("/tokenize", response_model=Tokenized, responses=COMMON | errors(404))
async def tokenize(body: TokenizeRequest, service: The, tenant: Asker) -> dict[str, Any]:
    """The tokens of a text. Nothing in it becomes a special token."""
    if body.model is not None:
        await context_of(service, tenant, body.model, None)

    def work() -> dict[str, Any]:
        vocabulary, window = service.backend.vocabulary, service.backend.shape.window
        with length_of(service.backend, "content"):
            check_characters(vocabulary, body.content, window)
            ids = vocabulary.encode(body.content).ids
        ids = [*vocabulary.beginning, *ids] if body.add_special else ids
        pieces = [token_text(service.backend, token) for token in ids] if body.with_pieces else None
        return {"tokens": ids, "count": len(ids), "max_model_len": window, "pieces": pieces}

    return await in_thread(work)


@router.post("/v1/count_tokens", response_model=Counted, responses=COMMON | errors(404))
async def count(body: CountRequest, service: The, tenant: Asker) -> dict[str, Any]:
    """How many tokens a request's prompt has, the template's own included."""
    context = await context_of(service, tenant, body.model, body.context)
    return await in_thread(_count, service, body, context)


def _count(service: Service, body: CountRequest, context: Context | None) -> dict[str, Any]:
    backend, held = service.backend, 0
    if body.messages is None:
        asked = of_text(backend, body.prompt or "")
    elif context is None:
        asked = of_messages(backend, messages_of(body.messages))
    else:
        reading = context.reading
        asked = of_context(backend, context.prompt, reading, context.system, messages_of(body.messages))
        held = len(reading.ids)
    n, window = len(asked.ids), backend.shape.window
    left = None if window is None else window - n
    return {"input_tokens": n, "cached_tokens": held, "left": left, "max_model_len": window}
