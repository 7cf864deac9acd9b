"""RULER: samples from its own generators, scored by its own rules, paired with full attention, resumed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_cli import refused
from tiny import tiny, tokens

from sakuin.backends import catalogue
from sakuin.backends.open import backend_of, vocabulary_of
from sakuin.context.generate import generate
from sakuin.errors import SakuinError
from sakuin.evaluate.answers.ruler import Scored, _margin, about, differing, ruler, summarized
from sakuin.evaluate.configurations import configurations
from sakuin.evaluate.prefilled import Prefilled
from sakuin.evaluate.results import Results
from sakuin.evaluate.texts import ruler_samples
from sakuin.evaluate.texts.ruler_samples import Sample, check_tasks, samples
from sakuin.prompts.template import Prompt
from sakuin.storage import folders

TASK, LENGTH = "vt", 2048
SAMPLE = Sample("niah_multivalue", 4096, 0, "body", " lead", ("123", "Abc"), 128)


@pytest.fixture(scope="module", autouse=True)
def kept_apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the generators make goes to a fresh folder, so that they really run."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        models = folders.cache_folder()
        patch.setattr(catalogue, "cache_folder", lambda: folder)
        (folder / "models").symlink_to(models / "models")
        (folder / "gguf").symlink_to(models / "gguf")
        yield


@pytest.fixture(scope="module")
def random_model(smollm2_by_transformers: tuple[Any, Any]) -> Any:
    """A small random model that reads what smollm2's tokenizer writes."""
    return tiny("llama", vocab_size=len(smollm2_by_transformers[1]), max_position_embeddings=LENGTH)


def test_samples_fit_their_length_and_hold_their_answers(smollm2_by_transformers: tuple[Any, Any]) -> None:
    tokenizer = smollm2_by_transformers[1]
    prompt = Prompt.of(vocabulary_of(tokenizer))
    found = samples(tokenizer, TASK, LENGTH, 3)
    assert [one.index for one in found] == [0, 1, 2]
    for one in found:
        assert LENGTH * 0.8 < len(one.ids(prompt)) + one.most <= LENGTH
        assert all(reference in one.body for reference in one.references)
        assert one.score(" and ".join(one.references)) == 100
    assert found[0].body != found[1].body
    # Fewer are the first of more, from what was kept and made anew; another seed gives others.
    assert samples(tokenizer, TASK, LENGTH, 1) == found[:1]
    assert samples(tokenizer, TASK, LENGTH, 1, seed=7)[0].body != found[0].body


def test_both_backends_are_given_the_same_samples(
    smollm2: tuple[Any, Any], smollm2_by_transformers: tuple[Any, Any]
) -> None:
    ours, theirs = (samples(one[1], TASK, LENGTH, 2) for one in (smollm2, smollm2_by_transformers))
    assert ours == theirs


@pytest.mark.slow
@pytest.mark.parametrize("task", ruler_samples.TASKS)
def test_every_task_has_samples(smollm2_by_transformers: tuple[Any, Any], task: str) -> None:
    (one,) = samples(smollm2_by_transformers[1], task, 4096, 1)
    ids = one.ids(Prompt.of(vocabulary_of(smollm2_by_transformers[1])))
    assert 1500 < len(ids) <= 4096 - one.most
    assert one.references
    assert one.lead.strip()
    if not task.startswith("qa"):
        assert all(reference in one.body for reference in one.references)


def test_a_chat_model_begins_its_own_turn_with_the_lead(smollm2_by_transformers: tuple[Any, Any]) -> None:
    tokenizer = smollm2_by_transformers[1]
    text = tokenizer.decode(SAMPLE.ids(Prompt.of(vocabulary_of(tokenizer))))
    assert text.startswith("<|im_start|>system")
    assert text.endswith("<|im_start|>user\nbody<|im_end|>\n<|im_start|>assistant\nlead")


def test_a_base_model_gets_plain_text_without_a_blank_at_its_end(
    smollm2_by_transformers: tuple[Any, Any],
) -> None:
    prompt = replace(Prompt.of(vocabulary_of(smollm2_by_transformers[1])), head=[], one_line=True)
    assert (
        smollm2_by_transformers[1].decode(replace(SAMPLE, lead=" they are: ").ids(prompt)) == "body they are:"
    )


