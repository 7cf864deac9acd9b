"""Who asks is known before a body is read; what strangers can make the server hash is bounded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from guarded_app import App, ask, error_of

from sakuin.server.problems import Problem
from sakuin.server.settings import Settings
from sakuin.server.tenants import door as module
from sakuin.server.tenants.door import Door
from sakuin.server.tenants.keys import Keys
from sakuin.server.tenants.limits import TenantLimits
from sakuin.server.tenants.tenant import Allowed, Tenant

WRONG = f"sk-{'0' * 12}-{'a' * 43}"


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "keys.json")


def with_keys(keys: Keys, **settings: Any) -> App:
    return App(Settings(api_keys=str(keys.path), **settings), keys)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_without_a_right_key_nothing_is_sent_and_no_body_is_read(keys: Keys) -> None:
    ann = keys.add("ann")
    app = with_keys(keys)
    for headers in ({}, bearer(WRONG), bearer(""), bearer("x"), {"Authorization": f"Basic {ann}"}):
        answer = ask(app, "POST", "/v1/contexts", content=b"{}", headers=headers)
        assert (answer.status_code, error_of(answer)["code"]) == (401, "invalid_api_key")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert ask(app, "GET", "/v1/list", headers=headers).status_code == 401
    assert app.seen == []
    assert ask(app, "GET", "/health").status_code == 200
    assert ask(app, "GET", "/").status_code == 200
    assert ask(app, "GET", "/v1/list", headers=bearer(ann)).json() == {"tenant": "ann"}
    assert ask(app, "POST", "/v1/echo", json={}, headers=bearer(ann)).json()["tenant"] == "ann"
    keys.revoke("ann")
    assert ask(app, "GET", "/v1/list", headers=bearer(ann)).status_code == 401


def test_without_keys_everybody_may_ask() -> None:
    keyless = App(Settings())
    for headers in ({}, bearer(WRONG), {"Authorization": "Basic x"}):  # clients send some key anyway
        assert ask(keyless, "POST", "/v1/echo", json={}, headers=headers).json()["tenant"] == ""


def test_keys_that_cannot_be_read_let_nobody_in_and_tell_no_path(keys: Keys) -> None:
    ann = keys.add("ann")
    app = with_keys(keys)
    assert ask(app, "GET", "/v1/list", headers=bearer(ann)).status_code == 200
    keys.path.write_text("{")
    answer = ask(app, "GET", "/v1/list", headers=bearer(ann))
    assert answer.status_code == 503
    assert error_of(answer)["code"] == "no_keys"
    assert str(keys.path) not in answer.text


def test_limits_hold_until_the_answer_has_ended(keys: Keys) -> None:
    ann = keys.add("ann", Allowed(requests_per_minute=6, concurrent=1))
    app = with_keys(keys)

    async def two() -> list[int]:
        transport = httpx.ASGITransport(app.api)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            one = client.post("/v1/stream?pieces=20", headers=bearer(ann))
            other = client.post("/v1/stream?pieces=20", headers=bearer(ann))
            looks = client.get("/v1/stream?pieces=20", headers=bearer(ann))
            return [answer.status_code for answer in await asyncio.gather(one, other, looks)]

    assert sorted(asyncio.run(two())) == [200, 200, 429]
    for _ in range(5):
        answer = ask(app, "POST", "/v1/stream", headers=bearer(ann))
        assert answer.status_code == 200
    refused = ask(app, "POST", "/v1/stream", headers=bearer(ann))
    assert (refused.status_code, error_of(refused)["code"]) == (429, "rate_limit_exceeded")
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert ask(app, "GET", "/v1/list", headers=bearer(ann)).status_code == 200  # looking is counted apart


class Counted(Keys):
    """Keys that count what is hashed, each when it is let."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.hashed, self.running, self.most = 0, 0, 0
        self.let = threading.Event()

    def find(self, key: str) -> Tenant | None:
        self.running += 1
        self.hashed, self.most = self.hashed + 1, max(self.most, self.running)
        assert self.let.wait(60)
        try:
            return super().find(key)
        finally:
            self.running -= 1


