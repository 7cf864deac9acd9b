"""Contexts: read once, asked often, unchanged by being asked; offsets lead back into the files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sakuin import Context, RetrievalConfig, load
from sakuin.documents import Document
from sakuin.errors import SakuinError
from sakuin.machine.memory import Available

FACT = "The support contract with Halden ends on: 14 March 2031."
QUESTION = "When does the support contract with Halden end?"
FLAT = RetrievalConfig(index="flat", sink=32, recent=128, segment=256)
"""Small windows, so that most tokens of the short texts here are in the index."""


@pytest.fixture(scope="module")
def text(long_text: str) -> str:
    """Some 1,500 tokens with the fact in their middle."""
    paragraphs = long_text[:6000].split("\n\n")
    paragraphs.insert(len(paragraphs) // 2, FACT)
    return "\n\n".join(paragraphs)


@pytest.fixture(scope="module")
def context(smollm2: tuple[Any, Any], text: str) -> Context:
    return Context.from_text(*smollm2, text, FLAT)


def check_answer(context: Context, text: str) -> None:
    answer = context.ask(QUESTION, max_new_tokens=32)
    assert "14 March 2031" in answer.text
    assert answer.finished
    first, *others = answer.evidence
    assert first.text == text[first.start : first.end]
    assert FACT in first.text
    # Clearly ahead; by how much depends on how a CPU rounds.
    assert all(first.weight > 1.2 * one.weight for one in others)
    assert text.splitlines()[first.line_start - 1] == FACT
    assert answer.stats["steps"] >= answer.new_tokens


def test_it_answers_and_the_evidence_is_the_sentence_that_says_it(either: tuple[Any, Any], text: str) -> None:
    check_answer(Context.from_text(*either, text, FLAT), text)


def test_so_it_does_in_the_dtype_that_is_fast_here(text: str) -> None:
    check_answer(Context.from_text(*load("smollm2"), text, FLAT), text)


def test_flat_says_what_full_attention_says(context: Context, smollm2: tuple[Any, Any], text: str) -> None:
    full = Context.from_text(*smollm2, text, "full")
    with smollm2[0].steady():  # rounding to 8 bits would turn the last bit's difference into another word
        for question in (QUESTION, "What is this document about?"):
            assert context.ask(question, max_new_tokens=24).text == full.ask(question, max_new_tokens=24).text
    assert full.ask(QUESTION, max_new_tokens=8).evidence == []
    ours, theirs = (sum(one.kv_bytes().values()) for one in (context, full))
    assert 0 < theirs < 2 * ours  # as much, beside space to grow


def lengths(context: Context) -> set[int]:
    """Tokens that the layers of a context's cache hold."""
    retrieval = context.backend.retrieval(context.cache)
    assert retrieval is not None
    return {layer.length for layer in retrieval.layers.values()}


def test_asking_leaves_the_context_as_it_was(context: Context) -> None:
    before = context.tokens, lengths(context)
    first = context.ask(QUESTION, max_new_tokens=24)
    context.ask("What is a licence?", max_new_tokens=24)
    again = context.ask(QUESTION, max_new_tokens=24)
    assert (first.text, first.evidence) == (again.text, again.evidence)
    assert (context.tokens, lengths(context)) == before


def test_the_answer_is_streamed_as_it_is(context: Context) -> None:
    pieces: list[str] = []
    answer = context.ask(QUESTION, max_new_tokens=32, stream=pieces.append)
    assert len(pieces) > 3
    assert "".join(pieces) == answer.text


def test_an_answer_that_is_cut_off_says_so(context: Context) -> None:
    answer = context.ask(QUESTION, max_new_tokens=3)
    assert answer.new_tokens == 3
    assert not answer.finished


