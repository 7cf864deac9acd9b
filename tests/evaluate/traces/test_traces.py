"""Traces are what the model saw: captured, kept in a file, resampled to any length, refused when damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from reference.exact import attention, relative

import sakuin
from sakuin.evaluate import Method, PlantedText, Trace, capture, compare, longer
from sakuin.evaluate.traces.trace import RUNNING

LENGTH, LAYERS = 1500, (3, 26)


@pytest.fixture(scope="module")
def trace(smollm2: tuple[Any, Any]) -> Trace:
    return capture(*smollm2, LENGTH, LAYERS, sink=64, recent=128)


def test_the_fact_its_question_and_the_answer_are_where_they_are_said_to_be(smollm2: tuple[Any, Any]) -> None:
    tokenizer = smollm2[1]
    planted = PlantedText.make(tokenizer, 1000, depth=0.5)
    assert len(planted.ids) == 1000
    assert "passkey of the archive is 71493" in tokenizer.decode(planted.ids[: planted.question_at])
    assert tokenizer.decode(planted.ids[planted.question_at : planted.answer_at]).startswith("\n\nQuestion:")
    assert tokenizer.decode(planted.ids[planted.answer_at :]) == " 71493"


@pytest.mark.parametrize(
    ("length", "more", "message"),
    [
        (20, {}, "leave room for the fact"),
        (1000, {"text": "too short"}, "give a longer text"),
        (1000, {"depth": 1.5}, "depth must be from 0 to 1, got 1.5"),
    ],
)
def test_a_text_that_does_not_fit_is_refused(
    smollm2: tuple[Any, Any], length: int, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        PlantedText.make(smollm2[1], length, **more)


def test_the_parts_of_a_layer_make_the_attention_of_all_tokens(trace: Trace) -> None:
    for layer in trace.layers.values():
        heads, n, d = layer.keys.shape
        assert (heads, d, layer.group_size) == (3, 64, 3)
        assert n + layer.sink.shape[2] + layer.recent.shape[2] == LENGTH
        assert layer.asked.shape[1] == LENGTH - 64 - n - 128
        assert layer.asked.shape[1] > RUNNING
        got = sakuin.merge([layer.static(), layer.exact()])
        # The last position sees every token.
        keys, values = (
            torch.cat([layer.sink[i], (layer.keys, layer.values)[i], layer.recent[i]], 1) for i in (0, 1)
        )
        out, lse = attention(layer.asked[:, -1:], keys, values, layer.scaling)
        assert float(relative(got.out[:, -1:], out).max()) < 1e-5
        assert torch.allclose(got.lse[:, -1:].double(), lse, atol=1e-5)
        # The first asked one sees none of the others' keys.
        end = keys.shape[1] - layer.asked.shape[1] + 1
        out, _ = attention(layer.asked[:, :1], keys[:, :end], values[:, :end], layer.scaling)
        assert float(relative(got.out[:, :1], out).max()) < 1e-5


def test_retrieval_steps_look_at_the_fact(trace: Trace, smollm2: tuple[Any, Any]) -> None:
    ids = PlantedText.make(smollm2[1], LENGTH + 1).ids
    (fact_at,) = (i for i in range(len(ids) - 80) if smollm2[1].decode(ids[i : i + 5]) == "71493")
    first, last = trace.about["fact"]
    assert first < fact_at < last - 5 < first + 32
    layer = trace.layers[26]
    assert 3 <= layer.retrieval <= 7
    z = layer.asked @ layer.keys.float().repeat_interleave(3, 0).transpose(1, 2) * layer.scaling
    share = (z - sakuin.merge([layer.static(), layer.exact()]).lse[..., None]).exp()
    on_fact = share[:, :, fact_at - 64 : fact_at - 64 + 5].sum(-1).amax(0)
    assert float(on_fact[-layer.retrieval :].max()) > 10 * float(on_fact[:RUNNING].mean())


def test_both_backends_see_the_same_and_attend_as_before(
    trace: Trace, smollm2_by_transformers: tuple[Any, Any]
) -> None:
    model = smollm2_by_transformers[0]
    other = capture(*smollm2_by_transformers, LENGTH, LAYERS, sink=64, recent=128)
    assert model.config._attn_implementation == "sakuin"
    assert {trace.about.pop("backend"), other.about.pop("backend")} == {"llama.cpp", "transformers"}
    assert {**trace.about, "model": ""} == {**other.about, "model": ""}
    for number, layer in trace.layers.items():
        theirs = other.layers[number]
        for name in ("keys", "values", "queries", "asked"):
            a, b = getattr(layer, name).float(), getattr(theirs, name).float()
            assert a.shape == b.shape
            assert float((a - b).norm() / b.norm()) < 0.05, (number, name)


def test_a_file_gives_the_trace_back(trace: Trace, tmp_path: Path) -> None:
    path = tmp_path / "trace.safetensors"
    trace.save(path)
    again = Trace.load(path)
    assert again.about == trace.about
    for number, layer in trace.layers.items():
        for name, value in vars(layer).items():
            other = getattr(again.layers[number], name)
            assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other


@pytest.mark.parametrize("damage", ["cut", "header", "empty", "other", "missing"])
def test_a_damaged_file_is_refused_by_name(trace: Trace, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "trace.safetensors"
    trace.save(path)
    whole = path.read_bytes()
    content = {
        "cut": whole[: len(whole) // 2],
        "header": b"\xff" * 8 + whole[8:],
        "empty": b"",
        "other": b"text",
    }
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[damage])
    with pytest.raises(ValueError, match=r"trace\.safetensors"):
        Trace.load(path)


def test_tensors_that_do_not_fit_are_refused(trace: Trace, tmp_path: Path) -> None:
    layer = trace.layers[3].head(0)
    layer.values = layer.values[:, :-1]
    Trace({3: layer}, {}).save(tmp_path / "t.safetensors")
    with pytest.raises(ValueError, match="tensors of layer 3 do not fit"):
        Trace.load(tmp_path / "t.safetensors")


def test_a_longer_trace_is_the_trace_and_more_like_it(trace: Trace) -> None:
    layer = trace.layers[26].head(1)
    n = layer.keys.shape[1]
    more = longer(Trace({26: layer}, trace.about), 8192, seed=3).layers[26]
    assert more.keys.shape == (1, 8192, 64)
    assert torch.equal(more.keys[:, :n], layer.keys)
    assert torch.equal(more.asked, layer.asked)
    assert int(more.query_positions[-1]) >= 8192 * 9 // 10
    new = more.keys[0, n:].float()
    own = layer.keys[0].float()
    assert ((new.mean(0) - own.mean(0)).abs() < 0.3 * own.std(0)).all()
    # A new key is no copy, and no further from the trace than about as far as the trace's keys are from each
    # other.
    distance = torch.cdist(own, own).fill_diagonal_(torch.inf).amin(1).median()
    nearest = torch.cdist(new, own).amin(1).median()
    assert 0.3 * float(distance) < float(nearest) < 1.5 * float(distance)
    # The static part keeps its share.
    share = torch.sigmoid(layer.static().lse - layer.exact().lse)
    after = torch.sigmoid(more.static().lse - more.exact().lse)
    assert float((share - after).abs().mean()) < 0.15
    with pytest.raises(ValueError, match="at least the trace's"):
        longer(trace, 100)


@pytest.mark.parametrize(
    ("length", "layers", "message"),
    [
        (9000, None, "longer than the model's window of 8192"),
        (700, None, "take at least"),
        (2000, [31], "layer 31"),
    ],
)
def test_what_cannot_be_captured_is_refused(
    smollm2: tuple[Any, Any], length: int, layers: list[int] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        capture(*smollm2, length, layers)


def test_methods_are_compared_by_their_error_against_exact_attention(trace: Trace) -> None:
    rows = {row.method: row for row in compare(trace)}
    assert rows["flat"].worst_step < 1e-4
    assert rows["flat"].touched_share == pytest.approx(1.0)
    assert (
        rows["flat"].worst_step
        < rows["sketch"].running
        < rows["sketch (4)"].running
        < rows["sink and recent"].running
    )
    for row in rows.values():
        assert row.worst_head >= row.running
        assert row.worst_step >= row.retrieval
        assert row.step_ms > 0
        assert row.floor_ms > 0


def test_one_layer_of_the_table_is_what_attending_by_hand_gives(trace: Trace) -> None:
    number, layer = 26, trace.layers[26]
    (row,) = compare(Trace({number: layer}, {}), [Method("none", "streaming")])
    truth, static = sakuin.merge([layer.static(), layer.exact()]).out, layer.static().out
    steps = slice(-layer.retrieval, None)
    each = ((static - truth).norm(dim=-1) / truth.norm(dim=-1))[:, steps]
    assert row.retrieval == pytest.approx(each.mean().item(), rel=1e-4)
    assert row.worst_step == pytest.approx(each.mean(0).max().item(), rel=1e-4)
