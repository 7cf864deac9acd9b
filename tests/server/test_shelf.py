"""Whose contexts are whose: a tenant sees, asks and removes its own, asks those that are granted to it, and
learns nothing of others. What is open is opened once."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from contexts_app import Held, ready, served
from stored import CONFIG, MORE, TEXT, model_of, read, said

from sakuin import Context, Library
from sakuin.backends.open import backend_of
from sakuin.documents import Document
from sakuin.errors import SakuinError
from sakuin.library.folder import Folder
from sakuin.server.contexts.shelf import Shelf, Shelves
from sakuin.server.problems import Problem
from sakuin.server.tenants.tenant import Allowed, Tenant

SMALL = 60_000
TENANTS = {
    "ann": Tenant("ann", grants=frozenset({"rules", "fox"})),
    "bob": Tenant("bob"),
    "kim": Tenant("kim", Allowed(stored_bytes=SMALL, context_tokens=1000)),
}


def by(name: str) -> dict[str, dict[str, str]]:
    return {"headers": {"Authorization": f"Bearer {name}"}}


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[tuple[Held, httpx.Client]]:
    library = Library(tmp_path / "library")
    for name, text in (("rules", TEXT), ("secret", MORE * 3)):
        library.add(name, [Document("a.txt", text)], *model_of(), CONFIG)
    with served(tmp_path / "library", tenants=TENANTS) as found:
        yield found


def names(client: httpx.Client, tenant: str) -> list[str]:
    return [one["id"] for one in client.get("/v1/contexts", **by(tenant)).json()["data"]]


def test_tenants_see_their_own_and_what_is_granted(keyed: tuple[Held, httpx.Client]) -> None:
    _, client = keyed
    for tenant in ("ann", "bob"):
        sent = client.post(
            "/v1/contexts?wait=true", json={"name": "fox", "text": f"{tenant} {TEXT}"}, **by(tenant)
        )
        assert sent.status_code == 201
    assert (names(client, "ann"), names(client, "bob"), names(client, "kim")) == (
        ["fox", "rules"],
        ["fox"],
        [],
    )
    assert client.get("/v1/contexts/rules", **by("ann")).json()["shared"]
    assert client.get("/v1/contexts/rules/text", **by("ann")).json()["documents"][0]["text"] == TEXT
    for tenant in ("ann", "bob"):
        shown = client.get("/v1/contexts/fox/text", **by(tenant)).json()
        assert shown["documents"][0]["text"] == f"{tenant} {TEXT}"


def test_a_strangers_context_is_as_one_that_is_not_there(keyed: tuple[Held, httpx.Client]) -> None:
    _, client = keyed
    client.post("/v1/contexts?wait=true", json={"name": "mine", "text": TEXT}, **by("ann"))
    for path, method in (
        ("", "GET"), ("", "DELETE"), ("", "PATCH"), ("/text", "GET"), ("/events", "GET"), ("/append", "POST"),
    ):  # fmt: skip
        body = {"text": "x"} if method == "POST" else {"pinned": True} if method == "PATCH" else None
        answers = [
            client.request(method, f"/v1/contexts/{name}{path}", json=body, **by("bob"))
            for name in ("mine", "secret", "rules", "nobody")
        ]
        assert {one.status_code for one in answers} == {404}
        said_of = {
            one.text.replace(name, "?")
            for one, name in zip(answers, ("mine", "secret", "rules", "nobody"), strict=True)
        }
        assert len(said_of) == 1
    assert client.get("/v1/contexts", headers={"Authorization": "Bearer nobody"}).status_code == 401
    assert names(client, "ann") == ["mine", "rules"]


def test_what_is_granted_is_not_changed(keyed: tuple[Held, httpx.Client]) -> None:
    held, client = keyed
    assert client.delete("/v1/contexts/rules", **by("ann")).status_code == 403
    assert client.patch("/v1/contexts/rules", json={"pinned": True}, **by("ann")).status_code == 403
    assert client.post("/v1/contexts/rules/append", json={"text": "x"}, **by("ann")).status_code == 403
    assert Library(held.shelves.root).find("rules").name == "rules"
    # One of its own of the same name goes before.
    client.post("/v1/contexts?wait=true", json={"name": "rules", "text": MORE}, **by("ann"))
    assert not client.get("/v1/contexts/rules", **by("ann")).json()["shared"]
    assert client.delete("/v1/contexts/rules", **by("ann")).status_code == 200
    assert client.get("/v1/contexts/rules", **by("ann")).json()["shared"]


def test_the_library_around_leaves_tenants_alone(keyed: tuple[Held, httpx.Client], tmp_path: Path) -> None:
    held, client = keyed
    client.post("/v1/contexts?wait=true", json={"name": "fox", "text": TEXT}, **by("bob"))
    outer = Library(tmp_path / "library")
    inner = Library(tmp_path / "library" / "tenants" / "bob")
    before = {path: path.stat().st_size for path in inner.folder.path.rglob("*")}
    assert [entry.name for entry in outer.entries()] == ["rules", "secret"]
    outer.gc()
    outer.quota = outer.folder.size()
    outer.remove("secret")
    assert all(damage == [] for damage in outer.verify().values())
    assert {path: path.stat().st_size for path in inner.folder.path.rglob("*")} == before
    assert inner.verify() == {"fox": []}
    # One that has lost its library.json goes on, tenants and spool in it or not.
    (outer.folder.path / "library.json").unlink()
    outer.folder.make()
    assert said(held.shelves.of(TENANTS["bob"]).open("fox"))[0]


def test_no_more_is_stored_than_a_tenant_may(keyed: tuple[Held, httpx.Client]) -> None:
    held, client = keyed
    sent = client.post("/v1/contexts", json={"name": "long", "text": TEXT}, **by("kim"))
    assert sent.status_code == 202
    found = ready(client, "long", **by("kim")["headers"])
    assert (found["status"], found["error"]["n_ctx"]) == ("failed", 1000)
    assert "your key allows 1,000" in found["error"]["message"]
    client.post("/v1/contexts", json={"name": "big", "text": TEXT[:900]}, **by("kim"))
    found = ready(client, "big", **by("kim")["headers"])
    assert found["error"]["code"] == "quota_exceeded", found
    assert "0 MB may be stored" in found["error"]["message"]
    library = held.shelves.library_of("kim")
    assert (library.quota, library.entries()) == (SMALL, [])
    assert str(held.shelves.root) not in found["error"]["message"]


def test_what_is_not_pinned_gives_way_where_the_quota_is_reached(keyed: tuple[Held, httpx.Client]) -> None:
    held, client = keyed
    held.tenants = {"kim": Tenant("kim", Allowed(stored_bytes=1 << 30))}
    add = "/v1/contexts?wait=true"
    client.post(add, json={"name": "a", "text": TEXT}, **by("kim"))
    size = held.shelves.library_of("kim").folder.size()
    held.tenants = {"kim": Tenant("kim", Allowed(stored_bytes=int(1.7 * size)))}
    second = client.post(add, json={"name": "b", "text": f"b {TEXT}", "pinned": True}, **by("kim"))
    assert second.status_code == 201
    assert names(client, "kim") == ["b"]
    third = client.post(add, json={"name": "c", "text": f"c {TEXT}"}, **by("kim"))
    assert third.status_code == 400
    message = third.json()["error"]["message"]
    assert message.startswith("the library takes")
    assert "its quota is" in message
    assert str(held.shelves.root) not in message
    assert names(client, "kim") == ["b", "c"]  # c as what failed
    assert client.get("/v1/contexts/c", **by("kim")).json()["status"] == "failed"


# -- having them open ------------------------------------------------------------------------------------


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    library = Library(tmp_path / "library")
    for i in range(4):
        library.add(f"c{i}", [Document("a.txt", f"{i} {TEXT[:600]}")], *model_of(), CONFIG)
    return Shelves(tmp_path / "library", backend_of(*model_of()), most=2).of(Tenant())


def test_many_who_open_one_at_once_open_it_once(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    snapshot = Context.of_snapshot.__func__  # type: ignore[attr-defined]

    def noted(cls: type[Context], found: Any) -> Context:
        opened.append(found)
        time.sleep(0.05)
        context: Context = snapshot(cls, found)
        return context

    monkeypatch.setattr(Context, "of_snapshot", classmethod(noted))
    with ThreadPoolExecutor(8) as pool:
        every = list(pool.map(lambda _: shelf.open("c0"), range(8)))
    assert len(opened) == 1
    assert len({id(one) for one in every}) == 1


def test_what_was_not_asked_for_the_longest_time_is_closed(shelf: Shelf) -> None:
    first = shelf.open("c0")
    for name in ("c1", "c0", "c2"):
        shelf.open(name)
    assert shelf.shelves.counts()[0] == 2
    assert shelf.open("c0") is first
    shelf.open("c3")
    shelf.open("c2")
    assert shelf.open("c0") is not first
    assert said(first)[0]  # who has it goes on


def test_one_that_was_changed_is_opened_again(shelf: Shelf) -> None:
    first = shelf.open("c0")
    shelf.library.append("c0", MORE, *model_of())
    assert shelf.open("c0").tokens > first.tokens
    shelf.library.change("c0", keep_for=0.0)
    time.sleep(0.01)
    with pytest.raises(Problem, match="no context 'c0'"):
        shelf.open("c0")
    assert "c0" not in [entry.name for entry, _ in shelf.entries()]
    shelf.library.remove("c1")
    with pytest.raises(Problem, match="no context 'c1'"):
        shelf.open("c1")


def test_one_that_is_open_is_not_read_again(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    first = shelf.open("c0")
    monkeypatch.setattr(Folder, "find", None)  # whatever reads a manifest fails
    assert all(shelf.open("c0") is first for _ in range(100))


def test_a_damaged_one_and_another_models_are_said_without_paths(shelf: Shelf, tmp_path: Path) -> None:
    library = shelf.library
    manifest = library.folder.manifest("c1")
    manifest.write_bytes(manifest.read_bytes()[:-20])
    library.save("other", read("qwen2"))
    for name in ("c1", "other"):
        with pytest.raises(Problem) as caught:
            shelf.open(name)
        assert caught.value.status == 400
        assert str(tmp_path) not in str(caught.value)
    part = next(iter(library.find("c2").manifest.files))
    (library.folder.parts.folder / part).unlink()
    with pytest.raises(Problem) as caught:
        shelf.open("c2")
    assert str(tmp_path) not in str(caught.value)


def test_where_things_are_is_never_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for root in ("lib", ".", str(tmp_path / "a b")):
        shelves = Shelves(root, backend_of(*model_of()))
        for path, words in (
            (shelves.root, "the library in {} takes 3 MB; the disk that holds {} is full."),
            (shelves.root / "tenants" / "x", "{}/contexts/a.json is damaged: liberty. Go on."),
        ):
            said_of = shelves.told(SakuinError(words.format(path, path)))
            assert str(tmp_path) not in said_of
            assert said_of in (
                "the library takes 3 MB; the disk that holds the library is full.",
                "the library is damaged: liberty. Go on.",
            )


def test_one_that_another_process_is_at_is_not_removed(shelf: Shelf) -> None:
    with shelf.library.folder.working_on("c0"):
        with pytest.raises(Problem, match="by another process") as caught:
            shelf.remove("c0")
        assert caught.value.status == 409
    shelf.remove("c0")


def test_asking_and_removing_at_once_never_fails_oddly(shelf: Shelf) -> None:
    wrong: list[BaseException] = []

    def ask() -> None:
        for _ in range(20):
            try:
                said(shelf.open("c0"))
            except Problem as problem:
                if problem.status != 404:
                    wrong.append(problem)
            except BaseException as error:
                wrong.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        time.sleep(0.05)
        shelf.remove("c0")
        shelf.library.add("c0", [Document("a.txt", TEXT[:500])], *model_of(), CONFIG)
    for thread in threads:
        thread.join(120)
    assert wrong == []


def test_a_library_that_is_not_there_is_empty(tmp_path: Path) -> None:
    shelves = Shelves(tmp_path / "none", backend_of(*model_of()))
    shelf = shelves.of(Tenant("ann"))
    assert shelf.entries() == []
    with pytest.raises(Problem, match="no context 'x'"):
        shelf.open("x")
    assert not (tmp_path / "none").exists()
    shelves.writable(Tenant("ann"))
    assert sorted(path.name for path in (tmp_path / "none" / "tenants").iterdir()) == ["ann"]
    shutil.rmtree(tmp_path / "none")
