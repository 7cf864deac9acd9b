"""`GET /v1/models`: the model, and each context of the tenant as a model of its own."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from sakuin.server.asks import Asker, The
from sakuin.server.problems import COMMON, Problem, errors
from sakuin.server.service import Service
from sakuin.server.tenants.tenant import Tenant
from sakuin.server.threads import in_thread

router = APIRouter(tags=["models"])


class Model(BaseModel):
    """What a request may name as its model."""

    model_config = ConfigDict(extra="allow")
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class Models(BaseModel):
    """What there is."""

    object: Literal["list"]
    data: list[Model]


@router.get("/v1/models", response_model=Models, responses=COMMON)
async def models(service: The, tenant: Asker) -> dict[str, Any]:
    """The model, and `model@context` for each context."""
    return {"object": "list", "data": await in_thread(_every, service, tenant)}


@router.get("/v1/models/{name:path}", response_model=Model, responses=COMMON | errors(404))
async def model(name: str, service: The, tenant: Asker) -> dict[str, Any]:
    """One of them."""
    for one in await in_thread(_every, service, tenant):
        if one["id"] == name:
            return one
    raise Problem(404, "There is no such model; /v1/models lists what there is.", "model", "model_not_found")


def _every(service: Service, tenant: Tenant) -> list[dict[str, Any]]:
    shape = service.backend.shape
    head = {
        "id": service.name,
        "object": "model",
        "created": int(service.started),
        "owned_by": "sakuin",
        "max_model_len": shape.window,
    }
    return [head] + [
        {
            "id": f"{service.name}@{name}",
            "object": "model",
            "created": created,
            "owned_by": "sakuin",
            "max_model_len": shape.window,
            "context": name,
            "context_tokens": tokens,
        }
        for name, tokens, created in service.context_names(tenant)
    ]
