"""`sakuin chat` at a real terminal: greeting, editing, commands, Ctrl-C, several lines, history."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from stored import TEXT
from terminal import ALT_ENTER, CTRL_C, CTRL_D, ENTER, LEFT, UP, Terminal, mode_of, terminal
from test_cli import run

from sakuin import Library
from sakuin.backends import catalogue

WITHOUT = (
    "import sys; sys.modules['prompt_toolkit'] = None; import importlib.util as u; f = u.find_spec\n"
    "u.find_spec = lambda name, *more: None if name == 'prompt_toolkit' else f(name, *more)\n"
    "from sakuin.cli import main; main()"
)
"""As where the extra `chat` is not installed."""


@pytest.fixture
def place(tmp_path: Path) -> dict[str, str]:
    """A cache folder and a library of the test's own."""
    return {"SAKUIN_CACHE": str(tmp_path / "cache"), "SAKUIN_LIBRARY": str(tmp_path / "library")}


@pytest.fixture
def paper(tmp_path: Path) -> str:
    path = tmp_path / "paper.txt"
    path.write_text(TEXT[:700])
    return str(path)


def leaves(one: Terminal) -> None:
    assert one.end() == 0
    assert "Traceback" not in one.shown


def test_a_conversation_at_a_terminal(model: str, paper: str, place: dict[str, str], tmp_path: Path) -> None:
    words = ("chat", paper, "--model", model, "--max-new-tokens", "6", "--save", "talk")
    with terminal(*words, **place) as one:
        at = one.wait("/bye or Ctrl-D leaves")
        assert "paper.txt" in one.shown
        at = one.wait(">", at)
        one.type("/why" + ENTER)
        at = one.wait("there is no answer yet", at)
        one.type("Who jmps?" + LEFT * 4 + "u" + ENTER)
        at = one.wait("(Cut off after 6 tokens", at)
        assert "Who jumps?" in one.shown
        assert "coverage" not in one.shown
        at = one.wait(">", at)
        one.type(UP + ENTER)
        at = one.wait("(Cut off after 6 tokens", at)
        one.type("/why" + ENTER)
        at = one.wait("paper.txt:", one.wait("weight", at))
        one.type("/figures" + ENTER)
        at = one.wait("keys and values", at)
        one.type("/wy" + ENTER)
        # What is typed before the prompt is there is not read key by key.
        at = one.wait(">", one.wait("there is no command /wy (did you mean /why?)", at))
        one.type("one" + ALT_ENTER + "two" + ENTER)
        at = one.wait(">", one.wait("(Cut off after 6 tokens", at))
        one.type('"""' + ENTER + "/three" + ENTER + 'four"""' + ENTER)
        at = one.wait("(Cut off after 6 tokens", at)
        at = one.wait(">", at)
        one.type("half a message" + CTRL_C + CTRL_C)
        at = one.wait("/bye or Ctrl-D leaves", at)
        one.type("/bye" + ENTER)
        one.wait("kept as talk", at)
        leaves(one)
    history = tmp_path / "cache" / "chat_history"
    assert mode_of(history) == 0o600
    assert "+Who jumps?" in history.read_text().splitlines()
    context = Library(place["SAKUIN_LIBRARY"]).open("talk")
    assert [asked for asked, _ in context.turns] == ["Who jumps?", "Who jumps?", "one\ntwo", "/three\nfour"]
    with terminal("chat", "--context", "talk", "--no-history", **place) as one:
        at = one.wait("It stopped here, after 4 answers")
        at = one.wait(">", one.wait("> /three", at))
        one.type("secret" + ENTER)
        at = one.wait("\n>", one.wait("secret", at))
        one.type(CTRL_D)
        leaves(one)
    assert "secret" not in history.read_text()


STORY = "Tell a very long story about the fox, with many names and places."


@pytest.mark.parametrize("script", [None, WITHOUT], ids=["prompt_toolkit", "plain"])
def test_ctrl_c_ends_the_answer_and_not_the_conversation(
    paper: str, tmp_path: Path, script: str | None
) -> None:
    catalogue.get("smollm2")
    words = ("chat", paper, "--model", "smollm2", "--allow-loops", "--save", "talk", "--no-history")
    place = {"SAKUIN_LIBRARY": str(tmp_path / "library")}
    with terminal(*words, "--max-new-tokens", "3000", script=script, **place) as one:
        at = one.wait(">", one.wait("/bye or Ctrl-D leaves"))
        assert ("arrow keys" in one.shown) == (script is not None)
        one.type(STORY + ENTER)
        # The line is drawn once more when it is sent; what comes after its end is the answer.
        at = one.more(20, one.wait("\n", one.wait("places.", at)))
        one.type(CTRL_C)
        at = one.wait(">", one.wait("(Interrupted.)", at))
        one.type(CTRL_C)
        at = one.wait(">", one.wait("/bye or Ctrl-D leaves", at))
        one.type("/quit" + ENTER)
        one.wait("kept as talk", at)
        leaves(one)
    ((asked, said),) = Library(place["SAKUIN_LIBRARY"]).open("talk").turns
    assert asked == STORY
    assert len(said) > 10


