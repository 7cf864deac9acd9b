"""The server as it runs: the real app by uvicorn at a free port of this machine, in a thread."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from sakuin.server.app import create_app
from sakuin.server.service import Service
from sakuin.server.settings import Settings


@dataclass(frozen=True)
class Served:
    """url : without a slash at its end; OpenAI's clients want `api`. model : its name."""

    url: str
    service: Service

    @property
    def api(self) -> str:
        return f"{self.url}/v1"

    @property
    def model(self) -> str:
        return self.service.name

    def post(self, path: str, *, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", json=body, headers=headers, timeout=120)

    def answer(self, question: str, **more: Any) -> dict[str, Any]:
        """Of `/v1/chat/completions`, of at most 8 tokens."""
        body = {"model": self.model, "messages": [{"role": "user", "content": question}], "max_tokens": 8}
        response = self.post("/v1/chat/completions", **{**body, **more})
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    def curl(self, *words: str, body: Any = None) -> subprocess.CompletedProcess[str]:
        """`curl` with a body of JSON, as a program of its own. The last word is the path."""
        sent = () if body is None else ("--json", json.dumps(body))
        command = ["curl", "-sS", "--max-time", "120", "--noproxy", "*", *sent, *words[:-1]]
        return subprocess.run(
            [*command, f"{self.url}{words[-1]}"], capture_output=True, text=True, check=False, timeout=180
        )

    def idles(self) -> None:
        """Wait until nothing runs or waits in the scheduler."""
        until(lambda: self.service.scheduler.counts() == (0, 0))


@contextmanager
def serving(model: Sequence[Any], library: Path, **settings: Any) -> Iterator[Served]:
    """`model`, as `sakuin.load` gives it, served with `library` until the block is left."""
    given = Settings(**{"port": 0, "library": str(library), "log_level": "warning", **settings})
    with Service(*model, given) as service:
        how = uvicorn.Config(
            create_app(service),
            port=0,
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            timeout_graceful_shutdown=5,
        )
        server = uvicorn.Server(how)
        thread = threading.Thread(target=server.run, name="served", daemon=True)
        thread.start()
        try:
            until(lambda: server.started or not thread.is_alive())
            assert server.started, "uvicorn did not start"
            port = server.servers[0].sockets[0].getsockname()[1]
            yield Served(f"http://127.0.0.1:{port}", service)
        finally:
            server.should_exit = True
            thread.join(30)


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for what has to come."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come")
