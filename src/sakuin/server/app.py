"""The application: its routes over a service. Can be mounted in another FastAPI.

Called by `sakuin.cli.serve`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from sakuin.server import problems
from sakuin.server.routes import chat, health, models
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

    app = FastAPI(title="sakuin", version=__version__, lifespan=lifespan)
    app.state.service = service
    problems.install(app)
    for routes in (chat, models, health):
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
    return app
