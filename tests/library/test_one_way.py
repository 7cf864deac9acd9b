"""One way through the library: a manifest is read once, beginnings are compared without the lock, and
somebody else may change everything meanwhile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stored import CONFIG, MORE, TEXT, model_of, said

from sakuin import Context, Library
from sakuin.documents import Document
from sakuin.library import adding
from sakuin.snapshot import manifest as manifests


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """A library of two contexts with a common beginning."""
    library = Library(tmp_path_factory.mktemp("library") / "library")
    for name in ("first", "second"):
        library.add(name, [Document("a.txt", TEXT[:700] + name)], *model_of(), CONFIG)
    return library


@pytest.fixture
def library(stored: Library) -> Library:
    """The same with nothing known of its manifests."""
    return Library(stored.folder.path)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the contexts whose manifests are read and checked within."""
    found: list[str] = []
    decode = manifests.decode

    def counted(data: bytes, where: str) -> Any:
        found.append(Path(where).stem)
        return decode(data, where)

    monkeypatch.setattr(manifests, "decode", counted)
    return found


def test_a_manifest_is_read_once_to_ask_and_to_append(library: Library, reads: list[str]) -> None:
    found = library.find("first")
    library.open(found, *model_of()).ask("Who jumps?", 1)
    assert reads == ["first"]
    with library.appending(found, *model_of()) as (context, keep):
        assert reads == ["first"]
        for _ in range(2):
            context.append(MORE[:40])
            keep()
    # Sweeping needs outlines of all: the other one's is read, this one's is known since it was written.
    assert reads == ["first", "second"]
    library.add("third", [Document("a.txt", TEXT[:300])], *model_of(), CONFIG)
    library.entries()
    assert reads == ["first", "second"]
    library.remove("third")


def test_what_somebody_else_appended_meanwhile_is_not_lost(library: Library) -> None:
    found = library.find("second")
    longer = Library(library.folder.path).append("second", MORE[:100], *model_of())
    assert library.open(found, *model_of()).tokens == longer.tokens
    context = library.append(found, MORE[100:200], *model_of())
    assert context.documents[0].text == TEXT[:700] + "second" + MORE[:200]
    Library(library.folder.path).change("second", pinned=True)
    library.append(found, "!", *model_of())
    assert library.find("second").manifest.pinned
    library.change("second", pinned=False)


@pytest.mark.parametrize("times", [1, 9])
def test_a_beginning_that_vanishes_is_looked_for_again_or_read(
    library: Library, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between comparing and taking, which is under the lock, somebody removes what was found."""
    longest, left = adding.longest, [times]

    def found_and_removed(*given: Any) -> Any:
        source, parts = longest(*given)
        if parts and left[0]:
            left[0] -= 1
            (library.folder.parts.folder / parts[-1].file).unlink()
        return source, parts

    copies = [f"copy{i}" for i in range(2)]
    for name in copies:
        library.add(name, [Document("b.txt", name + TEXT)], *model_of(), CONFIG)
    monkeypatch.setattr(adding, "longest", found_and_removed)
    text = copies[0] + TEXT[:900]
    context = library.add("new", [Document("b.txt", text)], *model_of(), CONFIG)
    alone = Context.from_text(*model_of(), text, CONFIG)
    assert said(context)[0] == said(alone)[0]
    assert (context.reused_tokens > 0) == (times == 1)
    library.remove("new", *copies)


def test_a_library_is_looked_at_and_tidied_without_torch(tmp_path: Path, stored: Library) -> None:
    script = (
        "import sys\n"
        "from sakuin.cli import app\n"
        "for line in sys.stdin:\n"
        "    app(line.split(), prog_name='sakuin', standalone_mode=False)\n"
        "print([name for name in ('torch', 'transformers', 'numpy') if name in sys.modules])\n"
    )
    there = f"--library {stored.folder.path}"
    commands = ["list", "list --json", "show first", "quota 1GB", "quota none", "gc", "verify first"]
    commands += ["keep first --for 30d", "keep first --for ever", "list"]
    done = subprocess.run(
        [sys.executable, "-c", script],
        input="".join(f"contexts {command} {there}\n" for command in commands) + "contexts list\n",
        capture_output=True,
        text=True,
        check=True,
        env={"SAKUIN_LIBRARY": str(tmp_path)},
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert "first: well" in done.stdout
