"""Heads of every shape that models have: long keys and values, values of another size than keys, many query
heads on a KV head; every kind of index against plain attention in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import sakuin
from sakuin.attention.exact import attend_blocks
from sakuin.attention.softmax import Softmax
from sakuin.index import _native
from sakuin.index.base import Index, Static, new_index
from sakuin.index.checks import check_geometry
from sakuin.index.int8 import floats_of
from sakuin.index.kind import kind_of
from sakuin.index.prefill import attend_chunk

N, T = 300, 2
EXACT: dict[str, dict[str, Any]] = {
    "flat": {},
    "sketch": {"tolerance": 0.0},
    "ivf": {"tolerance": 0.0},
    "graph": {"tolerance": 0.0},
    "auto": {},
    "topk": {"top_k": N},
}
"""Settings with which a kind attends to everything."""
# (head_dim, value_dim, query heads of a KV head)
SHAPES = [
    (320, 320, 2),
    (512, 512, 1),
    (576, 576, 3),
    (328, 264, 1),
    (16, 16, 17),
    (64, 64, 32),
    (64, 64, 71),
    (8, 8, 128),
    (192, 128, 2),
    (64, 128, 17),
    (24, 576, 1),
    (576, 24, 1),
]


class Heads:
    """Random keys, values and queries of a shape, on two KV heads."""

    def __init__(self, d: int, value_dim: int, group: int, n: int = N, dtype: torch.dtype = torch.float32):
        draw = torch.Generator().manual_seed(d + 1000 * value_dim + group)
        self.keys = torch.randn(2, n, d, generator=draw).to(dtype)
        self.values = torch.randn(2, n, value_dim, generator=draw).to(dtype)
        self.seen = torch.randn(2 * group, n, d, generator=draw)
        self.q = torch.randn(2 * group, T, d, generator=draw) * 2
        self.scaling, self.group = 1 / math.sqrt(d), group

    def index(self, kind: str, **knobs: Any) -> Index:
        return sakuin.build_index(kind, self.keys, self.values, self.seen, **knobs)

    def expected(self, keys: Tensor | None = None, values: Tensor | None = None) -> tuple[Tensor, Tensor]:
        keys, values = (self.keys, self.values) if keys is None or values is None else (keys, values)
        k, v = (x.double().repeat_interleave(self.group, 0) for x in (keys, values))
        z = self.q.double() @ k.mT * self.scaling
        return z.softmax(-1) @ v, z.logsumexp(-1)


def close(got: Tensor, want: Tensor, limit: float = 1e-4) -> bool:
    assert got.shape == want.shape
    return float((got - want).norm() / want.norm()) < limit


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize(("d", "value_dim", "group"), SHAPES)
def test_every_kind_attends_with_heads_of_every_shape(kind: str, d: int, value_dim: int, group: int) -> None:
    heads = Heads(d, value_dim, group)
    index = heads.index(kind, **EXACT[kind])
    out, lse = heads.expected()
    mass = torch.zeros(2, N)
    part = index.attend(heads.q, scaling=heads.scaling, mass=mass)
    assert close(part.out, out)
    assert close(part.lse, lse)
    assert torch.allclose(mass.sum(1), torch.tensor(float(group * T)), rtol=1e-3)
    # Forks, crops and blocks have the same shapes.
    fork = index.fork()
    keys, values = fork.crop(N // 2)
    fork.append(keys, values)
    assert fork.n_tokens == N // 2
    assert {(k.shape[2], v.shape[2]) for k, v in index.blocks()} == {(d, value_dim)}
    assert [x.shape[2] for x in heads.index(kind).crop(N)] == [d, value_dim]


@pytest.mark.parametrize("kind", ["flat", "sketch", "ivf", "graph"])
@pytest.mark.parametrize(("d", "value_dim", "group"), [(512, 512, 2), (192, 128, 17), (64, 128, 71)])
def test_a_step_with_static_tokens_and_a_search(kind: str, d: int, value_dim: int, group: int) -> None:
    heads = Heads(d, value_dim, group)
    middle = slice(20, N - 40)
    index = sakuin.build_index(
        kind,
        heads.keys[:, middle],
        heads.values[:, middle],
        heads.seen,
        **({"tolerance": 1e-3, "budget": 0.9} if kind != "flat" else {}),
    )
    ends = [(x[:, :20], x[:, N - 40 :]) for x in (heads.keys, heads.values)]
    static = Static(ends[0][0], ends[1][0], ends[0][1], ends[1][1])
    mass = torch.zeros(2, N)
    q = heads.q[:, :1].contiguous()
    part = index.decode(q, static, scaling=heads.scaling, mass=mass)
    out, _ = heads.expected()
    assert close(part.out, out[:, :1], {"flat": 1e-4, "sketch": 0.02}.get(kind, 0.1))
    assert torch.allclose(mass.sum(1), torch.tensor(float(group)), rtol=0.05)
    assert part.stats is not None
    assert part.stats.touched_bytes > 0
    assert part.stats.offloaded_bytes == 2 * 2 * (N - 60) * (d + value_dim)
    # Keys without structure lie where few bits of them do not say.
    more = {"candidates": 1.0} if kind == "sketch" else {}
    scores, ids = index.search(heads.q, 10, **more)
    all_scores = heads.q @ heads.keys[:, middle].repeat_interleave(group, 0).mT
    best = all_scores.topk(10).indices
    found = (ids[..., None] == best[..., None, :]).any(-1).float().mean()
    assert found > 0.9
    assert torch.allclose(scores, all_scores.gather(-1, ids), atol=1e-3 * float(all_scores.abs().max()))


@pytest.mark.parametrize("isa", _native.isas())
@pytest.mark.parametrize(("d", "value_dim", "group"), [(512, 512, 2), (192, 128, 17), (64, 128, 71)])
def test_sketch_is_near_on_every_instruction_set(isa: str, d: int, value_dim: int, group: int) -> None:
    heads = Heads(d, value_dim, group)
    out, lse = heads.expected()
    index = heads.index("sketch")
    for rescore, cap in ((1e-3, 1.0), (1e-3, 0.0)):  # picked keys; whole segments
        settings = _native.SketchSettings(
            rescore=rescore, coded=rescore / 2, exact=8 * rescore, reach=2.0, cap=cap
        )
        got = _native.sketch_attend(
            heads.q,
            index.segments,
            heads.scaling,
            2,
            settings,
            trace=True,
            isa=isa,  # type: ignore[attr-defined]
        )
        assert close(got[0], out, 0.02)
        assert close(got[1], lse, 1e-3)
        assert torch.allclose(got[8].sum(-1), torch.ones(2, T), atol=0.02)
    spans = [(heads.keys, heads.values)]
    got_out, got_lse = _native.flat_attend(heads.q, spans, heads.scaling, 1, isa=isa)
    assert close(got_out, out)
    assert close(got_lse, lse)


@pytest.mark.parametrize("kind", ["flat", "sketch"])
@pytest.mark.parametrize("stored", ["bf16", "fp16", "int8"])
@pytest.mark.parametrize(("d", "value_dim", "group"), [(576, 576, 1), (192, 128, 17)])
def test_every_stored_dtype(kind: str, stored: str, d: int, value_dim: int, group: int) -> None:
    heads = Heads(d, value_dim, group)
    index = heads.index(kind, kv_dtype=stored, **EXACT[kind])
    part = index.attend(heads.q, scaling=heads.scaling)
    assert close(part.out, heads.expected()[0], 0.03)
    fields = index.stored()[0].tensors
    keys, values = floats_of(fields)
    assert close(part.out, heads.expected(keys.float(), values.float())[0], 0.01)
    # What is said to be stored is what is stored, and can be taken up again.
    layout = kind_of(kind).layout(index.heads, N, index.config, stored)
    assert {name: (tuple(x.shape), x.dtype) for name, x in fields.items()} == {
        name: (tuple(shape), dtype) for name, (shape, dtype) in layout.items()
    }
    again = new_index(2, d, group, index.config, value_dim)
    again.restore(index.stored(), index.state())
    assert torch.equal(again.attend(heads.q, scaling=heads.scaling).out, part.out)
    with pytest.raises(ValueError, match="are needed"):
        new_index(2, d, group, index.config, 8).restore(index.stored(), index.state())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("d", "value_dim", "group"), [(512, 512, 2), (192, 128, 2), (64, 128, 71)])
def test_a_chunk_of_a_prompt(dtype: torch.dtype, d: int, value_dim: int, group: int) -> None:
    draw = torch.Generator().manual_seed(5)
    past, t = 200, 40
    keys = torch.randn(2, past + t, d, generator=draw).to(dtype)
    values = torch.randn(2, past + t, value_dim, generator=draw).to(dtype)
    q = torch.randn(2 * group, t, d, generator=draw).to(dtype)
    softmax = Softmax(1 / math.sqrt(d), None, None)
    k, v = (x.double().repeat_interleave(group, 0) for x in (keys, values))
    z = q.double() @ k.mT * softmax.scaling
    later = torch.arange(past + t) > torch.arange(past, past + t)[:, None]
    want = z.masked_fill(later, -torch.inf).softmax(-1) @ v
    limit = 1e-4 if dtype == torch.float32 else 0.01
    for few in (t, 5):  # few positions are attended as in decoding
        rest = past + t - few
        args = q[:, t - few :], keys[:, rest:], values[:, rest:], [(keys[:, :rest], values[:, :rest])]
        assert close(attend_chunk(*args, softmax), want[:, t - few :], limit)
        assert close(attend_blocks(*args, softmax).float(), want[:, t - few :], limit)


def test_limits_are_said_once_and_refused_in_a_sentence() -> None:
    assert (_native.MOST_HEAD_DIM, _native.MOST_GROUP) == (576, 128)
    check_geometry(1, 576, 128, 8)
    for shape, message in (
        ((1, 584, 1), "head_dim must be a multiple of 8 from 8 to 576, got 584"),
        ((1, 12, 1), "head_dim must be a multiple of 8 from 8 to 576, got 12"),
        ((1, 64, 1, 580), "the values' head_dim must be a multiple of 8 from 8 to 576, got 580"),
        ((1, 64, 129), "a query group must have 1 to 128 query heads, got 129"),
        ((0, 64, 1), "at least one KV head, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            check_geometry(*shape)
