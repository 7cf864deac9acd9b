"""The benchmarks of answers on llama.cpp: what they plant, how they compare, what the page makes of it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sakuin.backends.llama_cpp import locate

ROOT = Path(__file__).parents[2]


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of the benchmarks or of the tools."""
    for folder in (ROOT, ROOT / "tools/docs", ROOT / "tests/backends/llama_cpp"):
        monkeypatch.syspath_prepend(folder)
    return import_module


def test_twenty_needles_each_about_something_else(part: Any) -> None:
    benchmark = part("benchmarks.answers.two_backends")
    planted = benchmark.needles(4)
    assert [needle.document for needle in planted] == [i // 5 for i in range(20)]
    assert len({needle.what for needle in planted}) == len({needle.number for needle in planted}) == 20
    for document in range(4):
        facts = [needle.fact for needle in planted if needle.document == document]
        text = benchmark.written(document, facts, 1000)
        places = [text.index(fact) for fact in facts]
        assert places == sorted(places)
        assert places[0] > 100
        assert len(text) - places[-1] > 150
    with pytest.raises(SystemExit, match="--documents must be from 1 to"):
        benchmark.needles(1000)
    with pytest.raises(SystemExit, match="too short for 4 documents of 900,000 tokens"):
        benchmark.written(3, [], 900_000)


def test_answers_are_compared_with_the_readers_and_the_askers_own(part: Any) -> None:
    benchmark = part("benchmarks.answers.two_backends")
    planted = benchmark.needles(1)[:2]
    one, two = (needle.number for needle in planted)
    right, wrong = [f"It is {one}.", f"It is {two}."], [f"It is {one}.", "I do not know."]
    theirs, ours, steady = benchmark.ASKERS
    answers = {
        (theirs, theirs): right,
        (theirs, ours): wrong,
        (theirs, steady): right,
        (ours, theirs): right,
        (ours, ours): wrong,
        (ours, steady): wrong,
    }
    rows = {(row["reader"], row["asker"]): row for row in benchmark.rows(planted, answers)}
    assert {at: row["found"] for at, row in rows.items()} == {
        at: 2 if given == right else 1 for at, given in answers.items()
    }
    assert (rows[theirs, ours]["as_reader"], rows[theirs, ours]["as_own"]) == (1, 2)
    assert (rows[theirs, steady]["as_reader"], rows[theirs, steady]["as_own"]) == (2, 1)
    assert (rows[ours, theirs]["as_reader"], rows[ours, theirs]["as_own"]) == (1, 2)
    assert (rows[ours, ours]["as_reader"], rows[ours, ours]["as_own"]) == (2, 2)


def test_divergences_are_held_against_llama_cpps_own(part: Any) -> None:
    benchmark = part("benchmarks.answers.llama_alone")
    same = torch.tensor([True, False])
    rows = benchmark.rows(
        {
            benchmark.ALONE: {"code": (torch.tensor([0.2, 0.4]), same)},
            "sakuin, full, fp32": {"code": (torch.tensor([0.1, 0.3]), same)},
        }
    )
    assert [row["way"] for row in rows] == [benchmark.ALONE, "sakuin, full, fp32"]
    assert [rows[0][name] for name in ("above", "above_low", "above_high")] == [0, 0, 0]
    assert rows[1]["kl"] == pytest.approx(0.2)
    assert rows[1]["kl_worst"] == pytest.approx(0.3)
    assert rows[1]["top1"] == 0.5
    assert rows[1]["above"] == pytest.approx(-0.1)
    truth = torch.tensor([[0.5, 0.5]]).log()
    assert benchmark.divergence(truth, truth).item() == 0
    assert benchmark.divergence(truth, torch.tensor([[0.25, 0.75]]).log()).item() == pytest.approx(
        0.1438, 1e-3
    )


@pytest.mark.skipif(locate.find() is None, reason="no llama.cpp is installed")
def test_llama_cpp_alone_gives_the_logits_of_each_token(part: Any, tmp_path: Path) -> None:
    model = part("tiny_gguf").write("llama", tmp_path)
    ids = model.tokens(100)
    np.save(tmp_path / "ids.npy", ids[0].numpy())
    peer = part("benchmarks.speed.end_to_end_parts.peer").Peer(
        str(model.gguf), str(tmp_path / "ids.npy"), 256, "f16", False, 1
    )
    peer.load()
    peer.prefill(90)
    found = peer.logits_of(10)
    peer.close()
    with part("llama_alone").Alone(model.gguf, flash=True) as alone:
        alone.feed(ids[:, :90])
        expected = torch.cat([alone.feed(ids[:, i : i + 1])[0] for i in range(90, 100)])
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


def row(**changed: Any) -> dict[str, Any]:
    found = {"configuration": "balanced", "tokens": 300, "kl": 0.0001, "kl_low": 0.00009, "kl_high": 0.0002}
    found |= {"kl_worst": 0.0015, "top1": 0.99, "lost": 0, "retrieved": 5, "touched_share": 0.07}
    return found | changed


@pytest.mark.parametrize(
    ("changed", "met"),
    [({}, True), ({"kl": 0.0005}, False), ({"kl_worst": 0.03}, False), ({"lost": 1}, False)],
)
def test_a_goal_that_is_missed_is_said(changed: dict[str, Any], met: bool, part: Any) -> None:
    result = {
        "model": "smollm2",
        "command": "sakuin eval fidelity --window 17408",
        "by_text": {"english": [], "logs": []},
        "by_length": {"16384": [row(**changed), row(configuration="exact", kl=0.0)]},
    }
    ours, exact = part("llama_tables").fidelity(result).splitlines()[2:]
    assert ours.startswith("| smollm2 by YaRN, 16,384, 2 | `balanced` | 300 | 0.000")
    assert ours.endswith("| yes |") == met
    assert ours.endswith("| **no** |") != met
    assert exact.endswith("|  |")


def test_rulers_answers_that_are_the_same_are_counted_beside_the_score(part: Any) -> None:
    loss = {"mean": -50.0, "low": -100.0, "high": 0.0, "pairs": 2}
    found = {"length": 4096, "configuration": "balanced", "task": "vt", "full": 100.0, "score": 50.0}
    found |= {"loss": loss, "solved": 2, "kept": 1, "same": 1, "touched_share": 0.08}
    lost = {"length": 4096, "configuration": "balanced", "task": "vt", "index": 1}
    lost |= {"full": 100, "score": 0, "margin": 0.01}
    result = {"about": {"model": "smollm2"}, "rows": [found, found | {"task": None}], "differing": [lost]}
    said = part("llama_tables").ruler(result)
    cells = "2 | 100.0 | 50.0 | -50.0 (-100.0 to +0.0) | 1 of 2 | 8.0 % | 1 of 2 |"
    assert f"| vt | {cells}\n| all | {cells}\n" in said
    assert "| smollm2 | 4,096 | vt | 2 | 100 | 0 | 0.010 nats |" in said
    assert "nats" not in part("llama_tables").ruler(result | {"differing": []})
