"""The app works under a prefix of another one; docs/server.md has the settings that there are."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from fastapi import FastAPI
from whole_app import chat, client_of, listening, own_model

from sakuin.server.app import create_app
from sakuin.server.service import Service
from sakuin.server.settings import Settings

PAGE = Path(__file__).parents[2] / "docs/server.md"


def test_it_works_under_a_prefix_of_another_app(tmp_path: Path) -> None:
    outer = FastAPI()

    @outer.get("/own")
    async def own() -> str:
        return "own"

    settings = Settings(library=str(tmp_path / "library"), name="tiny")
    with Service(*own_model(), settings) as service:
        outer.mount("/ai", create_app(service))
        with listening(outer) as url, client_of(url) as whole, client_of(f"{url}/ai") as client:
            assert whole.get("/own").json() == "own"
            assert whole.get("/v1/models").status_code == 404
            assert client.get("/ready").status_code == 200
            sent = client.post(
                "/v1/contexts", json={"name": "fox", "text": "A fox sleeps. " * 20, "wait": True}
            )
            assert sent.status_code == 201, sent.text
            upload = {"files": ("a.txt", b"A dog sleeps. " * 9)}
            sent = client.post("/v1/contexts?wait=true", data={"name": "dog"}, files=upload)
            assert sent.status_code == 201, sent.text
            assert chat(client, "Who sleeps?", model="tiny@fox").status_code == 200
            assert chat(client, "Who sleeps?", context="cat").status_code == 404
            assert client.get("/openapi.json").json()["servers"] == [{"url": "/ai"}]
            page = client.get("/docs")
            assert "script-src 'self'" in page.headers["content-security-policy"]
            named = re.findall(r'(?:href|src)="([^"#:]+)"', page.text)
            assert {"docs/docs.js", "docs/docs.css", "openapi.json"} <= set(named)
            for name in named:
                assert not name.startswith("/")
                assert name == "./" or client.get(f"/{name}").status_code == 200


def test_the_page_has_all_settings_and_their_defaults() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(.+?)` \| .+\. \|$", PAGE.read_text(), re.MULTILINE)
    assert rows == [(one.name, repr(one.default).replace("'", '"')) for one in fields(Settings)]
