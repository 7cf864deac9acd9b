"""The walls that an import checker cannot hold (the others: `make check`, contracts in pyproject.toml).

What the face brings into memory, how large files and functions are, what lies at the top of the package.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

import sakuin
from sakuin import version

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "sakuin"
HEAVY = {"torch", "transformers", "llama_cpp", "xllamacpp"}
LOADED = (
    "; import json, sys; print('LOADED', json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
)


def loaded(program: str, library: Path) -> set[str]:
    """The packages that a fresh process has loaded at the end of a program."""
    done = subprocess.run(
        [sys.executable, "-c", program + LOADED],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"SAKUIN_LIBRARY": str(library)},
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.rpartition("LOADED ")[2]))


def test_import_sakuin_loads_nothing_heavy(tmp_path: Path) -> None:
    assert not loaded("import sakuin", tmp_path) & (HEAVY | {"numpy", "typer", "rich"})


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "--version",
        "contexts list",
        "models list",
    ],
)
def test_commands_that_run_no_model_load_nothing_heavy(command: str, tmp_path: Path) -> None:
    program = f"from sakuin.cli import app; app({command.split()!r}, standalone_mode=False)"
    assert not loaded(program, tmp_path) & HEAVY


def test_the_version_has_one_place() -> None:
    assert sakuin.__version__ == version.__version__ == metadata.version("sakuin")
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text("utf-8")


def test_only_ground_and_face_lie_at_the_top_of_the_package() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 10


def sources(*folders: str) -> Iterator[tuple[str, str]]:
    """Names and texts of all sources in folders of the checkout."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".pyi", ".cpp", ".hpp"):
                yield str(path.relative_to(ROOT)), path.read_text("utf-8")


def test_no_file_is_over_400_lines() -> None:
    folders = ("src", "native", "tests", "benchmarks", "tools", "examples")
    assert [name for name, text in sources(*folders) if len(text.splitlines()) > 400] == []


def test_files_of_tests_have_names_of_their_own() -> None:
    """pytest takes two files of one name for the same module, and runs neither in the second folder."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, many in names.items() if many > 1] == []


def test_few_functions_are_over_60_lines() -> None:
    long = [
        f"{name}: {function.name}, {lines} lines"
        for name, text in sources("src", "benchmarks", "tools")
        if name.endswith(".py")
        for function in ast.walk(ast.parse(text))
        if isinstance(function, ast.FunctionDef) and (lines := length(function)) > 60
    ]
    assert len(long) <= 5, long


def length(function: ast.FunctionDef) -> int:
    """Lines of a function, its decorators and docstring among them."""
    first = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
    return (function.end_lineno or first) - first + 1


def test_copies_are_made_one_way() -> None:
    """By a constructor, or by `copy.copy` and then what is not shared; past both in `copies.twin` alone."""
    made = [name for name, text in sources("src") if "__dict__" in text or ".__new__(" in text]
    assert made == ["src/sakuin/copies.py"]


def test_transformers_alone_brings_no_index() -> None:
    """Who has imported sakuin and runs a model without it loads none of its native code."""
    code = "import sys, sakuin, transformers.modeling_utils; print('sakuin.index._native' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
