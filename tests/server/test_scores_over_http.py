"""The clients of benchmarks against the server: they run to the end, and score what the model scores without
it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from served import serving

from sakuin import RetrievalConfig
from sakuin.backends.open import backend_of
from sakuin.context.generate import prefill
from sakuin.evaluate.decode import decode_answer
from sakuin.evaluate.texts.ruler_samples import samples

FEW = {"characters": 2000, "texts": 1}
TASKS = ["sakuin_facts", "sakuin_facts_generate"]


def evaluated(lm: Any, limit: int) -> dict[str, Any]:
    """What lm-eval makes of each document of our tasks: answers, likelihoods, scores."""
    lm_eval = pytest.importorskip("lm_eval")
    from sakuin.evaluate.answers.harness_runs import found

    said = lm_eval.simple_evaluate(
        lm, **found(TASKS, FEW), limit=limit, metadata=FEW, bootstrap_iters=0, log_samples=True
    )
    scores = {task: said["results"][task] for task in TASKS}
    answers = [one["filtered_resps"] for one in said["samples"]["sakuin_facts_generate"]]
    likely = [
        (one["doc_id"], at, float(each[0]), bool(each[1]))
        for one in said["samples"]["sakuin_facts"]
        for at, each in enumerate(one["filtered_resps"])
    ]
    return {"scores": scores, "answers": answers, "likely": sorted(likely)}


@pytest.mark.slow
def test_lm_eval_scores_over_http_what_it_scores_in_process(
    smollm2_by_transformers: tuple[Any, Any], tmp_path: Path
) -> None:
    pytest.importorskip("lm_eval")
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    from sakuin.evaluate.answers.harness_model import SakuinLM

    model, tokenizer = smollm2_by_transformers
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    # A prompt whose own tokens are scored is read exactly, as full attention reads it.
    here = evaluated(SakuinLM(model, "full", tokenizer=tokenizer), 3)
    with serving(smollm2_by_transformers, tmp_path / "library", name="smollm2") as served:
        client = LocalCompletionsAPI(
            base_url=f"{served.api}/completions",
            model="smollm2",
            tokenizer=str(tmp_path / "tokenizer"),
            tokenizer_backend="huggingface",
            num_concurrent=2,
            max_length=served.service.backend.shape.window,
            max_retries=1,
        )
        there = evaluated(client, 3)
    assert there["answers"] == here["answers"]
    assert there["scores"]["sakuin_facts_generate"] == here["scores"]["sakuin_facts_generate"]
    assert there["scores"]["sakuin_facts"] == here["scores"]["sakuin_facts"]
    assert [one[:2] + one[3:] for one in there["likely"]] == [one[:2] + one[3:] for one in here["likely"]]
    assert [one[2] for one in there["likely"]] == pytest.approx([one[2] for one in here["likely"]], abs=1e-2)


@pytest.mark.slow
def test_ruler_s_own_client_scores_what_the_model_scores(smollm2: tuple[Any, Any], tmp_path: Path) -> None:
    spec = find_spec("long_context_eval")
    if spec is None or spec.origin is None:
        pytest.skip("RULER's package is not installed")
    made = samples(smollm2[1], "vt", 2048, 1)
    (tmp_path / "vt").mkdir()
    rows = [
        {"index": one.index, "input": one.body + one.lead, "outputs": list(one.references)} for one in made
    ]
    (tmp_path / "vt" / "validation.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
    )
    backend = backend_of(*smollm2)
    here = []
    with backend.steady():
        for one in made:
            ids = backend.vocabulary.encode(one.body + one.lead).ids
            cache = backend.new_cache(RetrievalConfig())
            prefill(backend, cache, ids[:-1])
            here.append(decode_answer(backend, cache, ids[-1], one.most).text)
    with serving(smollm2, tmp_path / "library", name="smollm2") as served:
        given = {
            "data_dir": tmp_path,
            "save_dir": tmp_path / "said",
            "task": "vt",
            "server_type": "generic_oai_server",
            "generic_oai_server_mode": "completion",
            "generic_oai_server_url": f"{served.api}/completions",
            "model_name_or_path": "smollm2",
            "temperature": 0,
            "threads": 1,
        }
        words = [word for key, value in given.items() for word in (f"--{key}", str(value))]
        script = Path(spec.origin).parent / "pred" / "call_api.py"
        with served.service.backend.steady():
            done = subprocess.run(
                [sys.executable, str(script), *words],
                env={**os.environ, "API_KEY": "none", "NO_PROXY": "127.0.0.1"},
                capture_output=True,
                text=True,
                check=False,
                timeout=500,
            )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = (tmp_path / "said" / "vt.jsonl").read_text(encoding="utf-8").splitlines()
    there = [json.loads(line)["pred"] for line in lines]
    assert there == here
    assert [one.score(text) for one, text in zip(made, there, strict=True)] == [
        one.score(text) for one, text in zip(made, here, strict=True)
    ]
