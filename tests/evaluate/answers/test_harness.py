"""lm-eval's tasks through sakuin: full attention and exact indexes say what lm-eval's own model says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from test_cli import refused
from tiny import tiny

from sakuin.backends import catalogue
from sakuin.cli import app
from sakuin.errors import SakuinError
from sakuin.evaluate.answers.harness_runs import about, found, run
from sakuin.evaluate.configurations import configurations
from sakuin.evaluate.harness import TASKS, SakuinLM
from sakuin.evaluate.results import Results

WINDOW = 1024
FLAT = "flat:sink=4,recent=16,segment=64"
"""Exact, with most tokens in the index."""
NAMES = ("full", FLAT)
SMALL = {"characters": 2000, "texts": 2}


@pytest.fixture(scope="module")
def tokenizer(smollm2_by_transformers: tuple[Any, Any]) -> Any:
    return smollm2_by_transformers[1]


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    """A small random model in fp32, sharp enough that a wrong token shows."""
    return tiny(
        "llama",
        vocab_size=len(tokenizer),
        max_position_embeddings=WINDOW,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


@pytest.fixture(scope="module")
def theirs(model: Any, tokenizer: Any) -> HFLM:
    """lm-eval's own model class over the same weights."""
    return HFLM(pretrained=model, tokenizer=tokenizer, max_length=WINDOW, batch_size=1)


def ours(model: Any, tokenizer: Any, name: str, **more: Any) -> SakuinLM:
    return SakuinLM(model, name, tokenizer=tokenizer, **more)


def requests(kind: str, *arguments: tuple[Any, ...]) -> list[Instance]:
    return [Instance(kind, {}, given, i) for i, given in enumerate(arguments)]


@pytest.mark.parametrize("name", NAMES)
def test_likelihoods_are_what_lm_eval_says(
    model: Any, tokenizer: Any, theirs: HFLM, long_text: str, name: str
) -> None:
    prompt = long_text[:900]
    asked = requests(
        "loglikelihood",
        (prompt, " of the software and of its documentation, which is long enough for two passes"),
        (prompt, " zebra"),
        ("", "Nothing before it"),
        ("Short", " one"),
        (long_text[:9000], " after a prompt that is longer than the window"),
    )
    for (mine, greedy), (wanted, likeliest) in zip(
        ours(model, tokenizer, name).loglikelihood(asked, disable_tqdm=True),
        theirs.loglikelihood(asked, disable_tqdm=True),
        strict=True,
    ):
        assert mine == pytest.approx(wanted, abs=2e-3)
        assert greedy == likeliest


def test_a_likeliest_continuation_is_called_greedy(model: Any, tokenizer: Any, long_text: str) -> None:
    prompt = long_text[:500]
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    with torch.no_grad():
        said = tokenizer.decode(model(ids).logits[0, -1].argmax())
    lm = ours(model, tokenizer, FLAT)
    request = ((prompt, said), ids[0].tolist(), tokenizer(said, add_special_tokens=False).input_ids)
    assert lm._loglikelihood_tokens([request], disable_tqdm=True)[0][1]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("characters", [600, 6000], ids=["one window", "several windows"])
def test_rolling_likelihoods_are_what_lm_eval_says(
    model: Any, tokenizer: Any, theirs: HFLM, long_text: str, name: str, characters: int
) -> None:
    asked = requests("loglikelihood_rolling", (long_text[:characters],))
    (mine,) = ours(model, tokenizer, name).loglikelihood_rolling(asked, disable_tqdm=True)
    (wanted,) = theirs.loglikelihood_rolling(asked, disable_tqdm=True)
    assert mine == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_what_lm_eval_says(
    model: Any, tokenizer: Any, theirs: HFLM, long_text: str, name: str
) -> None:
    given = {"until": ["\n\n"], "max_gen_toks": 12, "do_sample": False}
    asked = requests("generate_until", (long_text[:900], given), (long_text[:9000], given))
    mine = ours(model, tokenizer, name).generate_until(asked, disable_tqdm=True)
    assert mine == theirs.generate_until(asked, disable_tqdm=True)
    assert all(mine)


def test_an_answer_ends_before_the_first_stop_sequence(model: Any, tokenizer: Any, long_text: str) -> None:
    lm = ours(model, tokenizer, FLAT)
    prompt = long_text[:900]
    (whole,) = lm.generate_until(requests("generate_until", (prompt, {"max_gen_toks": 12})), True)
    stop = whole[3:6]
    given = {"max_gen_toks": 12, "until": ["never", stop]}
    (cut,) = lm.generate_until(requests("generate_until", (prompt, given)), True)
    assert cut == whole[: whole.index(stop)]


@pytest.mark.parametrize(
    "given",
    [{"repetition_penalty": 1.2}, {"num_beams": 4}, {"do_sample": True, "temperature": 1, "top_k": 5}],
)
def test_decoding_that_is_not_known_is_refused(model: Any, tokenizer: Any, given: dict[str, Any]) -> None:
    lm = ours(model, tokenizer, "balanced")
    with pytest.raises(SakuinError, match="|".join(given)):
        lm.generate_until(requests("generate_until", ("Some prompt", given)), True)


