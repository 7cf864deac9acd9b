"""Keys: who has one is known by it, who has none costs the same; the file is whole, private, and believed
only where it is what sakuin writes."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sakuin.errors import SakuinError
from sakuin.server.tenants import keys as module
from sakuin.server.tenants.keys import Keys
from sakuin.server.tenants.tenant import Allowed, Tenant

WRONG = f"sk-{'0' * 12}-{'a' * 43}"


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "keys.json")


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys that were hashed, which still are."""
    found, matches = [], module._matches

    def noted(code: str, key: str) -> bool:
        found.append(key)
        return matches(code, key)

    monkeypatch.setattr(module, "_matches", noted)
    return found


def test_a_key_is_known_and_no_other(keys: Keys) -> None:
    allowed = Allowed(requests_per_minute=5, concurrent=2, stored_bytes=10**6, context_tokens=99, priority=-3)
    ann, bob = keys.add("ann", allowed, frozenset({"handbook"})), keys.add("bob")
    assert keys.find(ann) == Tenant("ann", allowed, frozenset({"handbook"}))
    assert keys.find(bob) == Tenant("bob")
    mixed = ann[:15] + bob[15:]
    for wrong in (WRONG, mixed, ann[:-1] + ("a" if ann[-1] != "a" else "b")):
        assert keys.find(wrong) is None
        assert keys.find(wrong) is None
    assert [one.tenant.name for one in keys.listed()] == ["ann", "bob"]


@pytest.mark.parametrize(
    "key", ["", "sk-", "ann", WRONG[:-1], WRONG + "a", WRONG + "\n", "sk-" + "é" * 56, "a" * 10**6]
)
def test_what_is_no_key_is_not_hashed(keys: Keys, hashed: list[str], key: str) -> None:
    keys.add("ann")
    assert keys.remembered(key) is False
    assert keys.find(key) is None
    assert hashed == []


def test_a_key_is_hashed_once_whether_it_is_known_or_not(keys: Keys, hashed: list[str]) -> None:
    ann = keys.add("ann")
    seen = keys.remembered(ann), keys.remembered(WRONG)
    assert seen == (True, True)  # only a hash can tell
    for _ in range(3):
        keys.find(ann)
        keys.find(WRONG)
    assert sorted(hashed) == sorted([ann, WRONG])
    assert keys.remembered(ann) == Tenant("ann")
    assert keys.remembered(WRONG) is False
    other = ann[:-1] + ("a" if ann[-1] != "a" else "b")
    assert keys.remembered(other) is True  # a wrong secret for a known id costs what a wrong id does
    keys.find(other)
    assert hashed.count(other) == 1


def test_wrong_keys_are_forgotten_at_some_time(
    keys: Keys, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_WRONG", 2)
    keys.add("ann")
    for last in "abc":
        keys.find(WRONG[:-1] + last)
    assert keys.remembered(WRONG[:-1] + "a") is True
    assert keys.remembered(WRONG[:-1] + "c") is False


def test_what_another_process_changes_holds_at_once(keys: Keys) -> None:
    elsewhere = Keys(keys.path)
    ann = elsewhere.add("ann")
    assert keys.find(ann) == Tenant("ann")
    elsewhere.add("bob")
    assert keys.remembered(ann) == Tenant("ann")  # it is not hashed again for another's sake
    new = elsewhere.add("ann", Allowed(concurrent=1), replace=True)
    assert keys.find(ann) is None
    assert keys.find(new) == Tenant("ann", Allowed(concurrent=1))
    elsewhere.revoke("ann")
    assert keys.remembered(new) is True
    assert keys.find(new) is None


def test_a_key_that_is_revoked_while_it_is_hashed_is_refused(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, matches = keys.add("ann"), module._matches

    def revoked_meanwhile(code: str, key: str) -> bool:
        Keys(keys.path).revoke("ann")
        return matches(code, key)

    monkeypatch.setattr(module, "_matches", revoked_meanwhile)
    assert keys.find(ann) is None


def test_the_file_is_private_and_holds_no_key(keys: Keys) -> None:
    before = os.umask(0)
    try:
        ann = keys.add("ann")
    finally:
        os.umask(before)
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600
    text = keys.path.read_text()
    assert ann not in text
    assert ann.split("-")[2] not in text
    assert "$argon2id$v=19$m=19456,t=2,p=1$" in text
    assert ann not in repr(keys.listed())


def test_a_link_to_the_file_stays_one(keys: Keys, tmp_path: Path) -> None:
    keys.add("ann")
    link = tmp_path / "link.json"
    link.symlink_to(keys.path)
    Keys(link).add("bob")
    assert link.is_symlink()
    assert [one.tenant.name for one in keys.listed()] == ["ann", "bob"]


def test_many_who_make_keys_at_once_lose_none(keys: Keys) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda n: Keys(keys.path).add(f"tenant{n}"), range(8)))
    assert len(keys.listed()) == len(set(made)) == 8


