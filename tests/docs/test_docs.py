"""The docs say what the code says: references are generated, examples run, commands and links exist."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sakuin.backends import catalogue

ROOT = Path(__file__).parent.parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks/README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]


def test_the_references_are_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools/docs/generate.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


PRINTED = {
    "README.md": None,  # the answer that it names `answer`
    "docs/guide.md": None,
    "docs/contexts.md": None,
    "docs/indexes.md": "torch.Size([6, 1, 64])",
    "docs/fidelity.md": "balanced ",
    "docs/lm-eval.md": "1.0\n",
    "docs/past-the-window.md": "yarn 2.0\n",
}
"""Pages whose examples run, and what they print at least."""


@pytest.mark.parametrize("page", PRINTED)
def test_the_examples_of_a_page_run(
    page: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue.get("smollm2")
    monkeypatch.chdir(tmp_path)  # some examples write files
    names: dict[str, Any] = {}
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    printed = capsys.readouterr().out
    assert (PRINTED[page] or names["answer"].text) in printed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target, heading in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", page.read_text(encoding="utf-8")):
        there = page.parent / target if target else page
        assert there.exists(), target
        assert not heading or heading in headings(there), f"{target}#{heading}"


def headings(page: Path) -> set[str]:
    """What a link names the headings of a page by: lower case, words joined by hyphens, no other signs."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
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
    text = page.read_text(encoding="utf-8")
    return [*re.findall(r"`([^`\n]+)`", text), *re.findall(r"```sh\n(.*?)```", text, re.DOTALL)]
