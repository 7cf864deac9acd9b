"""A small application behind the guards, and what tests ask of it without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, StreamingResponse

from sakuin.server import problems
from sakuin.server.guard import install, request_id
from sakuin.server.settings import Settings
from sakuin.server.tenants.door import Door, tenant_in
from sakuin.server.tenants.keys import Keys
from sakuin.server.tenants.limits import TenantLimits
from sakuin.server.tenants.tenant import Tenant


def tenant_of(request: Request) -> Tenant:
    return tenant_in(request.scope)


Asker = Annotated[Tenant, Depends(tenant_of)]


class App:
    """An application behind the guards, and what it has seen."""

    def __init__(self, settings: Settings, keys: Keys | None = None, door: Door | None = None) -> None:
        self.limits = TenantLimits()
        self.door = door or Door(keys, self.limits)
        self.api, self.seen = FastAPI(), []
        problems.install(self.api)
        install(self.api, settings, self.door)
        self._routes(self.api)

    def _routes(self, api: FastAPI) -> None:
        @api.post("/v1/echo")
        async def echo(body: dict[str, Any], tenant: Asker) -> dict[str, Any]:
            self.seen.append(body)
            return {"tenant": tenant.name, "id": request_id.get(), **body}

        @api.post("/v1/contexts")
        async def upload(request: Request) -> dict[str, int]:
            size = 0
            async for piece in request.stream():
                size += len(piece)
                self.seen.append(len(piece))
            return {"bytes": size}

        @api.get("/v1/stream")
        @api.post("/v1/stream")
        async def stream(tenant: Asker, pieces: int = 3, size: int = 1) -> StreamingResponse:
            async def said() -> AsyncIterator[bytes]:
                for _ in range(pieces):
                    yield b"x" * size
                    await asyncio.sleep(0.01)

            return StreamingResponse(said())

        @api.post("/v1/unread")
        async def unread() -> dict[str, str]:
            return {"said": "without reading"}

        @api.get("/v1/list")
        async def listing(tenant: Asker) -> dict[str, str]:
            return {"tenant": tenant.name}

        @api.get("/health")
        async def health() -> dict[str, str]:
            return {"status": "ok"}

        @api.get("/")
        async def console() -> HTMLResponse:
            return HTMLResponse("<p>", headers={"Content-Security-Policy": "default-src 'self'"})

        @api.get("/fails")
        async def fails() -> None:
            raise RuntimeError("/secret/path")


def ask(app: App, method: str, path: str, base: str = "http://127.0.0.1:8000", **how: Any) -> httpx.Response:
    """One request, without a socket."""

    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app.api, raise_app_exceptions=False, client=("10.0.0.1", 5))
        async with httpx.AsyncClient(transport=transport, base_url=base) as client:
            return await client.request(method, path, **how)

    return asyncio.run(asked())


def error_of(response: httpx.Response) -> dict[str, Any]:
    said = response.json()
    assert list(said) == ["error"]
    assert said["error"]["message"].endswith(".")
    found: dict[str, Any] = said["error"]
    return found
