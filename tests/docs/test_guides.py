"""Each block of each page runs as it is written, by a reader who copies from top to bottom in one folder;
what a page shows as printed is printed. Exceptions have a rule each, with its reason, in command_rules.py."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_rules import RULES
from page_blocks import PAGES, Block, blocks_of, found_in, named, spans
from page_reader import Reader

from sakuin import kinds
from sakuin.backends import catalogue

WITH_BLOCKS = [page for page in PAGES if blocks_of(page)]


@pytest.fixture
def reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Reader]:
    """In this process nothing is left of what a page defines, installs or changes."""
    catalogue.get("smollm2")
    found = Reader(tmp_path, lambda: capsys.readouterr().out)
    for name, value in found.environment.items():
        if name.startswith("SAKUIN_LIBRARY"):
            monkeypatch.setenv(name, value)
    monkeypatch.chdir(found.folder)
    monkeypatch.syspath_prepend(found.site)
    kinds._elsewhere.cache_clear()
    before, known = set(sys.modules), {*kinds._classes, *kinds.BUILT_IN}
    yield found
    kinds._elsewhere.cache_clear()
    for kind in set(kinds._classes) - known:
        del kinds._classes[kind]
    for name in set(sys.modules) - before:
        where = getattr(sys.modules[name], "__file__", None) or ""
        if where.startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=named)
def test_the_blocks_of_a_page_run_as_written(page: Path, reader: Reader) -> None:
    for block in blocks_of(page):
        reader.does(block)


def test_every_page_with_a_fence_has_blocks_here() -> None:
    fences = {named(page): page.read_text("utf-8").count("\n```") // 2 for page in WITH_BLOCKS}
    assert {name: len(blocks_of(page)) for page in WITH_BLOCKS if (name := named(page))} == fences
    assert len(WITH_BLOCKS) > 10


def test_every_rule_is_needed() -> None:
    commands = [block.code for page in PAGES for block in blocks_of(page)]
    commands += [span for page in PAGES for span in spans(page)]
    written = "\n".join(commands).replace(".venv/bin/", "").replace("\\\n", " ")
    unused = [
        rule.command for rule in RULES if not re.search(rf"^(\$ )?{rule.command}", written, re.MULTILINE)
    ]
    assert unused == []


def block(fenced: str) -> Block:
    (found,) = found_in(fenced, "page.md")
    return found


@pytest.mark.parametrize(
    ("fenced", "says"),
    [
        ("```sh\ntrue\nfalse\ntrue\n```", "page.md:2 ends with 1"),
        ("```sh\nsakuin eval needle --length 2000\n```", "No such option"),
        ("```sh\nsakuin weigh anchor\n```", "no such command 'weigh'"),
        ("```sh\nmake coffee\n```", "no target"),
        ("```sh\npython3 -m pip install 'sakuin[gold]'\n```", "sakuin has no"),
        ("```sh\npip uninstall sakuin\n```", "has no rule"),
        ("```sh\nsakuin eval fidelity nowhere.txt\n```", "there is no \\['nowhere.txt'\\]"),
        ("```sh\npython -m benchmarks.speed.sketch_step --slowly\n```", "has no \\['--slowly'\\]"),
        ("```sh\nsakuin ask nowhere.txt 'When?'\n```", "there is no file nowhere.txt"),
        ("```console\n$ echo one\ntwo\n```", "shows\ntwo\nbut what is printed is\none"),
        ("```\nwhat is this?\n```", "nobody knows what to do with a block of ''"),
        ("```text\nwho said so?\n```", "shows what nothing above it printed"),
    ],
)
def test_a_block_that_does_not_hold_is_told(fenced: str, says: str, reader: Reader) -> None:
    with pytest.raises(AssertionError, match=says):
        reader.does(block(fenced))


def test_blocks_share_folder_variables_and_names(reader: Reader) -> None:
    for fenced in (
        "```sh\nmkdir trial && cd trial\nplace=here\n```",
        "```toml file=about.toml\nplace = 1\n```",
        "```python\nfrom pathlib import Path\nsaid = Path('about.toml').read_text()\n```",
        "```python\nprint(said)\n```",
        "```text\npl…1\n```",
        '```sh\necho "{\\"place\\": \\"$place\\", \\"sizes\\": [1.5]}"\n```',
        '```json\n{"place": "there", "sizes": [2]}\n```',
        "```console\n$ cat \\\n>   about.toml\nplace = 1\n```",
    ):
        reader.does(block(fenced))
    reader.printed = '{"place": "there"}'
    with pytest.raises(AssertionError, match="not printed"):
        reader.does(block('```json\n{"spot": "there"}\n```'))
