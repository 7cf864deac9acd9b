"""Clients of all kinds for a server, with bounds: what test_mixed_load.py lets loose.

`load(server, keys, seconds, seed)` returns what was answered, when all of them have ended.
"""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import Any

import httpx
from stored import TEXT
from whole_server import MODEL, Whole, chat

CLIENTS = 6
CHAT, TEXTS, CONTEXTS = "/v1/chat/completions", "/v1/completions", "/v1/contexts"


class Seen:
    """statuses : how often which was answered to which kind of request. wrong : what no client should see."""

    def __init__(self) -> None:
        self.statuses: Counter[tuple[str, int]] = Counter()
        self.wrong: list[str] = []
        self.longest = 0.0

    def note(self, what: str, answer: httpx.Response, *may: int) -> None:
        self.statuses[what, answer.status_code] += 1
        if answer.status_code not in (*may, 429):
            self.wrong.append(f"{what}: {answer.status_code} {answer.text[:300]}")


class Client:
    """One of them, who does something else each time."""

    def __init__(self, server: Whole, key: str, name: str, seen: Seen, draw: random.Random) -> None:
        self.server, self.name, self.seen, self.draw = server, name, seen, draw
        self.key, self.names, self.sent = key, list[str](), 0
        self.http = server.client(key)

    def step(self) -> None:
        """One request, of any kind."""
        self.sent += 1
        kinds = (
            self.chats, self.chats, self.streams, self.streams, self.completes, self.uploads, self.asks,
            self.removes, self.counts, self.malformed, self.oversized, self.half, self.slow, self.strange,
            self.looks,
        )  # fmt: skip
        begun = time.monotonic()
        self.draw.choice(kinds)()
        self.seen.longest = max(self.seen.longest, time.monotonic() - begun)

    def question(self, **more: Any) -> dict[str, Any]:
        """Of several lengths, some of which begin the same."""
        text = TEXT[: self.draw.choice((20, 200, 200, 1000))] + str(self.draw.randrange(8))
        return chat(text, **{"max_tokens": self.draw.randrange(1, 20), **more})

    def post(self, what: str, path: str, body: Any, *may: int) -> httpx.Response:
        answer = self.http.post(path, json=body)
        self.seen.note(what, answer, *may)
        return answer

    def chats(self) -> None:
        more: dict[str, Any] = self.draw.choice(
            (
                {},
                {"n": 3, "temperature": 1.0},
                {"logprobs": True},
                {"response_format": {"type": "json_object"}},
            )
        )
        self.post("chat", CHAT, self.question(**more), 200)

    def streams(self) -> None:
        """Some leave in the middle."""
        path, body = CHAT, self.question(stream=True, max_tokens=40)
        if self.draw.random() < 0.3:
            path = TEXTS
            body = {"model": MODEL, "prompt": [TEXT[:300]] * 3, "stream": True, "max_tokens": 20}
        with self.http.stream("POST", path, json=body) as answer:
            if answer.status_code != 200:
                answer.read()
            self.seen.note("stream", answer, 200)
            said = []
            for line in answer.iter_lines():
                said.append(line)
                if self.draw.random() < 0.03:
                    return
        if answer.status_code == 200 and "data: [DONE]" not in said:
            self.seen.wrong.append(f"a stream ended with {said[-3:]}")

    def completes(self) -> None:
        body = {"model": MODEL, "prompt": TEXT[: self.draw.randrange(1, 400)], "max_tokens": 5, "n": 2}
        self.post("completion", TEXTS, body, 200)

    def uploads(self) -> None:
        name = f"{self.name}-{self.sent}"
        if len(self.names) >= 3:
            return self.removes()
        text = TEXT[: self.draw.randrange(100, 900)]
        wait = self.draw.random() < 0.5
        answer = self.post("upload", CONTEXTS, {"name": name, "text": text, "wait": wait}, 201, 202)
        if answer.status_code != 429:
            self.names.append(name)
        return None

    def asks(self) -> None:
        if self.names:
            more = self.draw.choice(({}, {"evidence": True}, {"stream": True}))
            asked = chat("Who jumps?", context=self.draw.choice(self.names), **more)
            self.post("ask", CHAT, asked, 200, 409)  # it may still be read

    def removes(self) -> None:
        if self.names:
            answer = self.http.delete(f"{CONTEXTS}/{self.names.pop(0)}")
            self.seen.note("remove", answer, 200, 409)

    def counts(self) -> None:
        self.post("tokenize", "/tokenize", {"content": TEXT[:500]}, 200)

    def malformed(self) -> None:
        body = json.dumps(self.question()).encode()
        at = self.draw.randrange(len(body))
        cut = self.draw.choice((body[:at], body[:at] + b"\xff" + body[at:], b"[" * 5000, b"NaN"))
        headers = {"Content-Type": "application/json"}
        self.seen.note("malformed", self.http.post(CHAT, content=cut, headers=headers), 400)
        self.post("malformed", CHAT, self.question(temperature="hot"), 400)
        self.post("malformed", CHAT, self.question(tool=1), 400)

    def oversized(self) -> None:
        most = self.server.service.settings.max_body_bytes
        with suppress(httpx.TransportError):  # cut while it sends
            answer = self.http.post(CHAT, content=b" " * (most + 1))
            self.seen.note("oversized", answer, 413)
        self.post("oversized", CHAT, chat(TEXT * 20), 400)

    def _raw(self, pieces: list[bytes], pause: float, read: bool) -> None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.server.port), 60) as client:
            for piece in pieces:
                client.sendall(piece)
                time.sleep(pause)
            if read:
                while client.recv(1 << 16):
                    pass

    def _head(self, length: int) -> bytes:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.key}\r\n"
        return f"{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n".encode()

    def half(self) -> None:
        """Half a body, then the end of the connection, or nothing more."""
        self._raw([self._head(1000), b'{"model"'], 0.0, read=self.draw.random() < 0.3)

    def slow(self) -> None:
        body = json.dumps(self.question()).encode()
        size = len(body) // 8 + 1
        pieces = [self._head(len(body)), *(body[i : i + size] for i in range(0, len(body), size))]
        self._raw(pieces, 0.02, read=False)

    def strange(self) -> None:
        """With no key or a wrong one, or for what is not there."""
        key = self.draw.choice((None, "sk-none-none"))
        with self.server.client(key) as client:
            self.seen.note("strange", client.post(CHAT, json=self.question()), 401)
        self.post("strange", CHAT, chat(context="nobody"), 404)

    def looks(self) -> None:
        for path in ("/v1/models", CONTEXTS, "/metrics", "/v1/stats", "/health"):
            self.seen.note("look", self.http.get(path), 200)


def load(server: Whole, keys: list[str], seconds: float, seed: int) -> Seen:
    """All of them at once, for so many seconds. Contexts of theirs are removed at the end."""
    seen, until = Seen(), time.monotonic() + seconds

    def work(number: int) -> None:
        draw = random.Random(f"{seed} {number}")
        client = Client(server, keys[number % len(keys)], f"w{seed}-{number}", seen, draw)
        with client.http:
            try:
                while time.monotonic() < until and not seen.wrong:
                    client.step()
                while client.names:
                    client.removes()
            except Exception as error:
                seen.wrong.append(f"{client.name}: {error!r}")

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 120)
        if thread.is_alive():
            seen.wrong.append("a client waits for ever")
    return seen
