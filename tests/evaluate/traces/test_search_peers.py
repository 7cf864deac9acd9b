"""Search beside other libraries: Faiss and hnswlib find what they should, and what is told of it is right."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict, replace
from importlib.util import find_spec
from typing import Any

import pytest
from test_search import recall

from sakuin.errors import SakuinError
from sakuin.evaluate import PEERS, Layer, Searcher, Trace, capture, compare_search
from sakuin.evaluate.traces import search as search_module
from sakuin.evaluate.traces import trace as trace_module
from sakuin.index import SketchIndex, build_index

HERE = {"hnswlib": find_spec("hnswlib") is not None, "faiss": find_spec("faiss") is not None}


@pytest.fixture(scope="module")
def trace(smollm2: tuple[Any, Any]) -> Trace:
    return capture(*smollm2, 2600, (3, 12, 26), sink=64, recent=128)


@pytest.fixture(scope="module")
def one(trace: Trace) -> Trace:
    layer = trace.layers[12].head(1)
    kept = slice(-80, None)
    return Trace({12: replace(layer, asked=layer.asked[:, kept].contiguous())}, {})


@pytest.mark.parametrize("peer", PEERS)
def test_every_peer_finds_what_it_should(one: Trace, peer: str) -> None:
    if not HERE["hnswlib" if peer == "hnswlib" else "faiss"]:
        pytest.skip("the package is not installed")
    rows = list(compare_search(one, (), [peer], k=20))
    assert {row.method for row in rows} == {peer}
    assert len({row.setting for row in rows}) == len(rows)
    for row in rows:
        assert 0 <= row.worst_layer <= 1
        assert row.search_ms > 0
        assert row.nbytes >= one.layers[12].keys.numel() * 4
        assert row.scanned is None or 0 < row.scanned < 2
    best = max(min(row.running, row.retrieval) for row in rows)
    assert best > (0.999 if "Flat" in peer or peer == "Faiss IVF" else 0.95)
    if peer in ("Faiss IVF", "Faiss HNSW"):
        assert [row.scanned for row in rows] == sorted(row.scanned or 0 for row in rows)


def test_flat_finds_everything_and_settings_of_one_kind_share_an_index(one: Trace, monkeypatch) -> None:
    built = []

    def build(kind: str, *args: Any, **knobs: Any) -> Any:
        built.append((kind, knobs.get("segment")))
        return build_index(kind, *args, **knobs)

    monkeypatch.setattr(trace_module, "build_index", build)
    searchers = [
        Searcher("flat"),
        Searcher("sketch", options={"candidates": 1.0}),
        Searcher("sketch", setting={"reach": 0.0}),
        Searcher("sketch", knobs={"segment": 64}),
    ]
    rows = list(compare_search(one, searchers, (), k=20))
    assert built == [("flat", None), ("sketch", None), ("sketch", 64)]
    assert (rows[0].running, rows[0].retrieval, rows[0].scanned) == (1.0, 1.0, 1.0)
    assert [row.setting for row in rows] == ["", "candidates 1.0", "reach 0.0", ""]
    assert rows[1].running > 0.99


def test_recall_is_that_of_the_asked_positions(one: Trace) -> None:
    (row,) = compare_search(one, [Searcher("sketch", options={"candidates": 1})], (), k=50)
    layer = one.layers[12]
    index = build_index("sketch", layer.keys, layer.values, layer.queries, layer.query_positions)
    assert isinstance(index, SketchIndex)
    steps = layer.asked[:, -layer.retrieval :]
    _, ids = index.search(steps, 50, candidates=1)
    truth = (steps @ layer.keys.float().transpose(1, 2)).double()
    assert row.retrieval == pytest.approx(recall(ids, truth), abs=1e-6)


def test_what_cannot_be_compared_is_said_in_a_sentence(one: Trace, monkeypatch) -> None:
    with pytest.raises(ValueError, match="k must be a whole number from 1 to the trace's"):
        compare_search(one, k=10**6)
    with pytest.raises(ValueError, match="peers must be among Faiss Flat"):
        compare_search(one, peers=["Annoy"])
    bare: Layer = replace(one.layers[12], retrieval=0)
    with pytest.raises(ValueError, match="needs running text and retrieval steps"):
        compare_search(Trace({0: bare}, {}))
    monkeypatch.setattr(search_module, "find_spec", lambda name: None)
    with pytest.raises(SakuinError, match="needs the package faiss-cpu; run: pip install"):
        compare_search(one)


def test_a_peer_that_breaks_is_named(one: Trace, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(search_module, "find_spec", lambda name: True)
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit('no such instruction')")
    monkeypatch.setattr(search_module.search_peers, "__file__", str(broken))
    with pytest.raises(RuntimeError, match="Faiss Flat could not be measured: no such instruction"):
        list(compare_search(one, (), ["Faiss Flat"]))


def test_nothing_of_the_comparison_enters_the_core() -> None:
    code = "import sys, sakuin, sakuin.evaluate; print([m for m in sys.modules if m in ('faiss', 'hnswlib')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_rows_are_plain_numbers(one: Trace) -> None:
    (row,) = compare_search(one, [Searcher("flat")], ())
    assert all(isinstance(value, str | int | float | None) for value in asdict(row).values())
