"""Part files that somebody wrote to after they were made."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from stored import model_of, read, said

from sakuin import Context
from sakuin.errors import SakuinError
from sakuin.snapshot.part_marks import is_marked


def parts_of(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def marked(path: Path) -> bool:
    return is_marked(path.stat(), path.stem.split("-")[1])


def test_a_part_that_was_written_to_is_refused_when_it_is_opened(tmp_path: Path):
    context = read()
    context.save(tmp_path)
    assert all(marked(path) for path in parts_of(tmp_path))
    for path in parts_of(tmp_path):
        whole = path.read_bytes()
        with path.open("r+b") as file:
            file.seek(-8, os.SEEK_END)
            last = file.read(1)[0]
            file.seek(-8, os.SEEK_END)
            file.write(bytes([last ^ 1]))
        with pytest.raises(SakuinError, match="content is not what was written"):
            Context.load(tmp_path, *model_of())
        path.write_bytes(whole)
    assert said(Context.load(tmp_path, *model_of())) == said(context)


def test_a_copy_is_read_once_and_then_known(tmp_path: Path):
    context = read()
    context.save(tmp_path / "first")
    shutil.copytree(tmp_path / "first", tmp_path / "second", copy_function=shutil.copy)
    assert not any(marked(path) for path in parts_of(tmp_path / "second"))
    assert said(Context.load(tmp_path / "second", *model_of())) == said(context)
    assert all(marked(path) for path in parts_of(tmp_path / "second"))


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_copy_that_cannot_be_marked_is_read_all_the_same(tmp_path: Path):
    context = read()
    context.save(tmp_path / "first")
    shutil.copytree(tmp_path / "first", tmp_path / "second", copy_function=shutil.copy)
    for path in parts_of(tmp_path / "second"):
        path.chmod(0o400)
    assert said(Context.load(tmp_path / "second", *model_of())) == said(context)
