"""The routes of contexts over real parts, for tests: a tiny model, a scheduler, a library in a folder."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, Request
from stored import CONFIG, model_of

from sakuin.backends.open import backend_of
from sakuin.config import RetrievalConfig
from sakuin.server import problems
from sakuin.server.asks import tenant_of
from sakuin.server.contexts.readings import Readings
from sakuin.server.contexts.shelf import Shelves
from sakuin.server.problems import Problem
from sakuin.server.routes.contexts import router
from sakuin.server.scheduler import Scheduler
from sakuin.server.settings import Settings
from sakuin.server.tenants.audit import Audit
from sakuin.server.tenants.tenant import Tenant


class Held:
    """What a service holds for contexts: `with Held(folder) as held: held.app`.

    tenants : by their keys; without any, whoever asks is the same.
    """

    def __init__(
        self,
        root: Path,
        model: tuple[Any, Any] | None = None,
        tenants: dict[str, Tenant] | None = None,
        config: RetrievalConfig = CONFIG,
        **settings: Any,
    ) -> None:
        self.settings = Settings(library=str(root), **settings)
        self.backend = backend_of(*(model or model_of()))
        self.scheduler = Scheduler(self.backend)
        self.shelves = Shelves(root, self.backend)
        self.readings = Readings(self.shelves, self.settings, config)
        self.audit = Audit(self.settings.audit, self.settings.audit_contents)
        self.tenants = tenants
        self.app = FastAPI()
        self.app.state.service = self
        problems.install(self.app)
        self.app.include_router(router)
        self.app.dependency_overrides[tenant_of] = self._tenant
        self._open = ExitStack()

    async def _tenant(self, request: Request) -> Tenant:
        if self.tenants is None:
            return Tenant()
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        if key not in self.tenants:
            raise Problem(401, "There is no such key.")
        return self.tenants[key]

    def __enter__(self) -> Held:
        self._open.enter_context(self.scheduler)
        self._open.enter_context(self.readings)
        return self

    def __exit__(self, *_: object) -> None:
        self.readings.stop()
        self.scheduler.close()
        self.readings.close()
        self.shelves.close()
        self._open.close()


@contextmanager
def listening(held: Held) -> Iterator[httpx.Client]:
    """A real server in a thread, and a client of it."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(held.app, log_level="warning", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=120) as client:
            yield client
    finally:
        held.readings.stop()
        server.should_exit = True
        thread.join(30)
        listener.close()


@contextmanager
def served(root: Path, **more: Any) -> Iterator[tuple[Held, httpx.Client]]:
    """A service and a client of it."""
    with Held(root, **more) as held, listening(held) as client:
        yield held, client


def ready(client: httpx.Client, name: str, **headers: str) -> dict[str, Any]:
    """The context when its reading is over."""
    for _ in range(6000):
        said: dict[str, Any] = client.get(f"/v1/contexts/{name}", headers=headers).json()
        assert "status" in said, said
        if said["status"] in ("ready", "failed"):
            return said
        time.sleep(0.01)
    raise AssertionError(f"{name} did not become ready: {said}")
