"""The whole server over a tiny model, as clients meet it: a socket, its guards, its keys."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from tiny import BYTES, byte_tokenizer, tiny

from sakuin.server.app import create_app
from sakuin.server.connection import Connection
from sakuin.server.service import Service
from sakuin.server.settings import Settings


def own_model() -> tuple[Any, Any]:
    """A tiny model and the tokenizer of bytes, for one server: two schedulers do not share one."""
    return tiny("llama", vocab_size=BYTES), byte_tokenizer()


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """The address of an application that listens in a thread."""
    listener = socket.create_server(("127.0.0.1", 0))
    how = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5, http=Connection, ws="none")
    server = uvicorn.Server(how)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)
        listener.close()


@contextmanager
def whole(library: Path, **settings: Any) -> Iterator[tuple[Service, str]]:
    """A service called tiny, and the address of its app."""
    said = Settings(library=str(library), name="tiny", **settings)
    with Service(*own_model(), said) as service, listening(create_app(service)) as url:
        yield service, url


def client_of(url: str, key: str | None = None) -> httpx.Client:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=url, headers=headers, timeout=120)


def chat(client: httpx.Client, question: str, **more: Any) -> httpx.Response:
    """A question, answered in 4 tokens."""
    messages = [{"role": "user", "content": question}]
    body = {"model": "tiny", "messages": messages, "max_tokens": 4, **more}
    return client.post("/v1/chat/completions", json=body)


def cached_of(answer: httpx.Response) -> int:
    """How many tokens of the prompt were read before."""
    assert answer.status_code == 200, answer.text
    found: int = answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
    return found
