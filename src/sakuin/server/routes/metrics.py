"""What is measured: for Prometheus, and the last minutes for the console's charts.

Both tell totals over all who ask. Where the server has keys, both need one, wherever the request comes
from: behind a proxy all requests come from this machine.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from sakuin.server.asks import Asker
from sakuin.server.metrics.metrics import Metrics
from sakuin.server.problems import errors
from sakuin.server.threads import in_thread

router = APIRouter(tags=["metrics"])
TEXT = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus' text format."""


def _measured(request: Request) -> Metrics:
    found: Metrics = request.app.state.service.metrics
    return found


Measured = Annotated[Metrics, Depends(_measured)]
_ERRORS = errors(400, 401, 403, 429, 500, 503)


class Series(BaseModel):
    """A value for each interval, the oldest first; null where nothing is known."""

    first_token_ms: list[float | None]
    token_ms: list[float | None]
    tokens_per_s: list[float | None]
    coverage: list[float | None]
    touched: list[float | None]
    memory_bytes: list[float | None]


class Stats(BaseModel):
    """The last minutes. now : when the last interval ended, in seconds since 1970. interval : seconds.

    running, waiting : requests. contexts : that are stored. Of all who ask; null where it is not known.
    """

    now: float
    interval: float
    series: Series
    running: int | None
    waiting: int | None
    contexts: int | None


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus' text format."}, **_ERRORS},
)
async def metrics(measured: Measured, _: Asker) -> Response:
    """All metrics, for Prometheus."""
    return Response(await in_thread(measured.text), media_type=TEXT)


@router.get("/v1/stats", responses=_ERRORS)
async def stats(measured: Measured, _: Asker) -> Stats:
    """The last minutes, for charts."""
    return Stats.model_validate(await in_thread(measured.stats))
