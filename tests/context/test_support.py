"""Evidence and support of real models: the sentence that says it leads, and what is not said is doubted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from stored import CONFIG, MORE, QUESTION, TEXT, counted, model_of, read
from tiny import BYTES, byte_tokenizer, tiny

from sakuin import Context
from sakuin.context import support
from sakuin.context.generate import run
from sakuin.context.support import LITTLE

DIARY = (Path(__file__).parent / "diary.md").read_text()
FERRY = "The ferry to Norby leaves at ten."
FIRST = "The door code of the archive is 4182."


def test_the_sentence_that_says_it_leads_and_what_is_not_said_is_doubted(either: tuple[Any, Any]) -> None:
    context = Context.from_text(*either, DIARY)
    there = context.ask("When does the ferry to Norby leave?", 24)
    assert there.evidence[0].text == FERRY
    assert there.evidence[0].weight > 0.5
    gone = Context.from_text(*either, DIARY.replace(FERRY, "")).ask("When does the ferry to Norby leave?", 24)
    assert there.support is not None
    assert gone.support is not None
    assert gone.support < LITTLE < there.support <= 1


def test_a_fact_in_the_first_sentence_is_found_there(smollm2: tuple[Any, Any]) -> None:
    answer = Context.from_text(*smollm2, f"{FIRST} {DIARY}").ask("What is the door code of the archive?", 24)
    assert "4182" in answer.text
    assert answer.evidence[0].text == FIRST
    assert answer.support is not None
    assert answer.support > LITTLE


def test_a_base_model_has_a_scale_of_its_own(gemma3: tuple[Any, Any]) -> None:
    context = Context.from_text(*gemma3, f"{DIARY}\n\n{FIRST}\n")
    there = context.ask("What is the door code of the archive?", 24)
    assert "4182" in there.text
    assert there.evidence[0].text == FIRST
    gone = context.ask("What is the name of the hospital's director?", 24)
    assert there.support is not None
    assert gone.support is not None
    assert gone.support < LITTLE < there.support


def test_a_model_that_finds_nothing_has_no_support() -> None:
    assert read().ask(QUESTION, 8).support is None


def test_full_attention_tells_nothing() -> None:
    answer = Context.from_text(*model_of(), TEXT, "full").ask(QUESTION, 8)
    assert (answer.evidence, answer.support) == ([], None)


def test_what_any_question_draws_is_measured_once_a_text() -> None:
    model, _ = model_of()
    context = read()
    context.ask(QUESTION, 4)
    with counted(model, measuring=True) as seen:
        context.ask(QUESTION, 4)
        asked = len(seen)
        context.fork().ask(QUESTION, 4)
        assert len(seen) == 2 * asked
        context.append(MORE)
        del seen[:]
        context.ask(QUESTION, 4)
        assert len(seen) > asked  # another text
        del seen[:]
        context.ask(QUESTION, 4)
        assert len(seen) == asked


def test_it_is_kept_with_a_snapshot(tmp_path: Path) -> None:
    context = read()
    context.save(tmp_path / "kept")
    before = context.ask(QUESTION, 6)
    kept = json.loads((tmp_path / "kept" / "manifest.json").read_text())["drawn"]
    assert kept["positions"]
    with counted(model_of()[0], measuring=True) as seen:
        context.ask(QUESTION, 6)
        asked = len(seen)
        again = Context.load(tmp_path / "kept", *model_of()).ask(QUESTION, 6)
        assert len(seen) == 2 * asked
    assert again.evidence == before.evidence


def test_a_text_without_room_for_a_neutral_question_is_still_answered() -> None:
    room = len(TEXT.encode()) + 28  # enough for the question, not for a longer one
    model = tiny("llama", vocab_size=BYTES, max_position_embeddings=room)
    context = Context.from_text(model, byte_tokenizer(), TEXT, CONFIG)
    answer = context.ask(QUESTION, 4)
    assert answer.new_tokens > 0
    assert answer.support is None
    assert context._draws.kept is None


def test_the_scale_is_measured_once_a_model_and_kept(
    smollm2: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAKUIN_CACHE", str(tmp_path))
    context = Context.from_text(*smollm2, "A text of a few words.")
    monkeypatch.setattr(support, "_measured", type(support._measured)())
    backend, prompt = context.backend, context._prompt
    scale = run(backend, support.scale_of(backend, prompt))
    (file,) = (tmp_path / "support").iterdir()
    assert 1 < scale == json.loads(file.read_text())["scale"] < 6
    file.write_text(file.read_text().replace(str(scale), "2.5"))
    assert run(backend, support.scale_of(backend, prompt)) == scale  # known in this process
    support._measured.clear()
    assert run(backend, support.scale_of(backend, prompt)) == 2.5


def test_that_a_model_found_nothing_is_not_kept(
    smollm2: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAKUIN_CACHE", str(tmp_path))
    monkeypatch.setattr(support, "_measured", type(support._measured)())
    monkeypatch.setattr(support, "_FACTS", (("Who sang?", "Nobody knows"),) * 3)
    context = Context.from_text(*smollm2, "A text of a few words.")
    assert run(context.backend, support.scale_of(context.backend, context._prompt)) == 0
    assert not (tmp_path / "support").exists()  # with other kernels it may find some


@pytest.mark.parametrize(
    "kept",
    ["", "{}", "[]", '{"form": 2, "scale": "x"}', '{"form": 2, "scale": NaN}', '{"form": 1, "scale": 2}'],
)
def test_what_is_kept_damaged_is_measured_again(kept: str, tmp_path: Path) -> None:
    (tmp_path / "kept.json").write_text(kept)
    assert support._read(tmp_path / "kept.json") is None
    assert support._read(tmp_path / "none.json") is None


def test_settings_do_not_change_whose_text_it_is() -> None:
    context = read(config=CONFIG)
    context.ask(QUESTION, 2)
    assert context._draws.kept is not None
    assert context._draws.kept.fits(TEXT)


def test_what_a_question_draws_from_text_that_waits_is_kept_too(tmp_path: Path) -> None:
    context = read(text="The keys hang beside the door.")
    assert context._reading.waiting
    context.save(tmp_path / "kept")
    again = Context.load(tmp_path / "kept", *model_of())
    assert again._draws.kept == context._draws.kept
    assert again._draws.kept is not None
    assert max(again._draws.kept.positions, default=0) >= context.tokens
