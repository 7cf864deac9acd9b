"""The native `sketch` does what the method says: on a real trace it agrees with a plain statement of it.

The reference (tests/reference/sketch.py) shares no code with what ships: both seal the same tokens by
themselves, then attend with the same queries.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from reference import sketch as plain
from reference.trace import LAYERS, Layer, real_trace
from torch import Tensor

import sakuin
from sakuin.index import SketchIndex

SEGMENT = 1024
STEPS = (0, 10, 20, 23)
"""Positions among the asked ones: the question, and the answer that retrieves the fact."""


@pytest.fixture(scope="module")
def trace(smollm2_by_transformers: tuple[Any, Any]) -> dict[int, Layer]:
    return real_trace(*smollm2_by_transformers)


def native(layer: Layer, **knobs: Any) -> SketchIndex:
    index = sakuin.build_index(
        "sketch", layer.keys, layer.values, queries=layer.queries, segment=SEGMENT, **knobs
    )
    assert isinstance(index, SketchIndex)
    assert len(index.segments) > 2
    return index


def sealed(layer: Layer, head: int, **knobs: float) -> list[plain.Segment]:
    group = len(layer.queries) // len(layer.keys)
    queries = layer.queries[head * group : (head + 1) * group].double()
    segments: list[plain.Segment] = []
    basis = None
    n, d = layer.keys.shape[1:]
    for start in range(0, n, SEGMENT):
        end = min(start + SEGMENT, n)
        seen = queries[:, :end].reshape(-1, d)
        inherited = basis if end - start < min(4 * d, SEGMENT) else None
        segment = plain.seal(
            layer.keys[head, start:end],
            layer.values[head, start:end],
            seen.T @ seen / len(seen),
            inherited,
            **knobs,
        )
        basis = segment.basis
        segments.append(segment)
    return segments


def read_in_order(segments: list[plain.Segment], tier: Tensor) -> list[bool]:
    """Of each segment, whether every key was attended by its own value."""
    sizes = [len(each.keys) for each in segments]
    return [bool((each > 1).all()) for each in tier.split(sizes)]


def exact(layer: Layer, head: int, query: Tensor) -> Tensor:
    keys, values = layer.keys[head].double(), layer.values[head].double()
    return torch.softmax(query.double() @ keys.T * layer.scaling, 1) @ values


def relative(out: Tensor, truth: Tensor) -> Tensor:
    return (out.double() - truth).norm(dim=1) / truth.norm(dim=1)


@pytest.mark.parametrize("layer_id", LAYERS)
@pytest.mark.parametrize(("softcap", "static"), [(None, True), (None, False), (15.0, True)])
def test_tiers_outputs_and_errors_agree_on_a_real_trace(trace, layer_id, softcap, static):
    layer = trace[layer_id]
    index, group = native(layer), len(layer.queries) // len(layer.keys)
    static_lse = layer.static_lse[:, STEPS] if static else None
    query = layer.asked[:, STEPS]
    part = index.attend(query, scaling=layer.scaling, static_lse=static_lse, softcap=softcap, trace=True)
    differing, members, ours, theirs, apart = [0] * 4, [0] * 4, [], [], []
    for head in range(len(layer.keys)):
        rows = slice(head * group, (head + 1) * group)
        segments = sealed(layer, head)
        for step in range(len(STEPS)):
            lse_beside = None if static_lse is None else static_lse[rows, step]
            seen = part.trace.tier[head, step].long()
            out, lse, tier = plain.attend(
                segments,
                query[rows, step],
                layer.scaling,
                lse_beside,
                softcap,
                in_order=read_in_order(segments, seen),
            )
            for kind in range(4):
                differing[kind] += int(((seen == kind) != (tier == kind)).sum())
                members[kind] += int((tier == kind).sum())
            if bool((seen == tier).all()):
                assert torch.allclose(part.lse[rows, step].double(), lse, atol=0.01)
            else:  # one token on the threshold may be a few percent of what the index has, not of everything
                beside = torch.full_like(lse, -torch.inf) if lse_beside is None else lse_beside.double()
                ours_lse = part.lse[rows, step].double()
                whole = (torch.logaddexp(x, beside) for x in (ours_lse, lse))
                assert torch.allclose(*whole, atol=0.02)
            if softcap is None:
                truth = exact(layer, head, query[rows, step])
                ours.append(relative(part.out[rows, step], truth))
                theirs.append(relative(out, truth))
            apart.append(relative(part.out[rows, step], out))
    # A token that changed sides counts in two tiers; still at most 5 % of each.
    for kind in range(4):
        assert differing[kind] <= 0.05 * members[kind], (kind, differing, members)
    # Keys on the border between two lists fall on either side: their axes are found in float32.
    assert float(torch.cat(apart).mean()) < 0.03
    assert float(torch.cat(apart).max()) < 0.15
    if ours:
        assert float(torch.cat(ours).mean()) <= 1.1 * float(torch.cat(theirs).mean())


@pytest.mark.parametrize(("sketch_bits", "code_bits"), [(0.5, 2.0), (1.5, 4.0), (2.0, 6.0)])
def test_other_bits_agree_as_well(trace, sketch_bits, code_bits):
    layer = trace[LAYERS[1]]
    index = native(layer, sketch_bits=sketch_bits, code_bits=code_bits)
    query = layer.asked[:, STEPS]
    part = index.attend(query, scaling=layer.scaling, trace=True)
    seen = part.trace.tier[0, 1].long()
    segments = sealed(layer, 0, sketch_bits=sketch_bits, code_bits=code_bits)
    out, _, tier = plain.attend(segments, query[:3, 1], layer.scaling, in_order=read_in_order(segments, seen))
    assert float((seen != tier).double().mean()) < 0.05
    truth = exact(layer, 0, query[:3, 1])
    assert float(relative(part.out[:3, 1], truth).mean()) <= 1.1 * float(relative(out, truth).mean())


@pytest.mark.parametrize("layer_id", LAYERS)
@pytest.mark.parametrize("softcap", [None, 12.0])
def test_segments_that_are_read_whole_agree_as_well(trace, layer_id, softcap):
    layer = trace[layer_id]
    part = native(layer, cap=0.0).attend(
        layer.asked[:, STEPS], scaling=layer.scaling, softcap=softcap, trace=True
    )
    segments = sealed(layer, 0)
    for step, position in enumerate(STEPS):
        query = layer.asked[:3, position]
        seen = part.trace.tier[0, step].long()
        assert all(read_in_order(segments, seen))
        out, lse, tier = plain.attend(
            segments, query, layer.scaling, softcap=softcap, in_order=[True] * len(segments)
        )
        assert float((seen != tier).double().mean()) < 0.02
        assert float((part.lse[:3, step] - lse).abs().max()) < 0.02
        assert float(relative(part.out[:3, step], out).max()) < 0.03


@pytest.mark.parametrize("layer_id", LAYERS)
def test_segments_that_are_read_whole_know_their_error(trace, layer_id):
    layer = trace[layer_id]
    part = native(layer, cap=0.0).attend(layer.asked, scaling=layer.scaling)
    truth = torch.stack([exact(layer, row // 3, query) for row, query in enumerate(layer.asked)])
    true = (part.out.double() - truth).norm(dim=-1) / truth.norm(dim=-1)
    assert part.stats.error is not None
    assert 0.7 < float((part.stats.error / true).median()) < 1.5


def test_the_sketch_spends_its_bits_as_the_reference_does(trace):
    """Decoded from the packed segment: coordinates, bits and ranges of the first segment's sketch."""
    layer = trace[LAYERS[0]]
    fields = native(layer).segments[0].fields
    segment = sealed(layer, 0)[0]
    spent = [0] * layer.keys.shape[2]
    for first, second in fields["sub_coordinate"][0].tolist():
        spent[first] += 4 if second < 0 else 2
        if second >= 0:
            spent[second] += 2
    # 16 levels, or 4: read off the number of different values that the decoder sees.
    levels = [len(segment.sketch[:, j].unique()) for j in range(len(spent))]
    same = sum(
        (b == 4) == (4 < n <= 16) and (b == 2) == (1 < n <= 4) for b, n in zip(spent, levels, strict=True)
    )
    assert same >= 0.95 * len(spent)
    assert torch.allclose(fields["residue"][0].double(), segment.residue, rtol=0.05)
