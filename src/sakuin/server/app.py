"""The application: its routes over a service. Can be mounted in another FastAPI.

Called by `sakuin.cli.serve`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.types import ASGIApp

from sakuin.server import guard, problems
from sakuin.server.logs import Requests
from sakuin.server.routes import (
    chat,
    completions,
    console,
    contexts,
    docs,
    health,
    metrics,
    models,
    responses,
    tokens,
)
from sakuin.server.service import Service
from sakuin.version import __version__


def create_app(service: Service) -> FastAPI:
    """The application of `service`, which is opened with it unless it is open already."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if service.is_open:
            yield
            return
        with service:
            yield

    app = FastAPI(title="sakuin", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = service
    problems.install(app)
    for routes in (chat, completions, responses, contexts, models, tokens, health, metrics, console, docs):
        app.include_router(routes.router)

    def openapi() -> dict[str, Any]:
        """Without FastAPI's 422, which is never sent: what is wrong with a body is 400."""
        if app.openapi_schema is None:
            found = get_openapi(title=app.title, version=app.version, routes=app.routes)
            for path in found["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
    guard.install(app, service.settings, service.door)
    build = app.build_middleware_stack

    def measured() -> ASGIApp:
        return Requests(build(), service.metrics.request)

    app.build_middleware_stack = measured  # type: ignore[method-assign]
    return app