def knock(door: Door, keys: list[tuple[str, str]], let: Callable[[], None]) -> list[int]:
    """Show all (key, address) at once; `let` is called when all have knocked. The statuses that they get."""

    async def one(key: str, address: str) -> int:
        scope = {"headers": [(b"authorization", f"Bearer {key}".encode())], "client": (address, 1)}
        try:
            return 200 if await door.tenant(scope) else 401
        except Problem as problem:
            waits = problem.status != 429 or int(problem.headers["Retry-After"]) >= 1
            return problem.status if waits else 0

    async def all_of_them() -> list[int]:
        tasks = [asyncio.create_task(one(*key)) for key in keys]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        let()
        return await asyncio.gather(*tasks)

    return asyncio.run(all_of_them())


@pytest.fixture
def counted(keys: Keys) -> Counted:
    keys.add("bob")
    return Counted(keys.path)


def wrong_keys(n: int) -> list[str]:
    return [f"sk-{i:012x}-{'a' * 43}" for i in range(n)]


def test_thousands_of_wrong_keys_cost_a_bounded_number_of_hashes(counted: Counted) -> None:
    ann = counted.add("ann")
    now = [0.0]
    door = Door(counted, TenantLimits(), lambda: now[0])
    counted.let.set()
    assert knock(door, [(ann, "10.0.0.9")], lambda: None) == [200]
    counted.let.clear()
    said = knock(door, [(key, "10.0.0.1") for key in wrong_keys(3000)], counted.let.set)
    assert said.count(401) == module.MOST_OF_ONE
    assert said.count(429) == 3000 - module.MOST_OF_ONE
    assert counted.hashed == 1 + module.MOST_OF_ONE
    assert counted.most == 1  # one at a time
    before = counted.hashed
    more = [f"sk-{i:012x}-{'b' * 43}" for i in range(1000)]
    assert knock(door, [(key, "10.0.0.1") for key in more], lambda: None) == [429] * 1000
    assert knock(door, [(ann, "10.0.0.1")], lambda: None) == [200]  # a key that is known stays in
    assert counted.hashed == before
    assert knock(door, [(more[0], "10.0.0.2")], lambda: None) == [401]  # another address pays for itself
    now[0] += (module.MOST_OF_ONE + 1) * module.WRONG_S
    assert knock(door, [(key, "10.0.0.1") for key in more[1:2]], lambda: None) == [401]  # it is forgiven
    assert (door._checked, dict(door._waiting)) == ({}, {})
    door.close()


def test_addresses_of_one_network_are_one_and_many_networks_are_bounded(counted: Counted) -> None:
    door = Door(counted, TenantLimits())
    one_home = [(key, f"2001:db8::{n + 1:x}") for n, key in enumerate(wrong_keys(100))]
    assert knock(door, one_home, counted.let.set).count(401) == module.MOST_OF_ONE
    counted.let.clear()
    many = [(f"sk-{n:012x}-{'c' * 43}", f"2001:db8:{n + 1:x}::1") for n in range(1000)]
    assert knock(door, many, counted.let.set).count(401) == module.MOST_CHECKED
    door.close()


def test_one_key_of_many_at_once_is_hashed_once(counted: Counted) -> None:
    ann = counted.add("ann")
    door = Door(counted, TenantLimits())
    assert knock(door, [(ann, "10.0.0.1")] * 200, counted.let.set) == [200] * 200
    assert counted.hashed == 1
    door.close()


def test_who_goes_while_a_key_is_hashed_leaves_it_to_the_others(counted: Counted) -> None:
    ann = counted.add("ann")
    door = Door(counted, TenantLimits())
    scope = {"headers": [(b"authorization", f"Bearer {ann}".encode())], "client": ("10.0.0.1", 1)}

    async def two() -> Tenant | None:
        first, second = (asyncio.create_task(door.tenant(scope)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        counted.let.set()
        return await second

    assert asyncio.run(two()) == Tenant("ann")
    assert (door._checked, dict(door._waiting)) == ({}, {})
    door.close()
