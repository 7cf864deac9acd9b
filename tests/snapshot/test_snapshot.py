"""Snapshots: a context that was saved and loaded is the one that it was, costs no reading, and is refused
where it does not belong."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from stored import CONFIG, MORE, QUESTION, TEXT, WINDOWED, counted, model_of, read, said, windows_every
from tiny import byte_tokenizer, tiny

from sakuin import Context, RetrievalConfig
from sakuin.errors import SakuinError
from sakuin.snapshot import manifest as manifests
from sakuin.snapshot import store

FAMILIES = ["llama", "gemma2", WINDOWED, "gpt_oss", "qwen3_5_text", "lfm2", "gemma3n_text"]
KINDS = [{"index": kind} for kind in ("sketch", "flat", "auto", "ivf", "topk")]
KINDS += [{"index": kind, "kv_dtype": "int8"} for kind in ("sketch", "flat")]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_of_models_answers_as_before(family: str, tmp_path: Path) -> None:
    context = read(family)
    context.save(tmp_path)
    loaded = Context.load(tmp_path, *model_of(family))
    assert said(loaded) == said(context)
    assert loaded.tokens == context.tokens
    for one in (context, loaded):
        one.append(MORE)
    assert said(loaded) == said(context)


@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_every_index_that_can_be_stored_goes_on_exactly(settings: dict[str, Any], tmp_path: Path) -> None:
    context = read(config=CONFIG.with_changes(**settings))
    context.save(tmp_path)
    loaded = Context.load(tmp_path, *model_of())
    for one in (context, loaded):
        one.append(MORE)  # more is sealed, by the second moment and the bases that were stored
    assert said(loaded) == said(context)
    assert loaded.ask(QUESTION, 4).stats["index"] == context.ask(QUESTION, 4).stats["index"]


def test_auto_stores_what_it_has_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sakuin.index.choice import HeadShape

    monkeypatch.setattr(HeadShape, "sketch_from", lambda *_: 600)
    config = CONFIG.with_changes(index="auto")
    for name, text, kind in (("short", TEXT[:500], "flat"), ("long", TEXT, "sketch")):
        context = read(text=text, config=config)
        context.save(tmp_path / name)
        loaded = Context.load(tmp_path / name, *model_of())
        assert loaded.ask(QUESTION, 4).stats["index"] == kind
        for one in (context, loaded):
            one.append(TEXT)  # the short one chooses anew
        assert loaded.ask(QUESTION, 4).stats["index"] == "sketch"
        assert said(loaded) == said(context)


def test_loading_reads_nothing_and_an_answer_says_so(tmp_path: Path) -> None:
    model, tokenizer = model_of()
    read().save(tmp_path)
    with counted(model) as passes:
        loaded = Context.load(tmp_path, model, tokenizer)
        assert passes == []
        answer = loaded.ask(QUESTION, max_new_tokens=5)
    assert loaded.cache.is_initialized
    assert answer.reused_tokens == loaded.tokens == loaded.reused_tokens
    # The question, one token of it with the first step, and the steps.
    assert sum(passes) == answer.tokens - answer.reused_tokens + answer.new_tokens - 1
    assert answer.tokens - answer.reused_tokens < 100


def test_appending_reads_and_writes_only_what_is_new(tmp_path: Path) -> None:
    model, tokenizer = model_of(WINDOWED)
    read(WINDOWED).save(tmp_path)
    parts = tmp_path / store.PARTS
    before = {path.name: path.stat() for path in parts.iterdir()}
    loaded = Context.load(tmp_path, model, tokenizer)
    had = loaded.tokens
    with counted(model) as passes:
        loaded.append(MORE)
    assert sum(passes) == loaded.tokens - had
    assert abs(sum(passes) - len(MORE)) < 64
    loaded.save(tmp_path)
    after = {path.name: path.stat() for path in parts.iterdir()}
    kept = before.keys() & after.keys()
    assert all(after[name].st_ino == before[name].st_ino for name in kept)
    assert all(after[name].st_mtime_ns == before[name].st_mtime_ns for name in kept)
    whole = [p for p in _manifest(tmp_path).parts if p.kind == "segment" and p.end - p.start == 128]
    assert {p.file for p in whole if p.end < had - 128} <= kept
    assert said(Context.load(tmp_path, model, tokenizer)) == said(loaded)


def test_saving_again_writes_nothing(tmp_path: Path) -> None:
    context = read()
    context.save(tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / store.PARTS).iterdir()}
    context.save(tmp_path)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / store.PARTS).iterdir()} == before


def test_the_files_are_mapped_and_private_and_plain_safetensors(tmp_path: Path) -> None:
    read().save(tmp_path)
    loaded = Context.load(tmp_path, *model_of())
    index = loaded.cache.retrieval_layers[0].rows[0].index
    address = index.segments[0].fields["keys"].data_ptr()
    ranges = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    held = next(
        words
        for words in ranges
        if int(words[0].split("-")[0], 16) <= address < int(words[0].split("-")[1], 16)
    )
    assert held[5].startswith(str(tmp_path))
    assert held[1] == "r--s"
    for path in tmp_path.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    for part in _manifest(tmp_path).parts:
        with safe_open(tmp_path / store.PARTS / part.file, "pt") as file:
            assert file.metadata()["kind"] == part.kind
            assert all(file.get_tensor(name) is not None for name in file.keys())  # noqa: SIM118


@pytest.mark.parametrize("kind", ["sketch", "flat"])
def test_rows_on_disk_give_the_same_answers(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAKUIN_CACHE", str(tmp_path / "cache"))
    inside = read(config=CONFIG.with_changes(index=kind))
    outside = read(config=CONFIG.with_changes(index=kind, offload="disk"))
    assert said(outside) == said(inside)
    held = outside.kv_bytes()
    assert held["disk"] > 4 * held["host"]
    assert sum(held.values()) == pytest.approx(sum(inside.kv_bytes().values()), rel=0.05)
    assert list((tmp_path / "cache" / "offloaded").iterdir()) == []  # files without a name leave none
    inside.save(tmp_path / "saved")
    loaded = Context.load(tmp_path / "saved", *model_of(), CONFIG.with_changes(index=kind, offload="disk"))
    assert said(loaded) == said(inside)
    assert loaded.kv_bytes()["disk"] > 0
    for one in (inside, outside, loaded):
        one.append(MORE)
    assert said(outside) == said(loaded) == said(inside)


def test_windows_on_the_way_are_kept(tmp_path: Path) -> None:
    with windows_every(256):
        context = read(WINDOWED)
        context.save(tmp_path / "a")
        again = Context.load(tmp_path / "a", *model_of(WINDOWED))
        again.append(MORE)
        again.save(tmp_path / "b")
    kept = [part.end for part in _manifest(tmp_path / "b").parts if part.kind == "window"]
    assert kept[:3] == [260, 516, 772]
    assert kept[-1] == again.tokens


def test_a_snapshot_of_another_model_is_refused_with_the_reason(tmp_path: Path) -> None:
    model, tokenizer = model_of()
    read().save(tmp_path)
    other = tiny("llama", vocab_size=model.config.vocab_size)
    with torch.no_grad():
        other.model.layers[1].mlp.up_proj.weight[3, 5] += 1e-3
    wide = tiny("llama", vocab_size=model.config.vocab_size, intermediate_size=96)
    turned = tiny(
        "llama",
        vocab_size=model.config.vocab_size,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
    )
    plain, templated = byte_tokenizer(chat=False), byte_tokenizer()
    templated.chat_template = str(templated.chat_template) + " "
    reduced = byte_tokenizer()
    reduced.add_tokens(["fox"])
    for odd, words, why in (
        (other, tokenizer, "the weights differ"),
        (wide, tokenizer, "the configurations differ"),
        (turned, tokenizer, "rotary embeddings had the settings"),
        (tiny("llama", vocab_size=model.config.vocab_size).bfloat16(), tokenizer, "computed in float32"),
        (model, reduced, "another tokenizer"),
        (model, plain, "another chat template"),
        (model, templated, "another chat template"),
    ):
        with pytest.raises(SakuinError, match=why):
            Context.load(tmp_path, odd, words)


def test_settings_that_the_stored_tokens_depend_on_stay(tmp_path: Path) -> None:
    context = read()
    context.save(tmp_path)
    with pytest.raises(SakuinError, match=r"other settings of segment, .*segment=128"):
        Context.load(tmp_path, *model_of(), CONFIG.with_changes(segment=256))
    with pytest.raises(SakuinError, match="other settings of index"):
        Context.load(tmp_path, *model_of(), CONFIG.with_changes(index="flat"))
    exact = Context.load(tmp_path, *model_of(), CONFIG.with_changes(tolerance=0.0))
    assert exact.ask(QUESTION, 4).stats["exact"] == 1.0


def test_what_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SakuinError, match="'graph' cannot be kept on disk; use sketch, flat, auto or ivf"):
        read(config=CONFIG.with_changes(index="graph")).save(tmp_path / "graph")
    with pytest.raises(SakuinError, match="full attention cannot be stored"):
        Context.from_text(*model_of(), TEXT, "full").save(tmp_path / "full")
    (tmp_path / "full.txt").write_text("x")
    with pytest.raises(SakuinError, match="holds other things"):
        read(text=TEXT[:200]).save(tmp_path)
    with pytest.raises(SakuinError, match="is a file"):
        read(text=TEXT[:200]).save(tmp_path / "full.txt")


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    context = read()
    context.save(tmp_path)
    assert store.verify(tmp_path) == []
    biggest = max((tmp_path / store.PARTS).iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(biggest.read_bytes())
    data[-5] ^= 1
    biggest.write_bytes(data)
    (damage,) = store.verify(tmp_path)
    assert biggest.name in damage
    biggest.write_bytes(data[:-1])
    with pytest.raises(SakuinError, match=f"{biggest.name} has [0-9,]+ bytes where"):
        Context.load(tmp_path, *model_of())
    biggest.unlink()
    with pytest.raises(SakuinError, match=f"{biggest.name} is missing"):
        Context.load(tmp_path, *model_of())
    with pytest.raises(SakuinError, match="there is no snapshot"):
        Context.load(tmp_path / "nowhere", *model_of())
    assert said(context)[0]  # the context in memory does not mind
    context.save(tmp_path)  # and restores what was lost
    assert store.verify(tmp_path) == []


def test_another_version_is_refused(tmp_path: Path) -> None:
    read(text=TEXT[:300]).save(tmp_path)
    path = tmp_path / store.MANIFEST
    held = json.loads(path.read_bytes())
    path.write_text(json.dumps(held | {"format": 2}))
    with pytest.raises(SakuinError, match="format version 2"):
        Context.load(tmp_path, *model_of())


def test_a_part_of_another_text_is_not_taken_for_ones_own(tmp_path: Path) -> None:
    read().save(tmp_path / "a")
    read(text=TEXT.replace("fox", "cat")).save(tmp_path / "b")
    mine, other = _manifest(tmp_path / "a"), _manifest(tmp_path / "b")
    swapped = [b if a.kind == "segment" else a for a, b in zip(mine.parts, other.parts, strict=True)]
    for part in other.parts:
        target = tmp_path / "a" / store.PARTS / part.file
        if not target.exists():
            os.link(tmp_path / "b" / store.PARTS / part.file, target)
    (tmp_path / "a" / store.MANIFEST).write_bytes(replace(mine, parts=swapped).encode())
    with pytest.raises(SakuinError, match="is not a part of this text"):
        Context.load(tmp_path / "a", *model_of())


def test_a_conversation_is_stored_with_its_turns(tmp_path: Path) -> None:
    context = read()
    context.chat("What does line 3 say?", max_new_tokens=20)
    context.save(tmp_path)
    loaded = Context.load(tmp_path, *model_of())
    assert loaded.documents == context.documents
    ours, theirs = (one.chat("And line 4?", max_new_tokens=12) for one in (context, loaded))
    assert (ours.text, ours.evidence, ours.tokens) == (theirs.text, theirs.evidence, theirs.tokens)


def test_a_real_model_answers_the_same_from_a_snapshot(
    either: tuple[Any, Any], long_text: str, tmp_path: Path
) -> None:
    fact = "The support contract with Halden ends on: 14 March 2031."
    text = f"{long_text[:1200]}\n\n{fact}\n\n{long_text[1200:2400]}"
    context = Context.from_text(*either, text, RetrievalConfig(sink=16, recent=64, segment=256))
    question = "When does the support contract with Halden end?"
    before = context.ask(question, max_new_tokens=24)
    context.save(tmp_path)
    after = Context.load(tmp_path, *either).ask(question, max_new_tokens=24)
    assert (after.text, after.evidence) == (before.text, before.evidence)
    assert "14 March 2031" in after.text


def _manifest(folder: Path) -> manifests.Manifest:
    return manifests.read(folder / store.MANIFEST)