def test_drawn_answers_are_the_same_each_time(model: Any, tokenizer: Any) -> None:
    given = {"do_sample": True, "temperature": 2.0, "top_p": 0.9, "max_gen_toks": 8}
    lm = ours(model, tokenizer, FLAT)
    asked = requests("generate_until", ("Some prompt", given))
    assert lm.generate_until(asked, True) == lm.generate_until(asked, True)


def test_wrong_arguments_are_named(model: Any, tokenizer: Any) -> None:
    for more, said in (
        ({"batch_size": 8}, "batch_size must be 1, got 8"),
        ({"max_length": WINDOW + 1}, "at most the 1,024 tokens"),
    ):
        with pytest.raises(SakuinError, match=said):
            ours(model, tokenizer, "balanced", **more)
    with pytest.raises(SakuinError, match="no configuration 'best'"):
        ours(model, tokenizer, "best")
    with pytest.raises(SakuinError, match="at a share"):
        ours(model, tokenizer, "sketch@9%")


def test_our_tasks_run_in_every_configuration(
    model: Any, tokenizer: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """A random model knows nothing; an exact index must know as little."""
    told: list[str] = []
    chosen = found(["sakuin_long"], SMALL)
    metrics = run(model, tokenizer, configurations(FLAT), chosen, 1, SMALL, say=told.append)
    for name in NAMES:  # eight continuations of one prompt, one answer, one text
        assert told.count(f"sakuin_long: {name}, request 8 of 8") == 1
        assert told.count(f"sakuin_long: {name}, request 1 of 1") == 2
    assert "%|" not in capfd.readouterr().err  # no bars
    by = {(one.task, one.metric): one for one in metrics}
    assert set(by) == {
        ("sakuin_facts", "acc"),
        ("sakuin_facts_generate", "exact_match (number)"),
        ("sakuin_english", "word_perplexity"),
        ("sakuin_english", "byte_perplexity"),
        ("sakuin_english", "bits_per_byte"),
    }
    for one in metrics:
        assert one.value == pytest.approx(one.full, rel=1e-4)
        assert one.documents == 1
    assert by["sakuin_facts", "acc"].difference is not None
    assert by["sakuin_english", "word_perplexity"].difference is None


def test_an_interrupted_run_goes_on_request_by_request(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    """Of every kind of request; what was computed is not computed again, and all scores are as without."""
    chosen, wanted = found(["sakuin_long"], SMALL), configurations(FLAT)
    path, state = tmp_path / "results.jsonl", about(model, "random")
    passes: list[int] = []
    until = [10**9]

    def count(*_: Any) -> None:
        passes.append(1)
        if len(passes) > until[0]:
            raise KeyboardInterrupt

    hook = model.register_forward_pre_hook(count)
    try:
        whole = run(model, tokenizer, wanted, chosen, 1, SMALL)
        needed = len(passes)
        passes.clear()
        # It is interrupted again and again, each time a little later.
        runs, held = 0, b""
        until[0] = needed // 4
        while True:
            try:
                again = run(model, tokenizer, wanted, chosen, 1, SMALL, Results(path, state))
                break
            except KeyboardInterrupt:
                runs += 1
                assert path.read_bytes().startswith(held)
                held = path.read_bytes()
                passes.clear()
                until[0] += needed // 8  # one request may need more than that
        assert runs >= 2
        assert len(passes) < needed
        assert path.read_bytes().startswith(held)
        passes.clear()
        kept = path.read_bytes()
        once_more = run(model, tokenizer, wanted, chosen, 1, SMALL, Results(path, state))
    finally:
        hook.remove()
    assert again == once_more == whole
    assert (passes, path.read_bytes()) == ([], kept)
    lines = [json.loads(line) for line in kept.splitlines()[1:]]
    kinds = {line["key"].rsplit(" ", 1)[0] for line in lines if "key" in line}
    assert kinds == {f"{what} {kind}" for what in ("likelihood", "answer") for kind in ("full", "flat")}


def test_responses_are_kept_by_all_that_they_depend_on(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    results = Results(tmp_path / "results.jsonl", about(model, "random"))

    def asked(name: str, prompt: str, **given: Any) -> str:
        request = requests("generate_until", (prompt, {"max_gen_toks": 8, **given}))
        (said,) = ours(model, tokenizer, name, results=results).generate_until(request, True)
        return said

    first = asked(FLAT, "Some prompt")
    assert (asked(FLAT, "Some prompt"), len(results)) == (first, 1)
    for name, prompt, given in (
        ("full", "Some prompt", {}),
        (FLAT.replace("sink=4", "sink=5"), "Some prompt", {}),
        (FLAT, "Another prompt", {}),
        (FLAT, "Some prompt", {"max_gen_toks": 9}),
        (FLAT, "Some prompt", {"until": [first[2:4]]}),
        (FLAT, "Some prompt", {"do_sample": True, "temperature": 2.0}),
        (FLAT, "Some prompt", {"do_sample": True, "temperature": 2.0, "top_p": 0.5}),
    ):
        before = len(results)
        asked(name, prompt, **given)
        assert len(results) == before + 1
    lm = ours(model, tokenizer, FLAT, results=results)
    before = len(results)
    pairs = [("Some prompt", " it"), ("Some prompt", " them"), ("Some", " it")]
    once = lm.loglikelihood(requests("loglikelihood", *pairs), disable_tqdm=True)
    assert len(results) == before + 3
    again = lm.loglikelihood(requests("loglikelihood", *reversed(pairs)), disable_tqdm=True)
    assert (again, len(results)) == (once[::-1], before + 3)
    with pytest.raises(SakuinError, match="another run"):
        Results(tmp_path / "results.jsonl", about(model, "another"))


def test_the_facts_of_a_task_are_in_its_text() -> None:
    manager = TaskManager(include_path=str(TASKS), include_defaults=False, metadata=SMALL)
    task = manager.load(["sakuin_facts"])["tasks"]["sakuin_facts"]
    documents = list(task.test_docs())
    assert len(documents) == 2
    for doc in documents:
        assert len(set(doc["choices"])) == 8
        assert f"The access code of the {doc['thing']} is {doc['code']}." in doc["text"]
        assert all(code in doc["text"] for code in doc["choices"])
        assert doc["choices"][doc["answer"]] == doc["code"]
    assert documents[0]["text"] != documents[1]["text"]


@pytest.mark.slow
def test_a_real_model_answers_our_tasks(smollm2: tuple[Any, Any]) -> None:
    chosen = found(["sakuin_facts", "sakuin_facts_generate"], {"characters": 8000, "texts": 4})
    for one in run(*smollm2, configurations("balanced"), chosen, None, {"characters": 8000, "texts": 4}):
        assert one.full >= 0.5  # of eight codes, so that guessing has an eighth
        assert one.value == one.full


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--tasks", "sakuin_fact", "no task 'sakuin_fact'"),
        ("--configurations", "full", "beside full attention"),
        ("--metadata", "[1]", "must be a JSON object"),
        ("--limit", "0", "at least 1, got 0"),
    ],
)
def test_the_command_refuses_what_it_does_not_know(option: str, value: str, said: str) -> None:
    assert said in refused("eval", "harness", option, value)


def test_the_command_keeps_what_it_found_and_goes_on(
    model: Any,
    tokenizer: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for one in (model, tokenizer):
        one.save_pretrained(tmp_path / "small")
    words = [
        "eval",
        "harness",
        "--tasks",
        "sakuin_facts",
        "--model",
        str(tmp_path / "small"),
        "--dtype",
        "fp32",
    ]
    words += ["--configurations", FLAT, "--metadata", json.dumps(SMALL), "--device", "cpu"]
    words += ["--out", str(tmp_path / "out"), "--json"]

    def called(*more: str) -> dict[str, Any]:
        assert not app([*words, *more], prog_name="sakuin", standalone_mode=False)
        report: dict[str, Any] = json.loads(capsys.readouterr().out)
        return report

    kept = tmp_path / "out" / "harness-small"
    report = called("--limit", "1")
    held = (kept / "results.jsonl").read_text()
    assert json.loads((kept / "harness.json").read_text()) == report
    assert report["command"].endswith("--limit 1 --metadata '" + json.dumps(SMALL) + "'")
    assert " --device cpu " in report["command"]
    (metric,) = report["metrics"]
    assert (metric["task"], metric["documents"], metric["value"]) == ("sakuin_facts", 1, metric["full"])
    assert called("--limit", "1")["metrics"] == report["metrics"]
    assert (kept / "results.jsonl").read_text() == held
    # More documents go on from there; another window is another model.
    assert called()["metrics"][0]["documents"] == 2
    assert (kept / "results.jsonl").read_text().startswith(held)
    assert called("--limit", "1", "--window", "2048")["about"]["window"] == 2048
    assert (tmp_path / "out" / "harness-small-to-2048" / "results.jsonl").is_file()


def test_lm_evals_own_command_line_knows_the_model() -> None:
    """Once through its parser, its registry and our tasks, with a real model."""
    catalogue.get("smollm2")
    words = [
        "run",
        "--model",
        "sakuin",
        "--model_args",
        "pretrained=smollm2,configuration=balanced,dtype=fp32",
    ]
    words += ["--tasks", "sakuin_facts_generate", "--include_path", str(TASKS)]
    words += ["--metadata", '{"characters": 3000, "texts": 1}']
    done = subprocess.run(
        [sys.executable, "-m", "sakuin.evaluate.harness", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"exact_match\s*\|.*\|\s*1", done.stdout), done.stdout
