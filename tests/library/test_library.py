"""The library: contexts by name, common parts once, interrupted reading resumed, limits kept, nothing
lost."""

from __future__ import annotations

import io
import os
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from stored import CONFIG, MORE, QUESTION, TEXT, WINDOWED, counted, model_of, said, windows_every

from sakuin import Context, Library, RetrievalConfig
from sakuin.backends.transformers.shape import shape_of
from sakuin.capacity.disk import stored_bytes
from sakuin.documents import Document
from sakuin.errors import SakuinError
from sakuin.library import archive
from sakuin.library.folder import GRACE
from sakuin.storage.locks import locked

FIRST, SECOND = TEXT, TEXT[:1000] + "But the rest of it is another story altogether. " * 12


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "library")


def add(library: Library, name: str, text: str = FIRST, family: str = "llama", **more: Any) -> Context:
    return library.add(name, [Document("a.txt", text)], *model_of(family), CONFIG, **more)


def names(library: Library) -> list[str]:
    return [entry.name for entry in library.entries()]


def test_what_was_added_is_there_and_answers(library: Library) -> None:
    context = add(library, "first")
    opened = library.open("first", *model_of())
    assert said(opened) == said(context)
    assert opened.ask(QUESTION, 4).evidence[0].file == "a.txt"
    (entry,) = library.entries()
    assert (entry.name, entry.state, entry.tokens) == ("first", "whole", context.tokens)
    assert entry.bytes == entry.own_bytes == sum(library.folder.parts.all().values())
    assert library.show("first")["documents"] == ["a.txt"]
    assert library.verify() == {"first": []}


@pytest.mark.parametrize("family", ["llama", WINDOWED])
def test_a_common_beginning_is_read_and_stored_once(library: Library, family: str) -> None:
    model, _ = model_of(family)
    with windows_every(256):
        add(library, "first", FIRST, family)
        with counted(model) as passes:
            second = add(library, "second", SECOND, family)
    assert second.reused_tokens >= 700
    assert sum(passes) == second.tokens - second.reused_tokens
    alone = Context.from_text(*model_of(family), SECOND, CONFIG)
    assert said(second)[0] == said(alone)[0]
    assert said(library.open("second", *model_of(family))) == said(second)
    stored = [
        {part["file"] for part in map(with_file, library.show(name)["parts"])} for name in ("first", "second")
    ]
    assert len(stored[0] & stored[1]) >= 6
    assert len(library.folder.parts.all()) == len(stored[0] | stored[1])
    library.remove("first")
    assert library.verify() == {"second": []}
    assert said(library.open("second", *model_of(family))) == said(second)


def with_file(part: dict[str, Any]) -> dict[str, Any]:
    return part | {"file": f"{part['name'][:32]}-{part['sha256']}.safetensors"}