@pytest.mark.parametrize(
    ("task", "prediction", "score"),
    [
        ("niah_multivalue", " 123 and ABC.", 100),
        ("niah_multivalue", "123", 50),
        ("niah_multivalue", "12 3", 0),
        ("qa_1", "it is abc", 100),
        ("qa_2", "", 0),
    ],
)
def test_scores_are_rulers(task: str, prediction: str, score: float) -> None:
    assert replace(SAMPLE, task=task).score(prediction) == score


def test_wrong_tasks_and_lengths_are_named(
    smollm2_by_transformers: tuple[Any, Any], random_model: Any
) -> None:
    assert check_tasks(["qa_1", "vt"]) == ["vt", "qa_1"]
    assert len(check_tasks(["all"])) == 13
    with pytest.raises(SakuinError, match="no task 'vtt'"):
        check_tasks(["vtt"])
    with pytest.raises(SakuinError, match="at least 2,048 tokens, got 100"):
        samples(smollm2_by_transformers[1], TASK, 100, 1)
    with pytest.raises(SakuinError, match=r"2,049 tokens is more than the 2,048 .*--window"):
        ruler(
            random_model,
            smollm2_by_transformers[1],
            configurations("balanced"),
            Results(None, {}),
            LENGTH + 1,
            [TASK],
        )
    with pytest.raises(SakuinError, match="beside full attention"):
        ruler(
            random_model,
            smollm2_by_transformers[1],
            configurations("full"),
            Results(None, {}),
            LENGTH,
            [TASK],
        )


def test_a_generator_that_finds_no_sample_that_fits_is_stopped(
    smollm2_by_transformers: tuple[Any, Any],
) -> None:
    with pytest.raises(SakuinError, match="qa_2 within 3 s"):
        samples(smollm2_by_transformers[1], "qa_2", LENGTH, 1, seed=1, patience=3)


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ruler_samples, "find_spec", lambda name: None)
    with pytest.raises(SakuinError, match=r"pip install 'sakuin\[eval\]'"):
        samples(None, TASK, LENGTH, 1)


def test_an_interrupted_run_goes_on_where_it_was(
    smollm2_by_transformers: tuple[Any, Any], random_model: Any, tmp_path: Path
) -> None:
    tokenizer = smollm2_by_transformers[1]
    wanted = configurations("balanced sketch:tolerance=0")
    state = about(random_model, "random", 42)

    class Interrupted(Exception):
        pass

    def stop(text: str) -> None:
        if "sample 2" in text:
            raise Interrupted

    with pytest.raises(Interrupted):
        ruler(random_model, tokenizer, wanted, Results(tmp_path / "r", state), LENGTH, [TASK], 2, say=stop)
    held = (tmp_path / "r").read_bytes()
    assert held.count(b"\n") == 1 + 1 + 3  # what was run, the machine, and three answers
    (tmp_path / "r").write_bytes(held + b'{"key": "torn')
    passes = []
    hook = random_model.register_forward_pre_hook(lambda *_: passes.append(1))
    scored = ruler(random_model, tokenizer, wanted, Results(tmp_path / "r", state), LENGTH, [TASK], 2)
    assert (tmp_path / "r").read_bytes().startswith(held)
    assert passes
    passes.clear()
    again = ruler(random_model, tokenizer, wanted, Results(tmp_path / "r", state), LENGTH, [TASK], 2)
    hook.remove()
    assert again == scored
    assert not passes
    assert len({one.configuration for one in scored}) == 3
    by = {(one.index, one.configuration): one for one in scored}
    for index in range(2):
        exact, full = by[index, "sketch:tolerance=0"], by[index, "full"]
        assert exact.prediction == full.prediction  # tolerance 0 is exact attention
        assert full.touched_share is None
        assert exact.touched_share is not None
        assert exact.touched_share > 0.5


