"""What a stored context of llama.cpp is asked before it is believed: the same as one of transformers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forged import forge, forged_archive
from stored import MORE, TEXT, said, windows_every
from tiny_gguf import write
from torch import Tensor

from sakuin import Context, Library, RetrievalConfig, load
from sakuin.documents import Document
from sakuin.errors import SakuinError
from sakuin.library import archive

CONFIG = RetrievalConfig(index="flat", sink=4, recent=16, segment=128)
STATE = "llama.cpp"
Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Any]]:
    folder = tmp_path_factory.mktemp("models")
    return {
        name: load(write(name, folder).gguf, dtype="fp32", device="cpu", backend="llama.cpp")
        for name in ("llama", "gemma2", "lfm2")
    }


@pytest.fixture(scope="module")
def saved(models: dict[str, tuple[Any, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    for name, model in models.items():
        Context.from_text(*model, TEXT[:700], CONFIG).save(folder / name)
    return folder


def every(fields: tuple[str, ...], change: Callable[[Tensor], Tensor]) -> Callable[[Tensors], None]:
    def apply(tensors: Tensors) -> None:
        for name in tensors:
            if name == fields[0] or name.partition(".")[2] in fields:
                tensors[name] = change(tensors[name]).contiguous()

    return apply


CASES: list[tuple[str, str, Callable[[Tensors], None]]] = [
    ("llama", "sink", every(("keys", "values"), lambda x: x[:0])),
    ("llama", "sink", every(("keys", "values"), lambda x: torch.cat([x, x]))),
    ("llama", "tail", every(("keys", "values"), lambda x: x[..., :8])),
    ("llama", "tail", every(("keys", "values"), lambda x: x.long())),
    ("llama", "tail", every(("queries",), lambda x: x[:1])),
    ("llama", "tail", every(("next",), lambda x: x + 3)),
    ("gemma2", "window", every((STATE,), lambda x: x.view(torch.int8))),
    ("gemma2", "window", every((STATE,), lambda x: x[None])),
    ("lfm2", "window", every((STATE,), lambda x: x.to(torch.float32))),
]


@pytest.mark.parametrize(("name", "kind", "change"), CASES)
def test_other_heads_sizes_or_dtypes_are_refused_at_load(
    name: str,
    kind: str,
    change: Callable[[Tensors], None],
    models: dict[str, tuple[Any, Any]],
    saved: Path,
    tmp_path: Path,
) -> None:
    shutil.copytree(saved / name, tmp_path / "copy")
    forge(tmp_path / "copy", kind, lambda tensors, _: change(tensors))
    with pytest.raises(SakuinError, match="damaged"):
        Context.load(tmp_path / "copy", *models[name])
    assert said(Context.load(saved / name, *models[name]))


def test_a_forged_part_gets_into_no_document_of_ones_own(
    models: dict[str, tuple[Any, Any]], tmp_path: Path
) -> None:
    model, text = models["llama"], [Document("a.txt", TEXT)]
    theirs, mine = Library(tmp_path / "theirs"), Library(tmp_path / "mine")
    theirs.add("theirs", text, *model, CONFIG)
    archive.export_to(theirs, "theirs", tmp_path / "good.tar")

    def zeroed(tensors: Tensors, _: dict[str, str]) -> None:
        for name in tensors:
            if name.endswith((".keys", ".values")):
                tensors[name].zero_()

    forged_archive(tmp_path / "good.tar", tmp_path / "odd.tar", "segment", zeroed)
    archive.import_from(mine, tmp_path / "odd.tar", "theirs")
    mine.append("theirs", MORE, *model)
    own = mine.add("own", [Document("a.txt", TEXT + MORE)], *model, CONFIG)
    assert own.reused_tokens == 0
    assert not mine.find("own").manifest.files & set(mine.imported()["theirs"])
    alone = Context.from_documents(*model, [Document("a.txt", TEXT + MORE)], CONFIG)
    assert said(mine.open("own", *model))[0] == said(alone)[0]
    assert mine.verify() == {"own": [], "theirs": []}


@pytest.mark.parametrize("name", ["llama", "gemma2", "lfm2"])
def test_documents_are_replaced_and_removed_as_if_the_others_had_been_alone(
    name: str, models: dict[str, tuple[Any, Any]], tmp_path: Path
) -> None:
    model, library = models[name], Library(tmp_path)
    first, last = Document("a.txt", TEXT[:700]), Document("c.txt", MORE)
    with windows_every(256):
        library.add("one", [first, Document("b.txt", MORE[::-1]), last], *model, CONFIG)
    with library.appending("one", *model) as (context, keep):
        growth = context.remove("b.txt")
        keep()
        assert growth.tokens_read < len(context._reading.ids) - 256
        growth = context.append(Document("c.txt", MORE[:100] + "Another end."), replace=True)
        keep()
    assert [(c.name, c.what) for c in growth.changes] == [("c.txt", "replaced")]
    texts = [first, Document("c.txt", MORE[:100] + "Another end.")]
    opened, alone = library.open("one", *model), Context.from_documents(*model, texts, CONFIG)
    assert opened._reading.ids == alone._reading.ids
    assert said(opened)[0] == said(alone)[0]
    assert library.verify() == {"one": []}