@pytest.mark.parametrize("family", ["llama", WINDOWED])
def test_an_interrupted_add_goes_on_where_it_was(
    library: Library, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sakuin.backends.transformers.backend.CHUNK", 128)
    # What is sealed when the reading stops would depend on how fast the background thread is.
    monkeypatch.setattr("sakuin.cache.sealing.spare_core", lambda: False)

    def stop(done: int, total: int, phase: str) -> None:
        if phase == "prefill" and done > 1000:
            raise KeyboardInterrupt

    with windows_every(128):
        with pytest.raises(KeyboardInterrupt):
            add(library, "long", family=family, progress=stop)
        (entry,) = library.entries()
        assert entry.state == "unfinished"
        assert library.kept_of("long") >= 500
        assert library.kept_of("other") == 0
        assert library.verify() == library.verify("long") == {"long": []}
        with pytest.raises(SakuinError, match="--resume"):
            add(library, "long", family=family)
        with pytest.raises(SakuinError, match="not read to its end"):
            library.open("long", *model_of(family))
        with counted(model_of(family)[0]) as passes:
            resumed = add(library, "long", family=family, resume=True)
    assert resumed.reused_tokens >= 500
    assert sum(passes) == resumed.tokens - resumed.reused_tokens
    assert [entry.state for entry in library.entries()] == ["whole"]
    assert library.gc().files == 0
    assert said(resumed)[0] == said(Context.from_text(*model_of(family), FIRST, CONFIG))[0]


def test_an_add_that_was_given_up_goes_with_gc(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sakuin.backends.transformers.backend.CHUNK", 128)
    # What is sealed when the reading stops would depend on how fast the background thread is.
    monkeypatch.setattr("sakuin.cache.sealing.spare_core", lambda: False)

    def stop(done: int, total: int, phase: str) -> None:
        if done > 600:
            raise RuntimeError("out of patience")

    with pytest.raises(RuntimeError, match="patience"):
        add(library, "long", progress=stop)
    library.folder.locks.joinpath("long").touch()
    with locked(library.folder.locks / "long"):  # somebody is at it
        assert library.gc().contexts == []
        with pytest.raises(SakuinError, match="by another process"):
            add(library, "long", resume=True)
    swept = library.gc()
    assert swept.contexts == ["long"]
    assert swept.files >= 2
    assert library.folder.parts.all() == {}


def test_appending_keeps_what_is_there(library: Library) -> None:
    add(library, "first", pin=True, keep_for=3600)
    before = {path.name: path.stat().st_mtime_ns for path in library.folder.parts.folder.iterdir()}
    model, tokenizer = model_of()
    with counted(model) as passes:
        context = library.append("first", MORE, model, tokenizer)
    assert sum(passes) < len(MORE) + 64
    after = {path.name: path.stat().st_mtime_ns for path in library.folder.parts.folder.iterdir()}
    assert all(after[name] == before[name] for name in before.keys() & after.keys())
    assert said(library.open("first", model, tokenizer)) == said(context)
    (entry,) = library.entries()
    assert entry.pinned
    assert entry.kept_until is not None


def test_another_document_is_appended_under_its_own_name(library: Library) -> None:
    add(library, "first")
    library.append("first", Document("b.txt", MORE), *model_of())
    library.append("first", Document("b.txt", MORE + MORE), *model_of())  # the same goes on
    documents = library.open("first", *model_of()).documents
    assert [(d.name, d.text) for d in documents] == [("a.txt", FIRST), ("b.txt", MORE + MORE)]


def test_the_quota_is_kept_by_evicting_what_was_not_asked_longest(library: Library) -> None:
    for name in ("old", "pinned", "new"):
        add(library, name, f"{name} {FIRST}", pin=name == "pinned")
        time.sleep(0.02)
    library.open("old", *model_of())  # now the newest
    one = library.entries()[0].bytes
    library.quota = library.folder.size() + one // 2
    add(library, "more", f"more {FIRST}")
    assert names(library) == ["more", "old", "pinned"]
    assert library.folder.size() <= library.quota
    assert all(damage == [] for damage in library.verify().values())
    library.quota = one
    with pytest.raises(SakuinError, match=r"its quota is 1 MB, .* Nothing was removed"):
        add(library, "big", f"big {FIRST}")
    assert names(library) == ["more", "old", "pinned"]


@pytest.mark.parametrize(
    ("family", "changes", "over"),
    [
        ("llama", {"index": "flat", "segment": "auto"}, 1.1),
        ("llama", {"index": "flat"}, 1.25),
        ("llama", {"kv_dtype": "int8"}, 1.5),  # the fewer bytes, the more the names of small tensors weigh
        (WINDOWED, {}, 1.5),
    ],
)
def test_the_room_that_is_asked_for_is_what_is_taken(
    library: Library, family: str, changes: dict[str, Any], over: float
) -> None:
    config = RetrievalConfig(**{"sink": 4, "recent": 16, "segment": 128} | changes)
    model, tokenizer = model_of(family)
    context = library.add("first", [Document("a.txt", FIRST + FIRST)], model, tokenizer, config)
    taken = library.folder.size()
    asked = stored_bytes(shape_of(model.config), model.dtype, config, context.tokens)
    assert taken <= asked <= over * taken


def test_using_a_context_is_not_asking_it(library: Library) -> None:
    add(library, "first", TEXT[:300])
    library.append("first", MORE[:40], *model_of())
    (entry,) = library.entries()
    assert entry.used > 0
    assert entry.asked == library.show("first")["asked"] == 0
    library.open("first", *model_of())
    assert library.entries()[0].asked > 0
    library.remove("first")
    assert list(library.folder.contexts.iterdir()) == []


def test_a_context_is_gone_after_its_time(library: Library) -> None:
    add(library, "short", keep_for=0.01)
    library.change("short", keep_for=0.01)
    time.sleep(0.02)
    with pytest.raises(SakuinError, match="was kept until"):
        library.open("short", *model_of())
    (entry,) = library.entries()
    assert entry.state == "expired"
    assert library.verify("short") == library.verify() == {"short": []}
    add(library, "long", f"long {FIRST}", keep_for=3600)  # sweeps
    assert names(library) == ["long", "short"]  # a clock may be wrong for a while
    a_day_later(library, "short")
    library.change("long", keep_for=3600)  # sweeps
    assert names(library) == ["long"]
    assert library.gc().files == 0
    library.change("long", keep_for=float("inf"), pinned=True)
    (entry,) = library.entries()
    assert (entry.kept_until, entry.pinned) == (None, True)
    assert library.verify() == {"long": []}


def a_day_later(library: Library, name: str) -> None:
    """It was a day ago that the context's time was found to be over."""
    when = time.time() - GRACE - 60
    os.utime(library.folder.contexts / f"{name}.over", (when, when))


def test_an_expired_context_is_taken_back(library: Library, tmp_path: Path) -> None:
    context = add(library, "first", TEXT[:300])
    library.change("first", keep_for=-1)
    library.change("first", keep_for=float("inf"))
    assert said(library.open("first", *model_of())) == said(context)
    library.change("first", keep_for=-1)
    part = next(library.folder.parts.folder.iterdir())
    part.rename(tmp_path / part.name)
    with pytest.raises(SakuinError, match=r"is missing: the context 'first' cannot be kept"):
        library.change("first", keep_for=float("inf"))
    (tmp_path / part.name).rename(part)
    library.change("first", pinned=True)  # what is pinned stays
    assert library.gc().contexts == []
    assert said(library.open("first", *model_of())) == said(context)
    library.change("first", pinned=False)
    library.save("first", context)  # its name is free
    (entry,) = library.entries()
    assert (entry.state, entry.kept_until) == ("whole", None)


def test_of_expired_contexts_the_ones_in_use_stay(library: Library) -> None:
    context = add(library, "first", TEXT[:300])
    library.change("first", keep_for=-1)
    library.gc()
    a_day_later(library, "first")
    library.folder.locks.joinpath("first").touch()
    with locked(library.folder.locks / "first"):
        library.quota = 10**9
        assert names(library) == ["first"]
        with pytest.raises(SakuinError, match="by another process"):
            library.save("first", context)
    library.quota = None
    assert names(library) == []


def test_nothing_is_removed_where_one_of_the_names_is_wrong(library: Library) -> None:
    for name in ("first", "second"):
        add(library, name, f"{name} {TEXT[:300]}")
    with pytest.raises(SakuinError, match="no context named 'nosuch'"):
        library.remove("first", "nosuch")
    library.folder.locks.joinpath("second").touch()
    with (
        locked(library.folder.locks / "second"),
        pytest.raises(SakuinError, match="by another process"),
    ):
        library.remove("first", "second")
    assert names(library) == ["first", "second"]
    assert library.remove("first", "second", "first").contexts == ["first", "second"]
    assert library.folder.parts.all() == {}


def test_a_damaged_manifest_loses_no_files(library: Library) -> None:
    add(library, "first")
    add(library, "second", f"2 {FIRST}")
    path = library.folder.manifest("first")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"at": ', b'"at": 1'))
    files = library.folder.parts.all()
    with pytest.raises(SakuinError, match="manifest of 'first' is damaged"):
        library.gc()
    add(library, "third", f"3 {FIRST}")
    assert files.keys() <= library.folder.parts.all().keys()
    assert "checksum" in library.verify()["first"][0]
    path.write_bytes(whole)
    assert library.verify() == {"first": [], "second": [], "third": []}


def test_odd_context_names_are_refused(library: Library) -> None:
    for name in ("", ".", "..", "a/b", "../a", ".hidden", "-x", "a" * 101, "a\0b", "a b", "a\n"):
        with pytest.raises(SakuinError, match="cannot be named"):
            add(library, name)
    add(library, "契約書-2031.v1", TEXT[:300])
    assert names(library) == ["契約書-2031.v1"]
    with pytest.raises(SakuinError, match="already"):
        add(library, "契約書-2031.v1")
    with pytest.raises(SakuinError, match=r"no context named 'other'.*there is 契約書"):
        library.open("other", *model_of())


def test_a_folder_that_holds_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(SakuinError, match=r"other things than a library \(thesis.tex\)"):
        add(Library(tmp_path), "first")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_context_is_carried_from_one_library_to_another(library: Library, tmp_path: Path) -> None:
    context = add(library, "first", pin=True)
    archive.export_to(library, "first", tmp_path / "first.tar")
    with pytest.raises(SakuinError, match="is there already"):
        archive.export_to(library, "first", tmp_path / "first.tar")
    other = Library(tmp_path / "other")
    assert archive.import_from(other, tmp_path / "first.tar") == "first"
    assert said(other.open("first", *model_of())) == said(context)
    assert other.verify() == {"first": []}
    (entry,) = other.entries()
    assert not entry.pinned
    archive.import_from(library, tmp_path / "first.tar", "again")  # all its files are there
    assert library.gc().files == 0
    with pytest.raises(SakuinError, match="already"):
        archive.import_from(library, tmp_path / "first.tar")


def test_what_comes_from_elsewhere_is_taken_only_as_it_says(library: Library, tmp_path: Path) -> None:
    add(library, "first")
    archive.export_to(library, "first", tmp_path / "good.tar")
    with tarfile.open(tmp_path / "good.tar") as good:
        entries = [(entry.name, good.extractfile(entry).read()) for entry in good]  # type: ignore[union-attr]

    def packed(changed: list[tuple[str, bytes]]) -> Path:
        path = tmp_path / f"odd-{len(list(tmp_path.iterdir()))}.tar"
        with tarfile.open(path, "w") as odd:
            for name, data in changed:
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                odd.addfile(entry, io.BytesIO(data))
        return path

    flipped = entries[1][1][:-1] + bytes([entries[1][1][-1] ^ 1])
    cut = tmp_path / "cut.tar"
    cut.write_bytes((tmp_path / "good.tar").read_bytes()[:-300_000])
    text = tmp_path / "text.tar"
    text.write_text("no archive at all")
    target = Library(tmp_path / "target")
    for path, why in (
        (packed(entries[1:]), "does not begin with a manifest"),
        (packed(entries[:-1]), "is missing in it"),
        (packed([*entries, ("../evil", b"x")]), "'../evil', which its manifest does not name"),
        (packed([entries[0], ("/etc/" + entries[1][0], entries[1][1]), *entries[2:]]), "does not name so"),
        (packed([entries[0], (entries[1][0], flipped), *entries[2:]]), "in it is damaged"),
        (packed([entries[0], (entries[1][0], entries[1][1] + b"x"), *entries[2:]]), "does not name so"),
        (cut, "no whole tar file|is missing in it|is damaged"),
        (text, "no whole tar file"),
        (tmp_path / "nowhere.tar", "there is no file"),
    ):
        with pytest.raises(SakuinError, match=why):
            archive.import_from(target, path, "odd")
        assert names(target) == []
    target.gc()
    assert target.folder.parts.all() == {}
    assert not (tmp_path / "evil").exists()
