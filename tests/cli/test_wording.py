"""Sentences that commands print: plural forms, names, quotas, limits, and what is said of an answer in a
talk."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from stored import CONFIG, TEXT, model_of
from tiny import BYTES, byte_tokenizer, tiny

from sakuin import Context, Library
from sakuin.cli import answering, app
from sakuin.cli.answering import Manner, print_answer
from sakuin.cli.contexts.grown import print_growth
from sakuin.cli.errors import Patience, sentence
from sakuin.cli.messages import Lines
from sakuin.cli.talk import Talk
from sakuin.context.growth import Growth
from sakuin.documents import Document
from sakuin.prompts.holding import Change

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Run:
    monkeypatch.setenv("SAKUIN_LIBRARY", str(tmp_path / "library"))
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text(TEXT[:600])

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
        code = app(["contexts", *words], prog_name="sakuin", standalone_mode=False)
        said = capsys.readouterr()
        return int(code or 0), said.out, said.err

    return call


def test_one_token_and_a_file_that_is_named_twice(run: Run, model: str, tmp_path: Path) -> None:
    err = run("add", "one", "a.txt", "a.txt", "--model", model, "--dtype", "fp32")[2]
    assert "a.txt is named twice; it is read once" in err
    err = run("append", "one", "a.txt", str(tmp_path / "a.txt"))[2]
    assert f"{tmp_path}/a.txt is a.txt, which is named already; it is read once" in err


def test_one_token_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    context = Context.from_documents(*model_of(), [Document("a.txt", TEXT[:600])], CONFIG)
    for change, said in (
        (Change("a.txt", "grown"), "one: 1 token more, "),
        (Change("a.txt", "replaced"), "one: a.txt replaced; 1 token read anew, "),
    ):
        growth = Growth((change,), 1)
        print_growth("one", context, growth, context.tokens - 1, 0.1, json=False)
        assert capsys.readouterr().out.startswith(said)


def test_a_context_that_grows_too_long_is_no_document(run: Run, tmp_path: Path) -> None:
    short = tmp_path / "short"
    tiny("llama", vocab_size=BYTES, max_position_embeddings=1024).save_pretrained(short)
    byte_tokenizer().save_pretrained(short)
    assert run("add", "one", "a.txt", "--model", str(short))[0] == 0
    for length in (600, 60_000):  # measured exactly, and reckoned
        Path("b.txt").write_text((TEXT * 100)[:length])
        code, _, err = run("append", "one", "b.txt")
        assert code == 2
        assert "the context would be " in err
        assert "of which it holds already" in err
        assert "the document is" not in err


def test_a_library_over_its_quota_says_so(run: Run) -> None:
    Library().save("one", Context.from_documents(*model_of(), [Document("a", TEXT)], CONFIG))
    Library().change("one", pinned=True)
    Library().quota = 1000
    assert ", more than its quota of 0 MB, in " in run("list")[2]
    assert "; that is more than its quota of 0 MB: " in run("quota")[1]
    Library().quota = 10**9
    assert " of 1.00 GB in " in run("list")[2]
    assert "more than" not in run("quota")[1]


def test_the_end_of_a_time_stands_in_no_brackets_within_brackets(run: Run) -> None:
    Library().save("one", Context.from_documents(*model_of(), [Document("a", TEXT[:600])], CONFIG))
    said = run("keep", "one", "--for", "24h", "--pin")[1]
    assert said.count("(") == 1
    assert said.rstrip().endswith(" h from now)")


LIMITED = (
    "import resource, sys\nresource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))\n"
    "from sakuin.cli import main\nmain()\n"
)


def test_a_limit_of_the_shell_is_named(tmp_path: Path, model: str) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    place = {"SAKUIN_LIBRARY": str(tmp_path / "library")}
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "contexts", "add", "one", str(tmp_path / "a.txt"), "--model", model],
        capture_output=True,
        text=True,
        env={**os.environ, **place},
        check=False,
    )
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"sakuin: a file in {tmp_path / 'library'}")
    assert "`ulimit -f`" in last
    assert "`ulimit -f`" in sentence(OSError(errno.EFBIG, os.strerror(errno.EFBIG)))


def test_in_a_talk_a_doubt_may_come_from_what_was_said(capsys: pytest.CaptureFixture[str]) -> None:
    context = Context.from_documents(*model_of(), [Document("a.txt", TEXT[:600])], CONFIG)
    first = context.chat("Who jumps?", 4)
    talk = Talk(context.fork(), "tiny", Manner(4), Lines(False), Patience())
    for answer, earlier, said in (
        (replace(first, support=0.0), False, answering.DOUBT),
        (replace(first, support=0.0), True, answering.DOUBT_IN_TALK),
        (replace(first, support=1.0), True, ""),
        (replace(first, support=None), True, ""),
    ):
        assert answering.doubt(answer, earlier=earlier) == said
    assert "may come from what was said before" in answering.DOUBT_IN_TALK
    talk._answer("Who jumps?")
    assert talk._last is not None
    capsys.readouterr()
    talk._say_why(replace(talk._last, support=0.0))  # the context holds a turn from before
    assert "what was said before" in " ".join(capsys.readouterr().err.split())
    print_answer(context, replace(first, support=0.0))
    assert "what was said before" in " ".join(capsys.readouterr().err.split())
    alone = Context.from_documents(*model_of(), [Document("a.txt", TEXT[:600])], CONFIG)
    talk = Talk(alone, "tiny", Manner(4), Lines(False), Patience())
    talk._answer("Who jumps?")
    assert talk._last is not None
    capsys.readouterr()
    talk._say_why(replace(talk._last, support=0.0))
    assert "(The document seems not to speak" in capsys.readouterr().err
