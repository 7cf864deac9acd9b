"""Whether the server is there, and whether it answers."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from sakuin.server.asks import The
from sakuin.server.problems import Problem, errors
from sakuin.version import __version__

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """status : ok. version : of sakuin."""

    status: Literal["ok"]
    version: str


@router.get("/health", response_model=Health, responses=errors(500))
async def health() -> dict[str, str]:
    """Whether the process is there."""
    return {"status": "ok", "version": __version__}


@router.get("/ready", response_model=Health, responses=errors(500, 503))
async def ready(service: The) -> dict[str, str]:
    """Whether requests are taken: not before the model is loaded, and not while the server goes down."""
    if not service.is_ready:
        raise Problem(503, "The server takes no requests now.", code="not_ready")
    return {"status": "ok", "version": __version__}