def test_ctrl_d_ends_a_message_of_several_lines(model: str, paper: str, place: dict[str, str]) -> None:
    words = ("chat", paper, "--model", model, "--max-new-tokens", "4", "--save", "talk")
    with terminal(*words, script=WITHOUT, **place) as one:
        at = one.wait(">", one.wait("/bye or Ctrl-D leaves"))
        one.type('"""\nWho\njumps' + CTRL_D * 2)
        at = one.wait(">", one.wait("(Cut off after 4 tokens", at))
        one.type('"""\nOver what?\n' + CTRL_D)
        at = one.wait(">", one.wait("(Cut off after 4 tokens", at))
        one.type(CTRL_D)
        leaves(one)
    asked = [asked for asked, _ in Library(place["SAKUIN_LIBRARY"]).open("talk").turns]
    assert asked == ["Who\njumps", "Over what?"]


def test_a_window_that_is_nearly_full_is_said_and_how_to_go_on(
    model: str, tmp_path: Path, place: dict[str, str]
) -> None:
    near = tmp_path / "near.txt"
    near.write_text((TEXT * 4)[:3950])  # a token each, of 4,096
    with terminal("chat", str(near), "--model", model, "--max-new-tokens", "60", **place) as one:
        at = one.wait("are left for a question and its answer")
        at = one.wait(">", at)
        one.type("Who?" + ENTER)
        at = one.wait(">", one.wait("(Cut off after 60 tokens", at))
        one.type("Who jumps over what, and when?" + ENTER)
        at = one.wait("have filled them", at)
        at = one.wait(">", one.wait("(/clear forgets what was said, and makes room.)", at))
        one.type("Who jumps?" + ENTER)
        at = one.wait("this model reads at most 4,096", at)
        at = one.wait(">", one.wait("(/clear forgets what was said, and makes room.)", at))
        one.type("/clear" + ENTER)
        at = one.wait(">", one.wait("(Begun anew", at))
        one.type("Who" + "?" * 250 + ENTER)
        at = one.wait(">", one.wait("this model reads at most 4,096", at))
        assert "makes room" not in one.shown[at - 200 :]
        one.type(CTRL_D)
        leaves(one)


def test_a_conversation_begins_anew(model: str, paper: str, place: dict[str, str]) -> None:
    words = ("chat", paper, "--model", model, "--max-new-tokens", "4")
    lines = b"Who jumps?\n/clear\nWho jumps?\n/nonsense\n/etc/hosts holds what?\n /bye\n/bye\nnot this\n"
    done = run(*words, "--json", "--save", "talk", data=lines, **place)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 4
    assert "there is no command /nonsense" in done.stderr
    asked = [asked for asked, _ in Library(place["SAKUIN_LIBRARY"]).open("talk").turns]
    assert asked == ["Who jumps?", "/etc/hosts holds what?", "/bye"]
    first, second = (json.loads(line)["tokens"] for line in done.stdout.splitlines()[:2])
    assert first == second


def test_passages_are_shown_to_a_pipe_only_when_asked(model: str, paper: str, place: dict[str, str]) -> None:
    words = ("chat", paper, "--model", model, "--max-new-tokens", "4")
    done = run(*words, data=b"Who jumps?\n", **place)
    assert (done.returncode, "weight" in done.stdout, "coverage" in done.stdout) == (0, False, False)
    done = run(*words, "--figures", data=b"Who jumps?\n/why\n/help\n", **place)
    assert (done.returncode, "weight" in done.stdout, "coverage" in done.stdout) == (0, True, True)
    assert "/clear" in done.stderr


@pytest.fixture
def blocked(tmp_path: Path) -> Path:
    """A cache folder in which no history can be kept."""
    folder = tmp_path / "blocked"
    (folder / "chat_history").mkdir(parents=True)
    return folder


def test_a_history_that_cannot_be_kept_costs_nothing(
    model: str, place: dict[str, str], blocked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sakuin.cli import messages

    monkeypatch.setenv("SAKUIN_CACHE", str(blocked))
    kept = messages._history(True)
    kept.append_string("one")
    assert kept.get_strings() == ["one"]
    (blocked / "chat_history").rmdir()
    messages._history(True).append_string("half a character \udc80")
    path = blocked / "chat_history"
    assert "half a character ?" in path.read_text()
    os.chmod(path, 0o644)
    messages._history(True).append_string("two")
    assert mode_of(path) == 0o600
    path.write_text("\n# now\n+old\n" * 90_000 + "\n# now\n+new\n")
    assert path.stat().st_size > messages.MOST_HISTORY
    messages._history(True)
    assert path.stat().st_size <= messages.MOST_HISTORY // 2
    assert path.read_text().startswith("\n# now\n+old\n")
    monkeypatch.setenv("SAKUIN_HISTORY", "off")
    messages._history(True).append_string("secret")
    assert "secret" not in path.read_text()
