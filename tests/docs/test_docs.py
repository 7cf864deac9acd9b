"""The docs say what the code says: references are generated, and what prose names exists: links, names of
code, commands, options, variables, and sentences that it quotes. Blocks are tried in test_guides.py."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from page_blocks import PAGES, ROOT, blocks_of, prose, spans

from sakuin import documents
from sakuin.cli import app


def test_the_references_are_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools/docs/generate.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target, heading in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", page.read_text(encoding="utf-8")):
        there = page.parent / target if target else page
        assert there.exists(), target
        assert not heading or heading in headings(there), f"{target}#{heading}"


def headings(page: Path) -> set[str]:
    """What a link names the headings of a page by: lower case, words joined by hyphens, no other signs."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_of_code_in_a_page_exist(page: Path) -> None:
    for name in set(re.findall(r"\bsakuin(?:\.[A-Za-z_]\w*)+", page.read_text(encoding="utf-8"))):
        assert resolves(name), name


def resolves(name: str) -> bool:
    """Whether a dotted name is a module or lies in one."""
    module, _, rest = name.partition(".")
    found: Any = importlib.import_module(module)
    for part in rest.split("."):
        module = f"{module}.{part}"
        if not hasattr(found, part):
            try:
                importlib.import_module(module)
            except ModuleNotFoundError:
                return False
        found = getattr(found, part)
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_that_a_page_names_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)(?=[`\s])", " ".join(commands(page)))) <= targets


def commands(page: Path) -> list[str]:
    """What a page prints as code: spans and blocks."""
    return [*spans(page), *(block.code for block in blocks_of(page) if block.language == "sh")]


@cache
def sakuin_commands() -> Any:
    return typer.main.get_command(app)


NO_COMMAND = ("COMMAND", "…", "--help", "--version")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_sakuin_in_prose_have_what_they_name(page: Path) -> None:
    for span in spans(page):
        if not span.startswith("sakuin ") or span == "sakuin part 1":  # what files are hashed with
            continue
        command, (_, *words) = sakuin_commands(), span.split()
        while words and hasattr(command, "commands") and words[0] not in NO_COMMAND:
            assert words[0] in command.commands, span
            command, *words = command.commands[words[0]], *words[1:]
        known = {
            name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)
        }
        assert {word for word in words if word.startswith("--")} <= known | {"--help"}, span


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_and_variables_that_a_page_names_exist(page: Path) -> None:
    text = " ".join(spans(page))
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text)) - known_options() == set()
    variables = set(re.findall(r"\bSAKUIN_[A-Z_]+\b", page.read_text(encoding="utf-8")))
    assert {name for name in variables if name not in sources()} == set()


@cache
def known_options() -> set[str]:
    """Options of all commands of sakuin, of the benchmarks, tools and tests, and of lm-eval."""

    def of(command: Any) -> Iterator[str]:
        for parameter in command.params:
            yield from (*parameter.opts, *parameter.secondary_opts)
        for child in getattr(command, "commands", {}).values():
            yield from of(child)

    return {*of(sakuin_commands()), *re.findall(r'"(--[a-z][\w-]*)"', sources()), *OTHERS}


OTHERS = ("--help", "--version", "--model_args", "--use_cache", "--metadata")


@cache
def sources() -> str:
    files = (path for part in ("src", "benchmarks", "tools", "tests") for path in (ROOT / part).rglob("*.py"))
    return "\n".join(path.read_text(encoding="utf-8") for path in [ROOT / "Makefile", *files])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_sentences_that_a_page_quotes_are_the_programs(page: Path) -> None:
    """Four words and more in double quotes, in prose, are what sakuin says; `…` is a part that changes."""
    for quoted in re.findall(r'"([^"`]+)"|“([^”`]+)”', re.sub(r"`[^`]*`", "", prose(page))):
        said = " ".join("".join(quoted).split())
        if len(said.split()) > 3:
            assert any(says(sentence, said) for sentence in sentences()), said


def says(sentence: str, said: str) -> bool:
    """Whether a sentence of the code, with `…` for what is put into it, begins or goes on as quoted."""
    quoted = ".*".join(re.escape(part) for part in re.split(r" ?… ?", said))
    if re.search(quoted, sentence):
        return True
    begins, _, rest = sentence.partition("…")  # of what is quoted, the part that changes may be written out
    return len(begins.split()) > 3 and said.startswith(begins) and bool(rest or said == begins)


@cache
def sentences() -> list[str]:
    """The texts in sakuin's code, with `…` for what is put into them."""
    found = []
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return [" ".join(sentence.split()) for sentence in found]


def test_a_quoted_sentence_is_found_by_its_parts() -> None:
    assert says("there is no file …; …", "there is no file What")
    assert says("there is no file …; …", "there is no file …")
    assert says("…: the document seems not to speak of this.", "document seems not to speak of this")
    assert not says("there is no file …; …", "there is no folder What")


def test_sample_files_say_what_their_sources_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools/docs")
    made = importlib.import_module("sample_files")

    def words(text: str) -> list[str]:
        return re.findall(r"[\w.,:/]+", text)

    for name, source in (
        ("contract.pdf", (made.FILES / "contract.txt").read_text(encoding="utf-8")),
        ("rules.docx", made.RULES),
        ("annex.docx", "Annex 1: parts and where they are bought " + " ".join(map(" ".join, made.ANNEX))),
    ):
        assert words(documents.read(made.FILES / name).text) == words(source), name
