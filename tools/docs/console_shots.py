"""Writes the pictures of the console in the docs: the real server over smollm2, asked about example files.

`python tools/docs/console_shots.py` needs Debian's `chromium`, and `fonts-noto-core` and `fonts-noto-cjk` for
letters as most people see them. It takes a minute or two.
"""

from __future__ import annotations

import io
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn
from PIL import Image
from places import DOCS, ROOT
from playwright.sync_api import Page, sync_playwright

from sakuin import load
from sakuin.backends import catalogue
from sakuin.server.app import create_app
from sakuin.server.service import Service
from sakuin.server.settings import Settings

PICTURES = DOCS / "pictures"
COLOURS = 128
"""Of a picture, which is a quarter of the size then and looks the same."""

FILES = {
    "support-agreement": ("contract.pdf",),
    "minutes": ("minutes.md", "amendment.txt"),
    "rules": ("rules.docx",),
}
QUESTION = "When does the new berth plan go live?"


@contextmanager
def served() -> Iterator[str]:
    """The address of a server with the example files."""
    catalogue.get("smollm2")
    model = load("smollm2", dtype="fp32", backend="llama.cpp")
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(library=folder, name="smollm2")
        with Service(*model, settings) as service, socket.create_server(("127.0.0.1", 0)) as listener:
            server = uvicorn.Server(uvicorn.Config(create_app(service), log_level="warning"))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            try:
                while not server.started:
                    time.sleep(0.01)
                yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
            finally:
                server.should_exit = True
                thread.join(30)


def add(url: str) -> None:
    """Read the files."""
    examples = ROOT / "examples" / "files"
    with httpx.Client(base_url=url, timeout=600) as client:
        for name, files in FILES.items():
            parts = [("files", (file, (examples / file).read_bytes())) for file in files]
            client.post("/v1/contexts?wait=true", data={"name": name}, files=parts).raise_for_status()


def ask(page: Page) -> None:
    """Choose a context, ask, and wait for the figures too."""
    page.locator("button.context", has_text="minutes").click()
    page.locator("#document-text .block").first.wait_for(state="attached")
    page.locator("#question").fill(QUESTION)
    page.keyboard.press("Enter")
    page.locator("article[data-state=done]").wait_for()
    page.wait_for_timeout(6000)


def keep(page: Page, name: str, whole: bool = False) -> None:
    """Write a picture."""
    image = Image.open(io.BytesIO(page.screenshot(full_page=whole))).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(PICTURES / name, optimize=True)
    print(f"{name}: {(PICTURES / name).stat().st_size:,} bytes")


def main() -> int:
    binary = shutil.which("chromium")
    if binary is None:
        print("there is no chromium: apt-get install chromium", file=sys.stderr)
        return 2
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with served() as url, sync_playwright() as playwright:
        add(url)
        browser = playwright.chromium.launch(executable_path=binary, args=["--no-sandbox"])
        wide: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}, "locale": "en-GB"}
        for name, how in (
            ("console-light.png", {}),
            ("console-dark.png", {"color_scheme": "dark"}),
            ("console-japanese.png", {"locale": "ja-JP"}),
        ):
            page = browser.new_context(**{**wide, **how}).new_page()
            page.set_default_timeout(300_000)
            page.goto(url)
            ask(page)
            keep(page, name, whole=name == "console-light.png")
        narrow = browser.new_context(
            viewport={"width": 360, "height": 720}, locale="en-GB", device_scale_factor=2
        )
        page = narrow.new_page()
        page.set_default_timeout(300_000)
        page.goto(url)
        ask(page)
        keep(page, "console-narrow.png")
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