def test_a_name_has_one_key(keys: Keys) -> None:
    keys.add("Zoë")
    with pytest.raises(SakuinError, match=r"has a key already, .*--replace.*revoke"):
        keys.add("Zoe\u0308")  # the same, in other letters
    with pytest.raises(SakuinError, match=r"no key of 'zoe' \(did you mean Zoë\?\); there are Zoë\."):
        keys.revoke("zoe")
    keys.revoke("Zoe\u0308")
    assert keys.listed() == []
    with pytest.raises(SakuinError, match="there is none at all"):
        keys.revoke("Zoë")


@pytest.mark.parametrize(
    "name", ["", "..", "../ann", "a/b", "a\0b", ".ann", "-ann", "a" * 101, "a b", "a\nb"]
)
def test_names_that_could_be_paths_are_refused(keys: Keys, name: str) -> None:
    with pytest.raises(SakuinError, match="who has a key cannot be named"):
        keys.add(name)
    with pytest.raises(SakuinError):
        keys.add("ann", grants=frozenset({name}))
    assert not keys.path.exists()


@pytest.mark.parametrize(
    "limit",
    [
        {"requests_per_minute": 0},
        {"requests_per_minute": 10**6},
        {"concurrent": 0},
        {"concurrent": True},
        {"stored_bytes": -1},
        {"context_tokens": 0.5},
        {"priority": 10**6},
    ],
)
def test_limits_that_cannot_be_are_named(keys: Keys, limit: dict[str, Any]) -> None:
    with pytest.raises(SakuinError, match=f"{next(iter(limit))} must be a whole number"):
        keys.add("ann", Allowed(**limit))


def _without(member: str) -> Callable[[Any], None]:
    return lambda said: said["keys"][0].pop(member)


def _with(member: str, value: Any) -> Callable[[Any], None]:
    return lambda said: said["keys"][0].update({member: value})


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said.update(keys={}),
        lambda said: said["keys"].append(said["keys"][0]),
        lambda said: said["keys"].append(7),
        *(_without(member) for member in ("id", "name", "hash", "created")),
        _with("id", "../ann"),
        _with("name", "../ann"),
        _with("name", 7),
        _with("hash", "secret"),
        # a hash of other costs would take the server's time or memory
        _with("hash", f"$argon2id$v=19$m=4194304,t=99,p=1${'A' * 22}${'A' * 43}"),
        _with("created", float("nan")),
        _with("allowed", {"concurrent": "many"}),
        _with("allowed", {"everything": 1}),
        _with("allowed", []),
        _with("grants", "handbook"),
        _with("grants", ["../x"]),
    ],
)
def test_a_damaged_file_lets_nobody_in(keys: Keys, change: Callable[[Any], None]) -> None:
    ann = keys.add("ann")
    assert keys.find(ann)
    whole = keys.path.read_text()
    said = json.loads(whole)
    change(said)
    keys.path.write_text(json.dumps(said))
    for call in (keys.check, lambda: keys.find(ann), lambda: keys.add("bob"), Keys(keys.path).listed):
        with pytest.raises(SakuinError, match=r"is no file of keys, or is damaged \(.*\); restore it\.$"):
            call()
    keys.path.write_text(whole)
    assert keys.find(ann) == Tenant("ann")


@pytest.mark.parametrize("data", [b"", b"{", b"[" * 100_000, b"\xff", b'{"format": 1}', b"[]"])
def test_a_file_that_is_something_else_is_told(keys: Keys, data: bytes) -> None:
    keys.path.write_bytes(data)
    with pytest.raises(SakuinError, match="is no file of keys, or is damaged"):
        keys.check()


def test_a_file_that_is_not_there_or_newer_or_a_folder_is_told(keys: Keys, tmp_path: Path) -> None:
    with pytest.raises(SakuinError, match=r"there is no file of keys .*; `sakuin keys add NAME"):
        keys.check()
    with pytest.raises(SakuinError, match="there is no folder"):
        Keys(tmp_path / "none" / "keys.json").add("ann")
    with pytest.raises(SakuinError, match="cannot be read"):
        Keys(tmp_path).check()
    keys.path.write_text('{"format": 2, "keys": []}')
    with pytest.raises(SakuinError, match="format version 2, and this sakuin knows 1"):
        keys.check()
    os.unlink(keys.path)
    os.mkfifo(keys.path)  # is not waited for
    with pytest.raises(SakuinError, match="cannot be read"):
        keys.check()


def test_keys_that_are_gone_let_nobody_in(keys: Keys) -> None:
    ann = keys.add("ann")
    assert keys.find(ann)
    keys.path.unlink()
    with pytest.raises(SakuinError, match="there is no file of keys"):
        keys.remembered(ann)
