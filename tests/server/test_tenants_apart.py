"""Two keys of one server: neither sees, reuses, changes or can time what the other has; limits are by key."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from stored import CONFIG, TEXT, counted, model_of
from whole_app import cached_of, chat, client_of, whole

from sakuin import Library
from sakuin.documents import Document
from sakuin.server.service import Service
from sakuin.server.tenants.keys import Keys
from sakuin.server.tenants.tenant import Allowed

LIMITED = {
    "minute": Allowed(requests_per_minute=3),
    "once": Allowed(concurrent=1),
    "small": Allowed(stored_bytes=20_000, context_tokens=600),
}


class Two:
    """A server, and clients of it by the names of their keys."""

    def __init__(self, service: Service, url: str, keys: Keys, found: dict[str, str]) -> None:
        self.service, self.url, self.keys = service, url, keys
        self.by = {name: client_of(url, key) for name, key in found.items()}

    def __getattr__(self, name: str) -> httpx.Client:
        return self.by[name]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    folder = tmp_path_factory.mktemp("apart")
    library = Library(folder / "library")
    for name in ("handbook", "secret"):
        library.add(name, [Document("a.txt", f"{name}. {TEXT}")], *model_of(), CONFIG)
    keys = Keys(folder / "keys.json")
    found = {"ann": keys.add("ann"), "bob": keys.add("bob", grants=frozenset({"handbook"}))}
    found |= {name: keys.add(name, allowed) for name, allowed in LIMITED.items()}
    with whole(folder / "library", api_keys=str(keys.path)) as (service, url):
        two = Two(service, url, keys, found)
        sent = two.ann.post("/v1/contexts", json={"name": "hers", "text": TEXT, "wait": True})
        assert sent.status_code == 201, sent.text
        yield two
        for client in two.by.values():
            client.close()


def ways(name: str) -> list[tuple[str, str, dict[str, Any] | None]]:
    """All requests that a context can be named by."""
    messages = [{"role": "user", "content": "Who?"}]
    by_model = f"tiny@{name}"
    return [
        ("GET", f"/v1/contexts/{name}", None),
        ("GET", f"/v1/contexts/{name}/text", None),
        ("GET", f"/v1/contexts/{name}/events", None),
        ("PATCH", f"/v1/contexts/{name}", {"pinned": True}),
        ("POST", f"/v1/contexts/{name}/append", {"text": "More."}),
        ("DELETE", f"/v1/contexts/{name}", None),
        ("POST", "/v1/chat/completions", {"model": "tiny", "messages": messages, "context": name}),
        ("POST", "/v1/chat/completions", {"model": by_model, "messages": messages}),
        ("POST", "/v1/responses", {"model": "tiny", "input": "Who?", "context": name}),
        ("POST", "/v1/responses", {"model": by_model, "input": "Who?"}),
        ("POST", "/v1/completions", {"model": by_model, "prompt": "Who?"}),
        ("POST", "/v1/count_tokens", {"model": "tiny", "messages": messages, "context": name}),
        ("POST", "/tokenize", {"model": by_model, "content": "Who?"}),
        ("GET", f"/v1/models/{by_model}", None),
    ]


def test_a_strangers_context_is_not_there(two: Two) -> None:
    nobodys = ways("nobodys")
    for name in ("hers", "secret"):
        for (method, path, body), (_, other, unknown) in zip(ways(name), nobodys, strict=True):
            answer = two.bob.request(method, path, json=body)
            expected = two.bob.request(method, other, json=unknown)
            assert (answer.status_code, expected.status_code) == (404, 404), (method, path)
            assert answer.text.replace(name, "nobodys") == expected.text
    routes = {path.replace("nobodys", "{id}") for _, path, _ in nobodys}
    known = two.bob.get("/openapi.json").json()["paths"]
    assert {path for path in known if "{id}" in path} <= routes
    assert two.ann.get("/v1/contexts/hers").json()["status"] == "ready"


def test_lists_hold_what_is_ones_own_and_what_is_granted(two: Two) -> None:
    for tenant, names in (("ann", ["hers"]), ("bob", ["handbook"]), ("small", [])):
        contexts = two.by[tenant].get("/v1/contexts").json()["data"]
        assert [one["id"] for one in contexts] == names
        models = two.by[tenant].get("/v1/models").json()["data"]
        assert [one["id"] for one in models] == ["tiny", *(f"tiny@{name}" for name in names)]


def test_what_is_granted_can_be_asked_and_not_changed(two: Two) -> None:
    said = two.bob.get("/v1/contexts/handbook").json()
    assert said["shared"]
    assert two.bob.get("/v1/contexts/handbook/text").json()["documents"][0]["text"] == f"handbook. {TEXT}"
    assert cached_of(chat(two.bob, "Who jumps?", context="handbook")) > 1000
    assert cached_of(chat(two.bob, "Who jumps?", model="tiny@handbook", evidence=True)) > 1000
    for method, path, body in ways("handbook")[3:6]:
        answer = two.bob.request(method, path, json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "context_shared"), method
    assert {**two.bob.get("/v1/contexts/handbook").json(), "used": 0} == {**said, "used": 0}
    assert chat(two.ann, "Who jumps?", context="handbook").status_code == 404


def complete(client: httpx.Client, prompt: str) -> httpx.Response:
    return client.post("/v1/completions", json={"model": "tiny", "prompt": prompt, "max_tokens": 4})


def test_what_one_has_had_read_is_not_reused_by_the_other(two: Two) -> None:
    prompt = "A chat that begins like another. " * 12
    for ask in (chat, complete):
        assert cached_of(ask(two.ann, prompt)) < 100
        assert cached_of(ask(two.ann, prompt)) > 300
        assert cached_of(ask(two.bob, prompt)) == 0
        assert cached_of(ask(two.bob, prompt)) > 300


def test_an_open_context_is_not_gone_on_from_by_the_other(two: Two) -> None:
    held = two.service.shelves.library_of("ann").open("hers", *model_of()).reading
    ids = [int(each) for each in held.ids]
    chat(two.ann, "Who?", context="hers")  # now it is open
    assert cached_of(complete(two.bob, ids)) == 0  # type: ignore[arg-type]
    assert cached_of(complete(two.ann, ids)) > 1000  # type: ignore[arg-type]


def test_the_same_text_is_read_and_stored_again_for_the_other(two: Two) -> None:
    with counted(two.service.backend.model) as passes:
        sent = two.bob.post("/v1/contexts", json={"name": "his", "text": TEXT, "wait": True})
        assert sent.status_code == 201
    assert sum(passes) >= sent.json()["tokens"] - 1
    files: dict[str, set[int]] = {
        name: {
            os.stat(path).st_ino
            for path in (two.service.shelves.root / "tenants" / name).rglob("*")
            if path.is_file()
        }
        for name in ("ann", "bob")
    }
    assert files["ann"]
    assert files["bob"]
    assert not files["ann"] & files["bob"]
    assert two.bob.delete("/v1/contexts/his").status_code == 200


def alike(first: list[float], second: list[float]) -> None:
    """Two lists of seconds are about the same: their medians, and how they are mixed."""
    a, b = statistics.median(first), statistics.median(second)
    assert 1 / 1.5 < a / b < 1.5
    assert abs(shifted(first, second)) < 6


def shifted(first: list[float], second: list[float]) -> float:
    """By how many standard deviations the ranks of `first` are above chance (Mann and Whitney's test)."""
    n, m = len(first), len(second)
    wins = sum((x > y) + (x == y) / 2 for x in first for y in second)
    return (wins - n * m / 2) / (n * m * (n + m + 1) / 12) ** 0.5


def alternating(
    n: int, first: Callable[[int], float], second: Callable[[int], float]
) -> tuple[list[float], list[float]]:
    both: tuple[list[float], list[float]] = ([], [])
    for i in range(n):
        for at in (0, 1) if i % 2 else (1, 0):
            both[at].append((first, second)[at](i))
    return both


def test_the_comparison_sees_a_difference_of_a_tenth() -> None:
    one = [1 + (i * 37 % 100) / 500 for i in range(200)]
    assert abs(shifted(one, one[::-1])) < 1
    assert shifted([1.1 * each for each in one], one) > 6


@pytest.mark.slow  # it measures times, and wants a machine that does nothing else
def test_the_time_of_a_refusal_does_not_tell_that_another_has_it(two: Two) -> None:
    def refused(name: str, body: bool) -> float:
        begun = time.perf_counter()
        answer = chat(two.bob, "Who?", context=name) if body else two.bob.get(f"/v1/contexts/{name}")
        assert answer.status_code == 404
        return time.perf_counter() - begun

    for body in (True, False):
        alike(
            *alternating(
                200, lambda _, body=body: refused("hers", body), lambda _, body=body: refused("sirs", body)
            )
        )


def first_token(client: httpx.Client, prompt: str) -> float:
    """Seconds until the first piece of an answer."""
    body = {"model": "tiny", "prompt": prompt, "max_tokens": 1, "stream": True}
    begun = time.perf_counter()
    with client.stream("POST", "/v1/completions", json=body) as answer:
        lines = answer.iter_lines()
        next(line for line in lines if line.startswith("data:"))
        took = time.perf_counter() - begun
        assert [line for line in lines if line][-1] == "data: [DONE]"
    return took


@pytest.mark.slow  # it measures times, and wants a machine that does nothing else
def test_the_time_to_a_first_token_does_not_tell_what_another_has_had_read(two: Two) -> None:
    def prompt(kind: str, i: int) -> str:
        return f"{kind} {i:03}: " + TEXT[:900]

    n = 25
    hers = [first_token(two.ann, prompt("hers", i)) for i in range(n)]
    again = [first_token(two.ann, prompt("hers", i)) for i in range(n)]
    assert shifted(again, hers) < -3  # she is sooner, who had it read
    alike(
        *alternating(
            n,
            lambda i: first_token(two.bob, prompt("hers", i)),
            lambda i: first_token(two.bob, prompt("sirs", i)),
        )
    )


# -- limits --------------------------------------------------------------------------------------------------


def test_requests_a_minute_are_counted_by_key(two: Two) -> None:
    assert [chat(two.minute, "Who?").status_code for _ in range(3)] == [200] * 3
    looks = [two.minute.get("/v1/models") for _ in range(31)]  # ten times as often
    assert [answer.status_code for answer in looks[:30]] == [200] * 30
    for answer in (looks[30], chat(two.minute, "Who?")):
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert two.ann.get("/v1/models").status_code == 200


def test_one_at_once_is_one_at_once(two: Two) -> None:
    body = {"model": "tiny", "prompt": "Go on", "max_tokens": 3000, "stream": True, "end_loops": False}
    body["logit_bias"] = {"2": -100}  # by no rounding of any machine does it end by itself
    with two.once.stream("POST", "/v1/completions", json=body) as running:
        assert running.status_code == 200
        lines = running.iter_lines()  # held: dropped, it would close the stream
        next(lines)
        refused = chat(two.once, "Who?")
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_at_once")
        assert int(refused.headers["retry-after"]) >= 1
        assert two.once.get("/v1/models").status_code == 200
        assert chat(two.ann, "Who?").status_code == 200
    for _ in range(600):
        if (answer := chat(two.once, "Who?")).status_code == 200:
            return
        time.sleep(0.1)
    raise AssertionError(answer.text)


def test_stored_bytes_and_lengths_are_limited(two: Two) -> None:
    upload = {"name": "a", "text": TEXT[:500], "wait": True}
    error = two.small.post("/v1/contexts", json=upload).json()["error"]
    assert error["code"] == "quota_exceeded", error
    error = two.small.post("/v1/contexts", json={**upload, "name": "b", "text": TEXT}).json()["error"]
    assert (error["n_ctx"], error["n_prompt_tokens"] > 600) == (600, True)
    answer = chat(two.small, TEXT)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["n_ctx"]) == (400, "context_length_exceeded", 600)
    assert error["n_prompt_tokens"] > len(TEXT)
    assert chat(two.small, "Who?").status_code == 200


def test_a_key_that_is_revoked_ends_at_once_and_what_runs_is_finished(two: Two) -> None:
    with client_of(two.url, two.keys.add("gone")) as client:
        body = {"model": "tiny", "prompt": "Go on", "max_tokens": 40, "stream": True, "end_loops": False}
        with client.stream("POST", "/v1/completions", json=body) as running:
            lines = running.iter_lines()
            next(lines)
            two.keys.revoke("gone")
            assert [line for line in lines if line][-1] == "data: [DONE]"
        assert chat(client, "Who?").status_code == client.get("/v1/models").status_code == 401
