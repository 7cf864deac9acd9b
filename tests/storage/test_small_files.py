"""Whatever lies in the place of a small file of ours costs a measurement or a sentence: no wait, no raw
error."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sakuin.backends import catalogue, gguf_fingerprint
from sakuin.backends.llama_cpp import trial_kept
from sakuin.context import support
from sakuin.errors import SakuinError
from sakuin.library.codes import FileCodes
from sakuin.library.folder import Folder
from sakuin.storage import small_files

TRIAL: dict[str, Any] = {
    "about": {"files": [["/model.gguf", 1, 2]]},
    "setting": {"repack": True, "least_rows": 8, "few_rows": 2},
    "measured": [],
    "tries": 1,
}
ODD = {
    "deep": b"[" * 100_000,
    "deep in an object": b'{"a":' * 100_000,
    "many digits": b'{"form": 1, "scale": 1' + b"0" * 400 + b"}",
    "more digits": b'{"form": 1, "scale": ' + b"9" * 5000 + b"}",
    "no number": b'{"form": 1, "scale": NaN}',
    "a list": b"[1]",
    "nothing": b"",
    "no text": b"\xff\xfe\x00",
}


def _checked(path: Path) -> Any:
    model = next(iter(catalogue.MODELS.values()))
    place = Path(os.environ["SAKUIN_CACHE"]) / "checked" / f"{model.file}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    os.rename(path, place)
    return catalogue._kept_state(model)


READERS: dict[str, Callable[[Path], Any]] = {
    "support": support._read,
    "trial": trial_kept._read,
    "checked": _checked,
    "fingerprint": lambda path: gguf_fingerprint._kept(path, []),
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAKUIN_CACHE", str(tmp_path / "cache"))


def _put(path: Path, what: str) -> Path:
    if what == "a pipe":
        os.mkfifo(path)
    elif what == "a folder":
        path.mkdir()
    elif what == "a file without end":
        with path.open("wb") as file:
            file.truncate(small_files.MOST + 1)
    else:
        path.write_bytes(ODD[what])
    return path


@pytest.mark.parametrize("what", [*ODD, "a pipe", "a folder", "a file without end"])
@pytest.mark.parametrize("reader", READERS)
def test_what_was_kept_and_is_odd_is_measured_again(reader: str, what: str, tmp_path: Path) -> None:
    if reader == "checked" and what == "a list":
        pytest.skip("a list is a state there, of another file")
    assert READERS[reader](_put(tmp_path / "kept.json", what)) is None


@pytest.mark.parametrize(
    "odd",
    [
        {"tries": float("inf")},
        {"setting": {"repack": True, "least_rows": -8, "few_rows": 2}},
        {"setting": {"repack": True, "least_rows": 10**30, "few_rows": 2}},
        {"setting": {"repack": True, "least_rows": True, "few_rows": 2}},
    ],
    ids=str,
)
def test_a_setting_that_no_trial_finds_is_not_used(odd: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "trial.json"
    path.write_text(json.dumps(TRIAL))
    assert trial_kept._read(path) is not None
    path.write_text(json.dumps(TRIAL | odd))
    assert trial_kept._read(path) is None


@pytest.mark.parametrize("name", ["library.json", "key", "codes"])
@pytest.mark.parametrize("what", ["deep", "a pipe", "a file without end"])
def test_a_library_of_odd_files_is_told_in_a_sentence(name: str, what: str, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "library")
    folder.make()
    (folder.path / name).unlink(missing_ok=True)
    _put(folder.path / name, what)

    def use() -> None:
        folder.quota()
        codes = FileCodes(folder.path)
        codes.knows("a")
        codes._code("a")

    if (name, what) in {("codes", "deep"), ("codes", "a file without end")}:  # lines that say nothing
        use()
        return
    if name == "library.json":
        assert what == "deep" or not folder.exists or what == "a file without end"
    with pytest.raises(SakuinError, match=rf"{name} (cannot be read|has 100000 bytes)"):
        use()
