"""The benchmark of asking from end to end: its plan, its ratios from a stored result, its children and how
llama.cpp's cells are filled. Nothing is timed here."""

from __future__ import annotations

import os
import signal
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from sakuin.backends.llama_cpp import locate

ROOT = Path(__file__).parents[2]
PARTS = "benchmarks.speed.end_to_end_parts"


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of the benchmark."""
    monkeypatch.syspath_prepend(ROOT)

    def part(name: str) -> ModuleType:
        return import_module(f"{PARTS}.{name}")

    return part


def test_the_quick_plan_is_one_model_and_a_few_minutes(parts: Any) -> None:
    plan = parts("plan")
    stages = list(plan.stages([plan.QUICK], 2, 1, plan.SHORT, False))
    assert {stage.model for stage in stages} == {"", "smollm2"}
    assert [stage.name for stage in stages] == ["matrix rate", "loads", "variants", "prefill and decode"]
    assert plan.QUICK.lengths == (1024, 4096)
    assert sum(stage.seconds for stage in stages) <= 180


def test_the_full_plan_has_every_model_and_length(parts: Any) -> None:
    plan = parts("plan")
    cases = [plan.CASES[name] for name in plan.DEFAULT]
    stages = list(plan.stages(cases, 4, 1, plan.FULL, False))
    assert [(stage.model, stage.name) for stage in stages if stage.name in ("filled", "together")] == [
        ("smollm2", "together"),
        ("gemma3-270m", "together"),
        ("0.5b", "filled"),
        ("0.5b", "together"),
    ]
    slow = list(plan.stages(cases, 4, 1, plan.FULL, True))
    assert sum(stage.seconds for stage in slow) > sum(stage.seconds for stage in stages) > 600


def _row(way: str, nominal: int, ms: float, seconds: float | None = None, **more: float) -> dict[str, Any]:
    row = {"way": way, "nominal": nominal, "tokens": nominal, "decode_ms": ms, **more}
    return row if seconds is None else {**row, "prefill_s": seconds}


STORED: dict[str, Any] = {
    "kind": "amx",
    "models": {
        "0.5b": {
            "rows": [
                _row("sakuin", 1024, 40.0, 1.0, attention_share=0.1),
                _row("llama.cpp", 1024, 50.0, 4.5),
                _row("sakuin", 8192, 42.0, 8.0, matrix_share=0.5),
                _row("llama.cpp", 8192, 150.0, 64.0),
                _row("sakuin", 131072, 80.0),
                _row("llama.cpp", 131072, 2000.0),
            ],
            "libraries": {
                "one": {"sakuin": 40.0, "llama.cpp": 40.0},
                "two": {"sakuin": 45.0, "llama.cpp": 50.0},
            },
            "load_s": {"sakuin": 1.0, "llama.cpp": 0.5},
            "memory": {"over": 200_000_000},
            "together": {"sequences": 8, "alone_per_s": 20.0, "together_per_s": 60.0},
        },
        "smollm2": {"rows": [_row("sakuin", 8192, 20.0), _row("llama.cpp", 8192, 60.0)]},
    },
}


def test_ratios_are_held_against_the_goals_of_the_kind_of_machine(parts: Any) -> None:
    ratios = parts("ratios")
    found = {(row["model"], row["what"]): row for row in ratios.goals(STORED)}
    said = {
        what: (ratios.said(row, "found"), ratios.said(row, "goal"), row["met"])
        for (model, what), row in found.items()
        if model == "0.5b"
    }
    assert said == {
        "decode at 1K over llama.cpp's time (one)": ("1.00 x", "<= 0.95 x", False),
        "decode at 1K over llama.cpp's time (two)": ("0.90 x", "<= 0.95 x", True),
        "decode at 1K, faster than llama.cpp": ("1.25 x", "", None),
        "decode at 8K, faster than llama.cpp": ("3.57 x", ">= 3.50 x", True),
        "decode at 128K, faster than llama.cpp": ("25.00 x", ">= 15.00 x", True),
        "decode at 128K over 1K": ("2.00 x", "<= 2.50 x", True),
        "prefill at 1K, faster than llama.cpp": ("4.50 x", ">= 4.00 x", True),
        "prefill at 8K, faster than llama.cpp": ("8.00 x", ">= 7.00 x", True),
        "share of the matrix rate in prefill at 8K": ("50 %", ">= 75 %", False),
        "sakuin's share of a step at 1K": ("10 %", "<= 8 %", False),
        "peak over file, KV and index": ("200 MB", "<= 300 MB", True),
        "load": ("1.00 s", "<= 1.50 s", True),
        "8 sequences together over one by one": ("3.00 x", ">= 2.50 x", True),
    }
    other = found["smollm2", "decode at 8K, faster than llama.cpp"]
    assert (other["found"], other["goal"], other["met"]) == (3.0, None, None)


@pytest.mark.parametrize(("kind", "decode", "prefill"), [("avx512bf16", 1.7, 3.0), ("avx2", 1.7, 2.0)])
def test_another_kind_of_machine_has_other_goals(
    kind: str, decode: float, prefill: float, parts: Any
) -> None:
    rows = parts("ratios").goals({**STORED, "kind": kind})
    goals = {row["what"]: row["goal"] for row in rows if row["model"] == "0.5b"}
    assert goals["decode at 8K, faster than llama.cpp"] == decode
    assert goals["prefill at 8K, faster than llama.cpp"] == prefill


def test_the_page_has_a_column_for_each_kind_of_machine(parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools/docs")
    tables, results = import_module("end_to_end_tables"), []
    for kind in ("amx", "avx2"):
        stored = {**STORED, "kind": kind}
        results.append({**stored, "goals": parts("ratios").goals(stored)})
    lines = tables.goals(*results).splitlines()
    assert lines[0] == "| model | what | AMX | AVX2 |"
    assert (
        "| 0.5b | prefill at 8K, faster than llama.cpp | 8.00 x (>= 7.00 x) | 8.00 x (>= 2.00 x) |" in lines
    )
    assert (
        "| 0.5b | sakuin's share of a step at 1K | 10 % (<= 8 %, missed) | 10 % (<= 8 %, missed) |" in lines
    )
    assert "| smollm2 | decode at 8K, faster than llama.cpp | 3.00 x | 3.00 x |" in lines
    times = tables.times(*results).splitlines()
    assert times[0].endswith("(pictures/end_to_end-amx.svg)")
    assert "| 0.5b | 131,072 | llama.cpp |  |  | 2000.0 |  |  | 2000.0 |" in times


def test_machines_are_told_by_their_matrices_then_by_their_kernels(parts: Any) -> None:
    kind = parts("ratios").kind
    assert kind(frozenset({"avx2", "amx_bf16"}), "avx512bf16") == "amx"
    assert kind(frozenset({"avx2"}), "avx2") == "avx2"


def test_a_child_that_dies_or_hangs_or_fails_is_told(parts: Any) -> None:
    children = parts("children")
    with children.Child("rate", {}) as child:
        with pytest.raises(children.Died, match="no attribute 'dance'"):
            child.ask("dance", 60)
        os.kill(child._process.pid, signal.SIGSEGV)
        with pytest.raises(children.Died, match="SIGSEGV"):
            child.ask("measure", 60)
    with (
        children.Child("rate", {}) as child,
        pytest.raises(children.Died, match="no answer to measure in 0 s"),
    ):
        child.ask("measure", 0)
    with (
        children.Child("nobody", {}) as child,
        pytest.raises(children.Died, match="exit 1: KeyError: 'nobody'"),
    ):
        child.ask("measure", 60)


def test_saved_cells_are_moved_to_other_positions(parts: Any) -> None:
    peer = parts("peer")
    cells = b"".join(peer._CELL.pack(7 + i, 1, 3) for i in range(4))
    block = peer._HEAD.pack(99, 3, 1, 4) + cells + b"keys and values"
    moved = peer.at_positions(block, 512)
    assert [peer._CELL.unpack_from(moved, 16 + 12 * i)[0] for i in range(4)] == [512, 513, 514, 515]
    assert moved[:16] == block[:16]
    assert moved[64:] == b"keys and values"
    with pytest.raises(ValueError, match="cell 2 of a saved sequence"):
        peer.at_positions(block[:40] + peer._CELL.pack(100, 1, 3) + block[52:], 0)
    with pytest.raises(ValueError, match="2 streams"):
        peer.at_positions(peer._HEAD.pack(99, 3, 2, 4) + cells, 0)


@pytest.mark.skipif(locate.find() is None, reason="no llama.cpp is installed")
@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_filled_cells_are_cells_like_any_other(
    kind: str, parts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "tests/backends/llama_cpp")
    ids = tmp_path / "ids.npy"
    np.save(ids, import_module("tiny_gguf").write("llama", tmp_path).tokens(600)[0].numpy())
    peer = parts("peer").Peer(str(tmp_path / "llama-F32.gguf"), str(ids), 4096, kind, False, 1)
    peer.load()
    peer.prefill(512)
    peer._feed(1)
    real = peer.logits.copy()
    peer._back_to(512)
    assert peer.fill(2048) == {"held": 2048}
    peer._feed(1)  # behind the end of the text, which begins anew
    assert peer.is_finite()
    assert np.abs(peer.logits - real).max() > 1e-3  # the filled cells are seen
    peer._back_to(0)
    peer._put_block()  # the same cells where they were
    peer._feed(1)
    assert peer.held() == 513
    np.testing.assert_allclose(peer.logits, real, atol=1e-4)
    with pytest.raises(ValueError, match="cannot fill from 513"):
        peer.fill(2048)
