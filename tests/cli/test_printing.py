"""What commands print: text, and nothing that steers the terminal or is taken for markup."""

from __future__ import annotations

import ast
import io
import json
import re
from pathlib import Path

import pytest

import sakuin.cli
from sakuin.cli import show
from sakuin.cli.printable import Stream, as_json, one_line, printable

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What must never be printed."""

TEXTS = {
    "a title, colours, the screen and a link, as in a log": (
        "\x1b]0;OWNED TITLE\x07\x1b[31mERROR: unit 31\x1b[0m\x1b[2J\x1b[H\x1b]8;;http://evil/\x07click\x1b]8;;\x07",
        "ERROR: unit 31click",
    ),
    "the clipboard, ended by ST": ("a\x1b]52;c;cm0gLXJm\x1b\\b", "ab"),
    "C1 instead of ESC": ("a\x9b2Jb\x9d0;title\x9cc\x90q\x9cd", "abcd"),
    "device control, privacy, application": (
        "a\x1bPx;y\x1b\\b\x1b^p\x1b\\c\x1b_q\x1b\\d\x1bXs\x1b\\e",
        "abcde",
    ),
    "a character set and a reset": ("a\x1b(Bb\x1bcc\x1b#8d", "abcd"),
    "a title without an end hides nothing": ("a\x1b]0;the sum is 7\nb", "a0;the sum is 7\nb"),
    "one cut at the end": ("a\x1b[31", "a"),
    "nested": ("\x1b\x1b[2J[2Ja", "[2Ja"),
    "bells, backspaces, DEL, NUL": ("pass\x08\x08word\x07\x7f\x00", "password"),
    "line ends": ("a\r\nb\rc\x0bd\x0ce\x85f", "a\nb c d e f"),
    "the direction of writing": ("a\u202egnp.exe\u202c b\u2066c\u2069", "agnp.exe bc"),
    "newlines, tabs and letters stay": ("a\tb\n→ é 日本 🙂 \u200f", "a\tb\n→ é 日本 🙂 \u200f"),
    "bytes and halves of characters": ("caf\udce9 \ud83d", "caf\ufffd \ufffd"),
}


@pytest.mark.parametrize(("text", "plain"), TEXTS.values(), ids=TEXTS.keys())
def test_what_steers_a_terminal_is_taken_out_whole(text: str, plain: str) -> None:
    assert printable(text) == plain
    assert not CONTROL.search(printable(text))
    assert one_line(text) == " ".join(plain.split())


@pytest.mark.parametrize("text", [text for text, _ in TEXTS.values()], ids=TEXTS.keys())
def test_an_answer_is_as_clean_wherever_its_pieces_are_cut(text: str) -> None:
    cuts = [[text[:at], text[at:]] for at in range(len(text) + 1)] + [list(text)]
    for pieces in cuts:
        stream = Stream()
        shown = [stream.feed(piece) for piece in pieces] + [stream.end()]
        assert "".join(shown) == printable(text)


def test_an_answer_is_not_held_back_for_ever() -> None:
    stream = Stream()
    stream.feed("\x1b]")
    assert any(stream.feed("word ") for _ in range(2000))


@pytest.mark.parametrize("text", [text for text, _ in TEXTS.values()], ids=TEXTS.keys())
def test_json_keeps_what_it_does_not_show(text: str) -> None:
    said = as_json({text: [text]})
    assert json.loads(said) == {text: [text]}
    assert not CONTROL.search(said)
    assert "\n" not in said


def test_json_has_nothing_but_ascii_where_standard_output_has_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(out, encoding="ascii", errors="replace"))
    show.say_json({"name": "café"})
    show.say("café")
    assert out.getvalue() == b'{"name": "caf\\u00e9"}\ncaf?\n'


FOREIGN = "[bold]x[/bold] minutes [/2024].txt [link=http://evil]a[/link] :smile: 'q' 127.0.0.1 [@click=x]y[/]"


@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
def test_nothing_printed_is_markup_emoji_or_highlighted(
    terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.table import Table
    from rich.text import Text

    out = io.StringIO()
    console = show._Console(file=out, force_terminal=terminal, width=200, _environ={})
    monkeypatch.setattr(show, "notes", console)
    table = Table(FOREIGN[:40], title=FOREIGN)
    table.add_row(FOREIGN)
    console.print(FOREIGN)
    console.print(table)
    console.print(show.facts([(FOREIGN, FOREIGN)]))
    console.print(Text(f"\x1b[2J{FOREIGN}"))
    with console.status(FOREIGN) as status:
        status.update(FOREIGN + "\x1b[2J")
        if terminal:
            console.print(status.renderable)
    with show.bar() as bar:
        bar.add_task(FOREIGN)
        bar.refresh()
    shown = re.sub(
        r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue()
    )  # what rich itself adds: colours, the cursor
    assert "\x1b" not in shown
    assert "\x1b[2J" not in out.getvalue()
    assert shown.count(FOREIGN) >= (8 if terminal else 6)
    assert "\x1b[1m" not in out.getvalue().partition(FOREIGN)[0]


def test_a_terminal_of_no_columns_is_printed_to(monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in ("0", "1", "7"):
        out = io.StringIO()
        console = show._Console(file=out, _environ={"COLUMNS": columns})
        console.print("words of a line")
        assert out.getvalue() == "words of a line\n"
        console.print(show.facts([("name", "value")]))
        assert "name" in out.getvalue()


def test_commands_print_through_one_place() -> None:
    folder = Path(sakuin.cli.__file__).parent
    for path in folder.rglob("*.py"):
        if path == folder / "show.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path.name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in (
                    "print",
                    "Console",
                    "Progress",
                    "Status",
                    "typer.echo",
                    "typer.secho",
                ), where
                assert not called.endswith(("from_markup", "from_ansi", "stdout.write", "stderr.write")) or (
                    # The watcher of Ctrl-C: the cursor that a bar hid.
                    path.name == "errors.py" and ast.unparse(node.args[0]) == r"'\x1b[?25h\n'"
                ), where
                assert not any(
                    word.arg in ("markup", "emoji", "highlight") and ast.unparse(word.value) != "False"
                    for word in node.keywords
                ), where
