"""A folder that a context is saved into: what is not sakuin's stays, and is told by what it holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stored import MORE, TEXT, model_of, read

from sakuin import Context, Library
from sakuin.errors import SakuinError
from sakuin.snapshot import store

WEB_APP = json.dumps({"name": "Pond", "icons": [], "start_url": "/"})


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("manifest.json", WEB_APP),
        ("manifest.json", "no JSON"),
        ("manifest.json", '{"format": 1}'),
        ("lock", "the key lies under the mat"),
        (".new-notes.txt", "years of work"),
        (".sakuin-notes.new", "years of work"),
        ("parts/list.txt", "three bolts"),
    ],
)
def test_a_folder_with_a_strangers_file_is_refused_and_left(tmp_path: Path, name: str, data: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(data)
    with pytest.raises(SakuinError, match=f"holds other things \\({name}\\)"):
        read(text=TEXT[:300]).save(tmp_path)
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()] == [name]
    assert (tmp_path / name).read_text() == data


def test_saving_again_removes_only_its_own(tmp_path: Path) -> None:
    read().save(tmp_path)
    own = max((tmp_path / store.PARTS).iterdir())
    kept = {
        tmp_path / store.PARTS / f"{'0' * 32}-{'1' * 64}.safetensors": "a user's, called so",
        tmp_path / store.PARTS / ".new-my_notes": "as old releases called theirs",
        tmp_path / ".new-my_notes": "as old releases called theirs",
    }
    for path, text in kept.items():
        path.write_text(text)
    left = [tmp_path / store.PARTS / f".sakuin-{'a' * 32}.new", tmp_path / f".sakuin-{'b' * 32}.new"]
    for path in left:  # a process that was killed
        path.write_bytes(own.read_bytes()[:1000])
    loaded = Context.load(tmp_path, *model_of())
    loaded.append(MORE)
    loaded.save(tmp_path)
    assert {path: path.read_text() for path in kept} == kept
    assert not any(path.exists() for path in left)
    named = {part.file for part in store.manifests.read(tmp_path / store.MANIFEST).parts}
    assert len(list((tmp_path / store.PARTS).iterdir())) == len(named) + 2  # the old tail is gone


def test_a_library_is_not_made_of_what_is_called_like_one(tmp_path: Path) -> None:
    (tmp_path / "contexts").mkdir()
    (tmp_path / "contexts" / "app.json").write_text(WEB_APP)
    with pytest.raises(SakuinError, match=r"other things than a library \(contexts/app.json\)"):
        Library(tmp_path).save("first", read(text=TEXT[:300]))
    assert [path.name for path in tmp_path.rglob("*")] == ["contexts", "app.json"]


def test_a_library_that_lost_its_settings_goes_on(tmp_path: Path) -> None:
    library = Library(tmp_path / "library")
    library.save("first", read(text=TEXT[:300]))
    (tmp_path / "library" / "library.json").unlink()
    again = Library(tmp_path / "library")
    again.save("second", read(text=TEXT[:300]))
    assert again.verify() == {"first": [], "second": []}


def test_a_users_file_in_a_library_is_not_swept(tmp_path: Path) -> None:
    library = Library(tmp_path / "library")
    library.save("first", read(text=TEXT[:300]))
    kept = [library.folder.path / ".new-notes.txt", library.folder.parts.folder / ".new-notes.txt"]
    kept.append(library.folder.contexts / ".new-notes.txt")
    for path in kept:
        path.write_text("x")
    library.remove("first")
    library.gc()
    assert all(path.exists() for path in kept)
