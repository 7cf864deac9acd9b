"""A document goes on, comes beside others, takes another's place or goes, and nothing is mixed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from stored import CONFIG, MORE, TEXT, WINDOWED, counted, model_of, said, windows_every

from sakuin import Context, documents
from sakuin.context import answer
from sakuin.documents import Document
from sakuin.errors import SakuinError
from sakuin.prompts import holding

EXACT = CONFIG.with_changes(index="flat")
NEWS = "Nothing new was seen at the harbour on that day, and the fog stayed. " * 3


def of(*texts: Document, family: str = "llama") -> Context:
    return Context.from_documents(*model_of(family), list(texts), EXACT)


def named(context: Context) -> list[tuple[str, str]]:
    return [(one.name, one.text) for one in context.documents]


def whole_tokens(context: Context) -> list[int]:
    """The tokens of a context, and of the text that waits: what a fresh reading has of the same body."""
    reading = context._reading
    return [*reading.ids, *context.backend.vocabulary.encode(reading.waiting).ids]


def fresh(context: Context) -> list[int]:
    head = context._prompt.head
    return [*head, *context.backend.vocabulary.encode(context._reading.body).ids]


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


def test_a_file_goes_on_by_whatever_name_it_is_known(
    file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file("a.txt", TEXT)
    monkeypatch.chdir(path.parent)
    context = of(documents.read("a.txt"))
    link = path.parent / "link.txt"
    link.symlink_to(path)
    for i, name in enumerate((path, "./a.txt", link, path.parent / ".." / path.parent.name / "a.txt")):
        path.write_text(TEXT + NEWS * (i + 1))
        with counted(context.model) as passes:
            growth = context.append(documents.read(name))
        assert [(c.name, c.what) for c in growth.changes] == [("a.txt", "grown")]
        assert sum(passes) <= len(NEWS) + 80
        assert named(context) == [("a.txt", TEXT + NEWS * (i + 1))]


def test_a_text_that_is_there_is_not_read_again(file: Callable[..., Path]) -> None:
    path, before = file("a.txt", TEXT), of(Document("b", MORE))
    before.append(documents.read(path))
    for text in (documents.read(path), Document("b", MORE)):
        with counted(before.model) as passes:
            growth = before.append(text)
        assert (passes, [c.what for c in growth.changes], growth.tokens_read) == ([], ["same"], 0)
    assert len(before.documents) == 2


def test_files_of_one_name_are_told_apart(file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, three = (file(f"{x}/notes.txt", f"{x} {TEXT[:200]}") for x in ("one", "two", "three"))
    monkeypatch.chdir(one.parent)
    context = of(documents.read("notes.txt"))
    for other in (two, three):
        monkeypatch.chdir(other.parent)
        context.append(documents.read("notes.txt"))
    assert [name for name, _ in named(context)] == [f"{x}/notes.txt" for x in ("one", "two", "three")]
    assert [text.split()[0] for _, text in named(context)] == ["one", "two", "three"]
    two.write_text(two.read_text() + NEWS)  # goes on as itself, though another stands after it
    context.append(documents.read(two))
    assert [name for name, _ in named(context)][-1] == "two/notes.txt"


def test_pieces_of_standard_input_are_documents_of_their_own() -> None:
    def piece(text: str) -> Document:
        return Document("standard input", text, path="-")

    context = of(piece("The first piece has no line end"))
    context.append(piece("The second piece begins here"))
    context.append(piece("The second piece begins here"))
    assert named(context) == [
        ("standard input", "The first piece has no line end"),
        ("standard input (2)", "The second piece begins here"),
    ]
    assert "no line end\n\nstandard input (2):\n\nThe second" in context._reading.body


def test_a_changed_file_is_refused_or_takes_the_place_of_the_old_one(file: Callable[..., Path]) -> None:
    path = file("a.txt", TEXT)
    context = of(documents.read(path))
    context.append(Document("b", MORE))
    lines = TEXT.splitlines(keepends=True)
    path.write_text("".join([*lines[:12], "Line 12 was changed.\n", *lines[13:]]))
    before = whole_tokens(context)
    with pytest.raises(SakuinError, match=r"a\.txt was changed .* line 13 on.*--replace"):
        context.append(documents.read(path))
    assert whole_tokens(context) == before
    with counted(context.model) as passes:
        growth = context.append(documents.read(path), replace=True)
    assert growth.tokens_read == sum(passes)
    assert sum(passes) < len(context._reading.body) - len("".join(lines[:12])) + 80
    assert named(context) == [(str(path), path.read_text()), ("b", MORE)]
    assert whole_tokens(context) == fresh(context)
    again = of(documents.read(path))
    again.append(Document("b", MORE))
    assert context._reading.ids == again._reading.ids
    # Read anew from the change on, it answers as one that never held the old text.
    assert said(context)[0] == said(again)[0]


@pytest.mark.parametrize("family", ["llama", WINDOWED])
def test_a_document_is_removed_and_what_stands_before_it_is_not_read(family: str) -> None:
    with windows_every(256):
        context = of(Document("a", TEXT), family=family)
        context.append([Document("b", MORE), Document("c", NEWS)])
    with counted(context.model) as passes:
        growth = context.remove("b")
    assert growth.tokens_read == sum(passes)
    assert 0 < sum(passes) < len(NEWS) + (80 if family == "llama" else 300 + len(TEXT) % 256)
    assert named(context) == [("a", TEXT), ("c", NEWS)]
    with windows_every(256):
        again = of(Document("a", TEXT), family=family)
        again.append(Document("c", NEWS))
    assert context._reading.ids == again._reading.ids
    assert said(context)[0] == said(again)[0]
    with pytest.raises(SakuinError, match="holds no document 'x'; it holds a, c"):
        context.remove("x")
    with pytest.raises(SakuinError, match="no document would be left"):
        context.remove("a", "c")
    context.remove("a")
    assert named(context) == [("c", NEWS)]
    assert context._reading.ids == of(Document("c", NEWS), family=family)._reading.ids


def test_a_file_that_goes_on_after_others_keeps_its_lines(file: Callable[..., Path]) -> None:
    log = file("server.log", "one\ntwo\nthr")
    context = of(documents.read(log))
    context.append(Document("b", MORE))
    log.write_text("one\ntwo\nthree\nfour\n")
    context.append(documents.read(log))
    part = context.documents[-1]
    assert (part.name, part.text, part.line(0), part.line(4)) == (str(log), "ee\nfour\n", 3, 4)
    log.write_text("one\ntwo\nthree\nfour\nfive\n")
    context.append(documents.read(log))
    assert context.documents[-1].text == "ee\nfour\nfive\n"
    (_, first, _), whole = context.documents, holding.held_in(context.documents)
    assert [one.text for one in whole] == [log.read_text(), first.text]
    context.remove(str(log))
    assert named(context) == [("b", MORE)]


def test_under_a_conversation_nothing_is_taken_away() -> None:
    context = of(Document("a", TEXT[:300]), Document("b", MORE))
    context.chat("Who jumps?", max_new_tokens=4)
    tokens = context.tokens
    with pytest.raises(SakuinError, match="holds a conversation"):
        context.remove("b")
    context.append(Document("c", NEWS))
    with pytest.raises(SakuinError, match="holds a conversation"):
        context.append(Document("a", "Another text."), replace=True)
    assert context.tokens > tokens
    context.remove("c")
    assert [name for name, _ in named(context)] == ["a", "b"]


def test_documents_of_earlier_releases_are_known_by_name(file: Callable[..., Path]) -> None:
    path = file("a.txt", TEXT + NEWS)
    new = documents.read(path)
    context = of(Document(new.name, TEXT))
    assert context.append(new).changes[0].what == "grown"
    assert context.documents[0].path == new.path
    two = [Document("x", "one"), Document("x", "two")]
    found, changes = holding.with_added(two, [Document("x", "three", path="/x")])
    assert [c.name for c in changes] == ["x (2)"]
    assert len(found) == 3


def test_what_waits_at_the_end_is_cut_too() -> None:
    context = of(Document("a", TEXT), Document("b", "short"))
    context.append(Document("b", "shorn"), replace=True)
    assert whole_tokens(context) == fresh(context)
    assert named(context)[-1] == ("b", "shorn")


def test_a_full_attention_context_is_read_anew() -> None:
    context = Context.from_documents(*model_of(), [Document("a", TEXT[:200])], "full")
    context.append(Document("a", "Another text."), replace=True)
    assert named(context) == [("a", "Another text.")]
    assert whole_tokens(context) == fresh(context)


def test_a_file_named_twice_is_read_once(file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = file("a.txt", TEXT[:300])
    monkeypatch.chdir(path.parent)
    context = Context.from_files(*model_of(), ["a.txt", path], CONFIG)
    assert named(context) == [("a.txt", TEXT[:300])]


def test_bytes_of_a_path_that_are_no_text_tell_files_apart(tmp_path: Path) -> None:
    paths = [os.fsencode(tmp_path) + b"/a\xff.txt", os.fsencode(tmp_path) + b"/a\xfe.txt"]
    for path in paths:
        with open(path, "w") as out:
            out.write(TEXT[:100])
    one, two = (documents.read(os.fsdecode(path)) for path in paths)
    assert one.path != two.path
    assert str(one.path).encode().decode() == one.path


def test_evidence_names_the_place_in_the_file_whatever_came_between(file: Callable[..., Path]) -> None:
    log, other = file("server.log", TEXT[:500]), file("other.txt", MORE)
    context = of(documents.read(log), documents.read(other))
    log.write_text(TEXT[:900])
    context.append(documents.read(log))
    log.write_text(TEXT)
    context.append(documents.read(log))
    assert context.documents[-1].offset == 500
    reading, seen = context._reading, set()
    for at in range(0, len(reading.body) - 80, 37):
        # A passage anywhere, as an answer that attended there has it.
        span = answer._span(reading, at, at + 40, 1.0)
        whole = {str(log): TEXT, str(other): MORE}[span.file]
        if 0 <= span.start < span.end and span.text:
            assert whole[span.start : span.end] == span.text
            assert span.line_start == whole.count("\n", 0, span.start) + 1
            seen.add((span.file, span.start > 500))
    assert seen == {(str(log), False), (str(log), True), (str(other), False)}
