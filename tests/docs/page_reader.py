"""A person who copies a page line by line, from top to bottom, in one folder and one shell.

The folder is what a checkout shows: the sample files, the benchmarks, `.venv/bin`. Commands run in bash,
which stops at the first one that fails; variables and the current folder hold from block to block. Python
runs in this process, as in one interpreter for the whole page. What a block printed is kept for the block
below it, which may show it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import command_rules
from command_rules import JOURNAL, SITE, STOOD_IN_FOR
from page_blocks import ROOT, Block

_BEGINS = """set -aeo pipefail
{before}
trap 'pwd > {folder}; export -p > {variables}' EXIT
"""


class Reader:
    """printed : what the last block printed, None where there was none or nothing of it was run."""

    def __init__(self, home: Path, printed_here: Callable[[], str]) -> None:
        self.folder = home / "checkout"
        self.site = home / "site"
        self.printed: str | None = None
        self._names: dict[str, Any] = {"__name__": "__main__"}
        self._printed_here = printed_here
        self._state, self._journal = home / "state", home / "journal"
        for made in (self.folder / ".venv/bin", self.site, self._state):
            made.mkdir(parents=True)
        shutil.copytree(ROOT / "examples", self.folder / "examples")
        (self.folder / "benchmarks").symlink_to(ROOT / "benchmarks")
        for name in STOOD_IN_FOR:
            command = self.folder / ".venv/bin" / name
            command.write_text(f'#!/bin/sh\nexec {sys.executable} {command_rules.__file__} {name} "$@"\n')
            command.chmod(0o755)
        self.environment = {
            "PATH": f"{self.folder / '.venv/bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.site),
            "SAKUIN_LIBRARY": str(home / "library"),
            SITE: str(self.site),
            JOURNAL: str(self._journal),
            "COLUMNS": "120",
        }

    def does(self, block: Block) -> None:
        """What a reader does with a block. AssertionError where it does not work, or prints something else
        than is shown."""
        if "file" in block.words:
            saved = self.where / block.words["file"]
            saved.parent.mkdir(parents=True, exist_ok=True)
            saved.write_text(block.code, encoding="utf-8")
        elif block.language == "python":
            self._python(block)
        elif block.language == "sh":
            self._shell(block.code, block.place)
        elif block.language == "console":
            self._console(block)
        elif block.language == "text":
            shows(block.code, self.printed, block.place)
        elif block.language == "json":
            has_shape(json.loads(block.code), self._printed_json(block), block.place)
        elif block.language == "toml":
            tomllib.loads(block.code)
        else:
            raise AssertionError(
                f"{block.place}: nobody knows what to do with a block of {block.language!r}; it may be "
                "python, sh, console, text, json or toml, or have a file=NAME"
            )

    @property
    def where(self) -> Path:
        """The folder in which the reader is now."""
        kept = self._state / "folder"
        return Path(kept.read_text().strip()) if kept.exists() else self.folder

    def _python(self, block: Block) -> None:
        self._printed_here()
        os.chdir(self.where)
        # Empty lines before it: errors name the line of the page.
        exec(compile("\n" * (block.line - 1) + block.code, block.page, "exec"), self._names)
        self.printed = self._printed_here()

    def _shell(self, code: str, place: str) -> None:
        folder, variables = self._state / "folder", self._state / "variables"
        before = f". {variables}" if variables.exists() else ""
        script = _BEGINS.format(before=before, folder=folder, variables=variables) + code
        self._journal.unlink(missing_ok=True)
        done = subprocess.run(
            ["bash", "-c", script, "bash"],
            cwd=self.where,
            env=os.environ | self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{place} ends with {done.returncode}:\n{code}\n{done.stdout}"
        self.printed = None if self._journal.exists() and not done.stdout else done.stdout

    def _console(self, block: Block) -> None:
        """Lines that begin with `$ ` are typed, with those after them that begin with `> `; the others are
        what is printed."""
        for typed in re.finditer(r"^\$ (.*\n(?:> .*\n)*)((?:(?!\$ ).*\n)*)", block.code, re.MULTILINE):
            self._shell(typed[1].replace("\n> ", "\n"), block.place)
            shows(typed[2], self.printed, block.place)

    def _printed_json(self, block: Block) -> Any:
        assert self.printed is not None, f"{block.place} shows what nothing above it printed"
        begin = self.printed.index(next(c for c in self.printed if c in "{["))
        return json.JSONDecoder().raw_decode(self.printed[begin:])[0]


def shows(shown: str, printed: str | None, place: str) -> None:
    """Whether a page shows what was printed: line by line, blanks at the ends of lines aside, where `…` is
    anything, also several lines, with the blanks and line ends around it."""
    assert printed is not None, f"{place} shows what nothing above it printed"
    wanted, found = (re.sub(r"[ \t]+$", "", text, flags=re.M).strip("\n") for text in (shown, printed))
    pattern = r".*?".join(re.escape(part) for part in re.split(r"[ \n]*…[ \n]*", wanted))
    assert re.fullmatch(pattern, found, re.DOTALL), (
        f"{place} shows\n{wanted}\nbut what is printed is\n{found}"
    )


def has_shape(shown: Any, printed: Any, place: str) -> None:
    """Whether all keys of a JSON that a page shows are in what was printed, with values of the same type."""
    kinds = [
        bool if isinstance(x, bool) else float if isinstance(x, int) else type(x) for x in (shown, printed)
    ]
    assert kinds[0] is kinds[1], f"{place} shows {shown!r}, and {printed!r} is printed"
    if isinstance(shown, dict):
        assert not set(shown) - set(printed), (
            f"{place} shows {sorted(set(shown) - set(printed))}, not printed"
        )
        for key, value in shown.items():
            has_shape(value, printed[key], place)
    elif isinstance(shown, list):
        assert printed or not shown, f"{place} shows a list of {len(shown)}, and an empty one is printed"
        for value in shown:
            has_shape(value, printed[0], place)
