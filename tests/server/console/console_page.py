"""What the console's tests share: a server that listens, and what they do with its page."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from playwright.sync_api import Page, expect
from reportlab.pdfgen.canvas import Canvas
from tiny import BYTES, byte_tokenizer, tiny

PATIENCE_MS = 120_000
expect.set_options(timeout=PATIENCE_MS)


def tiny_model() -> tuple[Any, Any]:
    """A model of its own for each server: one model is run by one scheduler."""
    return tiny("llama", vocab_size=BYTES), byte_tokenizer()


@dataclass
class Served:
    """A server that listens. key : of a tenant, where it has keys."""

    url: str
    key: str | None = None

    def client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=120)

    def add(self, name: str, *files: tuple[str, bytes]) -> dict[str, Any]:
        """A context that is read."""
        with self.client() as client:
            parts = [("files", file) for file in files]
            answer = client.post("/v1/contexts?wait=true", data={"name": name}, files=parts)
        assert answer.status_code == 201, answer.text
        added: dict[str, Any] = answer.json()
        return added

    def clear(self) -> None:
        """Delete all contexts."""
        with self.client() as client:
            for one in client.get("/v1/contexts").json()["data"]:
                client.delete(f"/v1/contexts/{one['id']}")


@contextmanager
def listening(app: Any, port: int = 0) -> Iterator[str]:
    """The address of an application that listens in a thread."""
    listener = socket.create_server(("127.0.0.1", port))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()


@dataclass
class Seen:
    """What a page did that it must not: scripts that failed, what its policy forbids, other servers."""

    url: str
    wrong: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("console", lambda message: self._noted(message.type, message.text))
        page.on("request", lambda request: self._asked(request.url))

    def _noted(self, kind: str, text: str) -> None:
        # A browser says of each refused request that it was one; what the page makes of it is tested.
        if kind in ("error", "warning") and not text.startswith("Failed to load resource"):
            self.wrong.append(f"{kind}: {text}")

    def _asked(self, url: str) -> None:
        if not url.startswith((self.url, "blob:", "data:")):
            self.wrong.append(f"asked {url}")


Opened = Callable[..., Page]


def two_pages() -> bytes:
    """A PDF with a heading and a sentence on each of its pages."""
    written = io.BytesIO()
    canvas = Canvas(written, pageCompression=0)
    for heading, sentence in (
        ("1. Times", "The pilot boat leaves the north quay each morning at 6:15."),
        ("2. Codes", "The door code of the pilot house is 4519."),
    ):
        canvas.setFont("Helvetica-Bold", 18)
        canvas.drawString(72, 760, heading)
        canvas.setFont("Helvetica", 11)
        canvas.drawString(72, 730, sentence)
        canvas.drawString(72, 714, "Whoever reads this shall tell it to nobody else, not even to the cook.")
        canvas.showPage()
    canvas.save()
    return written.getvalue()


def chosen(page: Page, name: str) -> None:
    """Choose a context by its name."""
    page.locator("button.context", has_text=name).click()
    page.locator("#document-text .block").first.wait_for()


def asked(page: Page, question: str) -> None:
    """Ask, and wait for the answer."""
    before = page.locator("article.entry").count()
    page.get_by_role("textbox").fill(question)
    page.keyboard.press("Enter")
    page.locator("article.entry").nth(before).and_(page.locator("[data-state=done]")).wait_for()
