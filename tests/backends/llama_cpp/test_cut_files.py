"""A model's file that is cut short while it is loaded costs a sentence, not the process; one that is replaced
or removed costs nothing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tiny_gguf import write

import sakuin
from sakuin.backends.llama_cpp import locate
from sakuin.errors import SakuinError

pytestmark = pytest.mark.skipif(not locate.available(), reason="there is no llama.cpp here")


def test_a_file_that_is_cut_short_is_said_before_it_is_read(tmp_path: Path) -> None:
    path = write("llama", tmp_path).gguf
    model = sakuin.load(path, dtype="fp32", backend="llama.cpp")[0]
    cache = model.new_cache(None)
    model.forward(cache, [5, 6, 7])
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(SakuinError, match=r"was cut from [\d,]+ to [\d,]+ bytes after the model was loaded"):
        model.forward(cache, [8])


def test_a_file_that_is_replaced_or_removed_stays_in_use(tmp_path: Path) -> None:
    path = Path(write("llama", tmp_path).gguf)
    model = sakuin.load(path, dtype="fp32", backend="llama.cpp")[0]
    cache = model.new_cache(None)
    expected = model.forward(cache, [5, 6, 7])
    shutil.copy(path, tmp_path / "other")
    os.truncate(tmp_path / "other", 100)
    (tmp_path / "other").replace(path)
    assert (model.forward(model.new_cache(None), [5, 6, 7]) == expected).all()
    path.unlink()
    assert (model.forward(model.new_cache(None), [5, 6, 7]) == expected).all()
