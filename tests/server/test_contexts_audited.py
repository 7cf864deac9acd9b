"""Who adds, changes, reads or removes a context is written down; what it says is not."""

from __future__ import annotations

import json
from pathlib import Path

from contexts_app import served


def test_all_that_is_done_to_a_context_is_written_down(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    with served(tmp_path / "library", audit=str(log)) as (_, client):
        client.post("/v1/contexts", json={"name": "fox", "text": "The fox sleeps.", "wait": True})
        client.post("/v1/contexts/fox/append", json={"text": " So does the dog.", "wait": True})
        client.get("/v1/contexts/fox/text")
        client.patch("/v1/contexts/fox", json={"name": "den", "pinned": True})
        client.delete("/v1/contexts/den")
        for method, path in (("GET", "fox/text"), ("DELETE", "fox")):  # what is refused is not done
            assert client.request(method, f"/v1/contexts/{path}").status_code == 404
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(one["event"], one["context"]) for one in lines] == [
        ("add", "fox"),
        ("append", "fox"),
        ("text", "fox"),
        ("change", "fox"),
        ("remove", "den"),
    ]
    assert (lines[3]["name"], lines[3]["pinned"]) == ("den", True)
    assert "sleeps" not in log.read_text()