def test_rows_pair_each_sample_with_full_attention() -> None:
    def scored(task: str, index: int, name: str, score: float) -> Scored:
        return Scored(task, 4096, index, name, score, f"{score}", (), 4000, 9, None, 1.0)

    rows = summarized(
        [
            scored("vt", 0, "full", 100),
            scored("vt", 0, "fast", 80),
            scored("vt", 1, "full", 20),
            scored("vt", 1, "fast", 40),
            scored("qa_1", 0, "full", 100),
            scored("qa_1", 0, "fast", 100),
        ]
    )
    assert [row.task for row in rows] == ["vt", "qa_1", None]
    assert [row.length for row in rows] == [4096] * 3
    vt, _, mean = rows
    assert (vt.full, vt.score, vt.loss.mean) == (60, 60, 0)
    assert (vt.solved, vt.kept) == (1, 0)
    assert (vt.same, rows[1].same, mean.same) == (0, 1, 1)
    assert vt.kept_loss is not None
    assert vt.kept_loss.mean == -20
    assert (mean.full, mean.score) == (80, 80)
    assert (mean.solved, mean.kept) == (2, 1)
    assert mean.kept_loss is not None
    assert mean.kept_loss.mean == -10


def test_where_answers_part_full_attentions_own_margin_is_told(random_model: Any) -> None:
    ids = tokens(300)[0].tolist()
    read = Prefilled.read(random_model, ids[:-1])
    said = [token.id for token in generate(backend_of(random_model), read.full_cache(), ids[-1], 6)]
    assert _margin(read, ids[-1], said) is None
    with torch.no_grad():
        logits = random_model(torch.tensor([[*ids, *said[:3]]])).logits[0, -1]
    best, second = logits.topk(2)
    assert int(second[0]) == said[3]
    other = [*said[:3], int(second[1]), 5, 5]
    assert _margin(read, ids[-1], other) == pytest.approx(float(best[0] - best[1]), abs=1e-3)


def test_answers_that_differ_are_listed() -> None:
    def scored(index: int, name: str, score: float, margin: float | None = None) -> Scored:
        return Scored("vt", 4096, index, name, score, "", (), 4000, 9, None, 1.0, margin)

    found = [
        scored(0, "full", 100),
        scored(0, "fast", 100),
        scored(1, "full", 100),
        scored(1, "fast", 0, 0.01),
    ]
    (one,) = differing(found)
    assert (one["index"], one["configuration"], one["full"], one["score"]) == (1, "fast", 100, 0)
    assert one["margin"] == 0.01


def test_each_task_and_length_has_the_same_weight_in_what_was_touched() -> None:
    def scored(task: str, index: int, touched: float) -> list[Scored]:
        one = Scored(task, 4096, index, "fast", 100, "", (), 4000, 9, touched, 1.0)
        return [replace(one, configuration="full", touched_share=None), one]

    found = [one for index in range(3) for one in scored("vt", index, 0.1)] + scored("qa_1", 0, 0.3)
    assert [row.touched_share for row in summarized(found)] == pytest.approx([0.1, 0.3, 0.2])


def test_several_lengths_have_a_mean_over_all() -> None:
    def scored(length: int, task: str, index: int, name: str, score: float) -> Scored:
        return Scored(task, length, index, name, score, "", (), length, 9, None, 1.0)

    found = [scored(4096, "vt", index, name, 100) for index in range(4) for name in ("full", "fast")]
    found += [scored(8192, "vt", 0, "full", 100), scored(8192, "vt", 0, "fast", 40)]
    rows = summarized(found)
    assert [(row.length, row.task) for row in rows] == [
        (4096, "vt"), (4096, None), (8192, "vt"), (8192, None), (None, None)
    ]  # fmt: skip
    assert (rows[-1].full, rows[-1].score, rows[-1].loss.mean) == (
        100,
        70,
        -30,
    )  # each length counts the same
    assert (rows[-1].loss.pairs, rows[-1].loss.lost, rows[-1].solved, rows[-1].kept) == (5, 1, 5, 4)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--lengths", "4096 4096", "--lengths names 4096 twice"),
        ("--lengths", "1024", "RULER's samples need a length of at least 2,048 tokens, got 1,024"),
        ("--samples", "0", "--samples takes whole numbers above 0"),
        ("--samples", "3 2", "--samples takes one number, or as many as there are --lengths (1), got '3 2'"),
        ("--tasks", "niah", "no task 'niah'"),
        ("--lengths", "4k", "--lengths takes whole numbers"),
        ("--configurations", "best", "no configuration 'best'"),
        ("--window", "100", "at least 8,192 tokens"),
    ],
)
def test_the_command_refuses_what_it_does_not_know(option: str, value: str, said: str) -> None:
    assert said in refused("eval", "ruler", option, value)
