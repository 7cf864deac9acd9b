"""Heads, sizes and dtypes of what is stored are compared with the model's before anything is made of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from forged import forge
from stored import MORE, TEXT, WINDOWED, model_of, read, said
from torch import Tensor

from sakuin import Context
from sakuin.errors import SakuinError

RECURRENT = "lfm2"
Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("heads")
    for family in ("llama", WINDOWED, RECURRENT):
        read(family, TEXT[:700]).save(folder / family)
    return {family: folder / family for family in ("llama", WINDOWED, RECURRENT)}


def each(field: str, change: Callable[[Tensor], Tensor]) -> Callable[[Tensors], None]:
    """A change of this field of the first layer that has it, or of all "keys" and "values"."""

    def apply(tensors: Tensors) -> None:
        fields = ("keys", "values") if field == "both" else (field,)
        names = [name for name in tensors if name.partition(".")[2] in fields]
        assert names
        layer = names[0].partition(".")[0]
        for name in names:
            if name.partition(".")[0] == layer:
                tensors[name] = change(tensors[name]).contiguous()

    return apply


def counts(*values: int) -> Callable[[Tensors], None]:
    return each("next", lambda _: torch.tensor(values))


def fewer(x: Tensor) -> Tensor:
    return x[: x.shape[0] // 2]


def narrower(x: Tensor) -> Tensor:
    return x[..., : x.shape[-1] // 2]


ROWS: dict[str, Callable[[Tensors], None]] = {
    "half the heads": each("both", fewer),
    "no heads": each("both", lambda x: x[:0]),
    "twice the heads": each("both", lambda x: torch.cat([x, x])),
    "narrow": each("both", narrower),
    "no width": each("both", lambda x: x[..., :0]),
    "values of other heads": each("values", fewer),
    "values of fewer tokens": each("values", lambda x: x[:, 1:]),
    "fewer tokens": each("both", lambda x: x[:, 1:]),
    "flat": each("both", lambda x: x.reshape(-1)),
    "four dimensions": each("both", lambda x: x[None]),
    "whole numbers": each("both", lambda x: x.to(torch.int64)),
    "bools": each("both", lambda x: x.bool()),
    "double": each("both", lambda x: x.double()),
    "keys alone in fp16": each("keys", lambda x: x.half()),
    "no keys": lambda tensors: [tensors.pop(name) for name in list(tensors) if "keys" in name] and None,
}
TAIL: dict[str, Callable[[Tensors], None]] = {
    "queries of half the heads": each("queries", fewer),
    "queries of no heads": each("queries", lambda x: x[:0]),
    "narrow queries": each("queries", narrower),
    "queries in whole numbers": each("queries", lambda x: x.to(torch.int32)),
    "flat queries": each("queries", lambda x: x.reshape(-1)),
    "too many queries": each("queries", lambda x: torch.cat([x, x, x], 1)),
    "no next": lambda tensors: [tensors.pop(name) for name in list(tensors) if "next" in name] and None,
    "next of three": counts(0, 1, 2),
    "next of floats": each("next", lambda x: x.double()),
    "next below zero": counts(-4, 1),
    "next between": counts(3, 1),
    "next far away": counts(1 << 40, 1),
    "next of neither": counts(0, 7),
    "moment in whole numbers": each("moment", lambda x: x.long()),
    "moment of half the heads": each("moment", fewer),
    "count in floats": each("moment_count", lambda x: x.double()),
    "count of many": each("moment_count", lambda x: torch.cat([x, x])),
}
WINDOW: dict[str, Callable[[Tensors], None]] = {
    "half the heads": each("both", lambda x: x[:, : x.shape[1] // 2]),
    "no heads": each("both", lambda x: x[:, :0]),
    "narrow": each("both", narrower),
    "two rows": each("both", lambda x: torch.cat([x, x])),
    "values of other heads": each("values", lambda x: torch.cat([x, x], 1)),
    "fewer tokens": each("both", lambda x: x[:, :, 1:]),
    "flat": each("both", lambda x: x.reshape(-1)),
    "whole numbers": each("both", lambda x: x.to(torch.uint8)),
    "double": each("both", lambda x: x.double()),
    "half": each("both", lambda x: x.half()),
}
STATE: dict[str, Callable[[Tensors], None]] = {
    "whole numbers": each("conv.0", lambda x: x.long()),
    "two rows": each("conv.0", lambda x: torch.cat([x, x])),
    "flat": each("conv.0", lambda x: x.reshape(-1)),
}
CASES = [
    *(("llama", kind, what) for kind in ("sink", "tail") for what in ROWS),
    *(("llama", "tail", what) for what in TAIL),
    *((WINDOWED, "window", what) for what in WINDOW),
    *((RECURRENT, "window", what) for what in STATE),
]


def change_of(family: str, kind: str, what: str) -> Callable[[Tensors], None]:
    table = {"window": STATE if family == RECURRENT else WINDOW}.get(kind, ROWS | TAIL)
    return table[what]


@pytest.mark.parametrize(("family", "kind", "what"), CASES, ids=str)
def test_other_heads_sizes_or_dtypes_are_refused_at_load(
    family: str, kind: str, what: str, saved: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(saved[family], tmp_path / "copy")
    change = change_of(family, kind, what)
    forge(tmp_path / "copy", kind, lambda tensors, _: change(tensors))
    with pytest.raises(SakuinError, match=r"damaged|do not make a sequence") as refused:
        Context.load(tmp_path / "copy", *model_of(family))
    assert str(refused.value).endswith(".")
    assert len(str(refused.value)) < 700


@pytest.mark.parametrize("field", ["next", "queries", "moment", "more"])
def test_a_tensor_without_numbers_does_not_say_how_much_there_is(
    field: str, saved: dict[str, Path], tmp_path: Path
) -> None:
    """A list of its rows would take two gigabytes."""
    shutil.copytree(saved["llama"], tmp_path / "copy")

    def change(tensors: Tensors, _: dict[str, str]) -> None:
        tensors[f"0.{field}"] = torch.empty((30_000_000, 0), dtype=torch.int64)

    forge(tmp_path / "copy", "tail", change)
    with pytest.raises(SakuinError, match=r"has no numbers and the shape \(30000000, 0\)"):
        Context.load(tmp_path / "copy", *model_of())


@pytest.mark.parametrize("family", ["llama", WINDOWED, RECURRENT])
def test_what_is_as_it_was_is_loaded(family: str, saved: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(saved[family], tmp_path / "copy")
    for kind in ("sink", "tail"):
        forge(tmp_path / "copy", kind, lambda tensors, _: None)
    context = Context.load(tmp_path / "copy", *model_of(family))
    assert said(context)[0] == said(read(family, TEXT[:700]))[0]
    context.append(MORE)
    assert said(context)[0]


def test_a_model_with_other_heads_than_it_says_is_asked_itself(
    saved: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some configurations do not say how many KV heads there are."""
    model, tokenizer = model_of()
    truth = model.config.num_key_value_heads
    context = Context.load(saved["llama"], model, tokenizer)
    shape = context.backend.shape
    assert shape.n_kv_heads == truth
    other = type(shape)(**{**vars(shape), "n_kv_heads": shape.n_query_heads})
    monkeypatch.setattr(type(context.backend), "shape", property(lambda _: other))
    assert said(Context.load(saved["llama"], model, tokenizer)) == said(context)
