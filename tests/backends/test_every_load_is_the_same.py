"""A GGUF file's first load by transformers gives what all later ones give, whatever became of what was
kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_gguf import write

from sakuin import Context, RetrievalConfig
from sakuin.backends.transformers import load as models
from sakuin.backends.transformers.fingerprint import _tokenizer, fingerprint_in_memory

FLAT = RetrievalConfig(index="flat", sink=4, recent=16, segment=64)
TEXT = "The  index of a book<|im_end|>\n\n is read.\tÉ 日本 1,250 <pad> <eos> [multimodal]"


@pytest.fixture(params=["gemma3", "mistral", "qwen2", "phi3"])
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAKUIN_CACHE", str(tmp_path / "cache"))
    return write(request.param, tmp_path).gguf


def known(path: Path) -> dict[str, Any]:
    """All that a load says of the model before its weights."""
    described = models.describe(path)
    tokenizer, config = described.tokenizer, described.config.to_dict()
    return {
        "tokens": described.vocabulary.encode(TEXT).ids,
        "template tokens": described.vocabulary.special(TEXT),
        "beginning": described.vocabulary.beginning,
        "text": described.vocabulary.decode(described.vocabulary.encode(TEXT).ids),
        "tokenizer": json.loads(tokenizer.backend_tokenizer.to_str()),
        "mark of a context": _tokenizer(tokenizer),
        "class": type(tokenizer).__name__,
        "size": len(tokenizer),
        "special": [
            (token, tokenizer.convert_tokens_to_ids(token)) for token in tokenizer.all_special_tokens
        ],
        "added": {token: repr(each) for token, each in tokenizer.added_tokens_decoder.items()},
        "template": tokenizer.chat_template,
        "config": {key: value for key, value in config.items() if "name_or_path" not in key},
    }


def test_the_first_load_is_every_load(path: Path, tmp_path: Path) -> None:
    first = known(path)
    assert (tmp_path / "cache" / "gguf").is_dir()
    assert known(path) == first
    shutil.rmtree(tmp_path / "cache")
    assert known(path) == first


def test_what_is_kept_and_damaged_is_made_anew(path: Path, tmp_path: Path) -> None:
    first = known(path)
    (kept,) = (tmp_path / "cache" / "gguf").iterdir()
    for damage in (b"", b"{", (kept / "tokenizer.json").read_bytes()[:-500]):
        (kept / "tokenizer.json").write_bytes(damage)
        assert known(path) == first
        assert [each.name for each in kept.parent.iterdir()] == [kept.name]
    (kept / "config.json").unlink()
    assert known(path) == first


def test_where_nothing_can_be_kept_it_is_the_same_too(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = known(path)
    (tmp_path / "file").touch()
    monkeypatch.setenv("SAKUIN_CACHE", str(tmp_path / "file"))
    assert known(path) == first


@pytest.mark.parametrize("path", ["mistral", "qwen2"], indirect=True)
def test_a_context_made_at_the_first_load_opens_at_the_second(path: Path, tmp_path: Path) -> None:
    model, tokenizer = models.load(path, "fp32")
    assert fingerprint_in_memory(model, tokenizer) == fingerprint_in_memory(*models.load(path, "fp32"))
    Context.from_text(model, tokenizer, "The index of a book. " * 20, FLAT).save(tmp_path / "kept")
    again = Context.load(tmp_path / "kept", *models.load(path, "fp32"))
    assert again.ask("What?", max_new_tokens=1).new_tokens == 1
