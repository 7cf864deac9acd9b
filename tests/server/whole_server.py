"""The whole server over real parts and a tiny model, at a port of this machine, for those who attack it."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from stored import TEXT
from tiny import BYTES, byte_tokenizer, tiny

from sakuin.server.app import create_app
from sakuin.server.process import config_of
from sakuin.server.service import Service
from sakuin.server.settings import Settings

MODEL = "tiny"


@dataclass
class Whole:
    """A server that runs. failed : what it logged of errors that nobody foresaw."""

    service: Service
    server: uvicorn.Server
    port: int
    failed: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, key: str | None = None) -> httpx.Client:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, timeout=120, headers=headers)

    def sent(self, path: str, body: bytes, *headers: str, method: str = "POST") -> tuple[int, dict[str, Any]]:
        """The status and the JSON of an answer to exactly these bytes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=120) as client:
            head = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
            head.append(f"Content-Length: {len(body)}")
            client.sendall("\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body)
            data = b""
            while piece := client.recv(1 << 16):
                data += piece
        first, _, said = data.partition(b"\r\n\r\n")
        return int(first.split()[1]), json.loads(said)

    def idles(self) -> bool:
        """Whether nothing runs and nobody is connected."""
        state = self.server.server_state
        return self.service.scheduler.counts() == (0, 0) and not state.tasks


class _Noted(logging.Handler):
    """Notes what is logged as an error."""

    def __init__(self, failed: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._failed = failed

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self._failed.append(f"{record.getMessage()}: {error!r}")


@contextmanager
def whole(library: Path, model: tuple[Any, Any] | None = None, **settings: Any) -> Iterator[Whole]:
    """A server over `library`, ended with the block."""
    given = Settings(
        **{"library": str(library), "name": MODEL, "drain_s": 5.0, "log_level": "warning", **settings}
    )
    failed: list[str] = []
    noted = _Noted(failed)
    logs = [logging.getLogger(name) for name in ("sakuin", "uvicorn", "asyncio")]
    listener = socket.create_server(("127.0.0.1", 0))
    made = model or (tiny("llama", vocab_size=BYTES), byte_tokenizer())
    with Service(*made, given) as service:
        server = uvicorn.Server(config_of(create_app(service), given))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        for log in logs:
            log.addHandler(noted)
        thread.start()
        try:
            until(lambda: server.started)
            yield Whole(service, server, listener.getsockname()[1], failed)
        finally:
            server.should_exit = True
            thread.join(30)
            listener.close()
            for log in logs:
                log.removeHandler(noted)
    assert not thread.is_alive()


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for what has to come."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


def chat(text: str = "Who jumps?", **more: Any) -> dict[str, Any]:
    """A request of a chat, for a short answer."""
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": 4, **more}


def add(client: httpx.Client, name: str, text: str = TEXT) -> None:
    """Have a context read."""
    answer = client.post("/v1/contexts?wait=true", json={"name": name, "text": text})
    assert answer.status_code == 201, answer.text