def test_a_seed_makes_drawn_answers_the_same(context: Context) -> None:
    drawn = [context.ask("Tell a story.", 12, temperature=1.5, seed=seed).text for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_appended_text_is_read_as_if_it_had_been_there(either: tuple[Any, Any], text: str) -> None:
    cut = text.index(FACT) + 20
    grown = Context.from_text(*either, text[:cut], FLAT)
    grown.append(text[cut:])
    whole = Context.from_text(*either, text, FLAT)
    assert grown.tokens == whole.tokens
    ours, theirs = (c.ask(QUESTION, max_new_tokens=24) for c in (grown, whole))
    assert ours.text == theirs.text
    assert ours.tokens == theirs.tokens
    assert (ours.evidence[0].start, ours.evidence[0].end) == (
        theirs.evidence[0].start,
        theirs.evidence[0].end,
    )


def test_evidence_names_the_file_and_the_line_in_it(
    smollm2: tuple[Any, Any], long_text: str, tmp_path: Path
) -> None:
    texts = {
        "one.txt": long_text[:2500],
        "two.txt": f"Notes\n\n{FACT}\n\n{long_text[2500:4000]}",
        "three.txt": "The end.",
    }
    for name, content in texts.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    context = Context.from_files(*smollm2, [tmp_path / name for name in texts], FLAT)
    first = context.ask(QUESTION, max_new_tokens=24).evidence[0]
    assert first.file == str(tmp_path / "two.txt")
    assert first.line_start <= 3 <= first.line_end
    assert first.text == texts["two.txt"][first.start : first.end]
    assert FACT in first.text


def test_progress_counts_tokens_up_to_the_end_and_then_the_index(smollm2: tuple[Any, Any], text: str) -> None:
    seen: list[tuple[int, int, str]] = []
    context = Context.from_text(*smollm2, text, FLAT, progress=lambda *step: seen.append(step))
    assert seen[0] == (0, context.tokens, "prefill")
    assert (context.tokens, context.tokens, "prefill") in seen
    assert seen[-1] == (1, 1, "index")


def test_a_short_text_needs_no_index(smollm2: tuple[Any, Any]) -> None:
    context = Context.from_text(*smollm2, "The door code is 4182.")
    answer = context.ask("What is the door code?", max_new_tokens=16)
    assert "4182" in answer.text
    assert "4182" in answer.evidence[0].text


def test_a_base_model_is_asked_as_one_and_answers_in_a_line(gemma3: tuple[Any, Any], long_text: str) -> None:
    text = f"{long_text[:1500]}\n\n{FACT}\n\n{long_text[1500:3000]}"
    answer = Context.from_text(
        *gemma3, text, RetrievalConfig(index="flat", sink=16, recent=64, segment=128)
    ).ask(QUESTION, 24)
    assert "14 March 2031" in answer.text
    assert "\n" not in answer.text
    assert any(FACT in span.text for span in answer.evidence)


@pytest.mark.parametrize("empty", ["", "  \n"])
def test_nothing_to_read_and_nothing_asked_are_refused(
    smollm2: tuple[Any, Any], context: Context, empty: str
) -> None:
    with pytest.raises(SakuinError, match="is empty"):
        Context.from_text(*smollm2, empty)
    with pytest.raises(SakuinError, match="question is empty"):
        context.ask(empty)


def test_a_text_longer_than_the_window_says_how_long_and_what_fits(
    smollm2: tuple[Any, Any], long_text: str
) -> None:
    with pytest.raises(
        SakuinError,
        match=r"is (about )?[\d,]+ tokens long and this model reads at most 8,192.*characters\) fit",
    ):
        Context.from_text(*smollm2, long_text * 2)


def test_a_question_that_does_not_fit_is_refused_and_the_context_goes_on(
    context: Context, long_text: str
) -> None:
    with pytest.raises(SakuinError, match="document and question are"):
        context.ask(long_text)
    assert context.ask(QUESTION, max_new_tokens=4).text


def test_an_append_that_does_not_fit_changes_nothing(
    smollm2: tuple[Any, Any], text: str, long_text: str
) -> None:
    context = Context.from_text(*smollm2, text, FLAT)
    before = context.ask(QUESTION, max_new_tokens=16)
    with pytest.raises(SakuinError, match="tokens long"):
        context.append(long_text)
    after = context.ask(QUESTION, max_new_tokens=16)
    assert (before.text, before.evidence) == (after.text, after.evidence)


def test_too_little_memory_is_said_before_the_work_starts(
    smollm2: tuple[Any, Any], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    little = Available(1000, "are left of this container's limit")
    monkeypatch.setattr("sakuin.capacity.need.available", lambda: little)
    with pytest.raises(SakuinError, match=r"a context of [\d,]+ tokens needs about .* 0 MB are left"):
        Context.from_text(*smollm2, text)


def test_a_model_loaded_for_another_attention_is_refused(smollm2_by_transformers: tuple[Any, Any]) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    other = LlamaForCausalLM(
        LlamaConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=2, vocab_size=100)
    )
    with pytest.raises(SakuinError, match=r"sakuin\.load"):
        Context.from_text(other, smollm2_by_transformers[1], "text")


def test_documents_are_given_as_text_too(smollm2: tuple[Any, Any]) -> None:
    context = Context.from_documents(
        *smollm2, [Document("a", "The code is 4182."), Document("b", "Nothing here.")]
    )
    assert context.ask("What is the code?", max_new_tokens=16).evidence[0].file == "a"


def test_the_estimate_of_memory_is_near_what_is_held(smollm2: tuple[Any, Any], text: str) -> None:
    from sakuin.capacity.need import estimate

    context = Context.from_text(*smollm2, text, RetrievalConfig(index="flat"))
    backend = context.backend
    need = estimate(backend.shape, context.tokens, backend.dtype, context.config, weights=0)
    held = context.kv_bytes()
    assert need.kv == pytest.approx(held["device"] + held["host"], rel=0.35)
    assert torch.is_grad_enabled()
