"""Exact attention in torch agrees with the definition in float64, whatever the blocks."""

from __future__ import annotations

import pytest
import torch

from sakuin.attention import exact
from sakuin.attention.exact import attend_blocks, dense_attention, static_attention, static_mass
from sakuin.attention.softmax import Softmax


def reference(q, keys, values, scaling, softcap=None, s_aux=None, hidden=None):
    """Softmax over all keys at once, in float64: out and the lse (s_aux included)."""
    q, keys, values = q.double(), keys.double(), values.double()
    group = q.shape[0] // keys.shape[0]
    z = q @ keys.repeat_interleave(group, 0).mT * scaling
    if softcap is not None:
        z = softcap * torch.tanh(z / softcap)
    t, n = z.shape[1:]
    if hidden is None:
        hidden = torch.arange(n) > torch.arange(n - t, n)[:, None]
    z = z.masked_fill(hidden, -torch.inf)
    if s_aux is not None:
        z = torch.cat([z, s_aux.double()[:, None, None].expand(-1, t, 1)], -1)
    weights = z.softmax(-1)
    return weights[..., :n] @ values.repeat_interleave(group, 0), z.logsumexp(-1), weights[..., :n]


def arrays(n_past, t, heads=6, kv_heads=2, d=16, dtype=torch.float32):
    generator = torch.Generator().manual_seed(n_past + t)

    def make(*shape):
        return torch.randn(shape, generator=generator).to(dtype)

    keys, values = make(kv_heads, n_past + t, d), make(kv_heads, n_past + t, d)
    return make(heads, t, d) * 3, keys, values, make(heads)


def cut(x, sizes):
    return x.split(sizes, 1)


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("with_sink", [False, True])
@pytest.mark.parametrize("sizes", [[], [5], [300, 1, 700, 2000, 64, 64], [1] * 40])
def test_blocks_give_the_softmax_over_everything(monkeypatch, softcap, with_sink, sizes):
    monkeypatch.setattr(exact, "MOST_SCORES", 1 << 16)  # several tiles even here
    n, t = sum(sizes), 90
    q, keys, values, aux = arrays(n, t)
    s_aux = aux if with_sink else None
    past = list(zip(cut(keys[:, :n], sizes), cut(values[:, :n], sizes), strict=True)) if sizes else []
    got = attend_blocks(q, keys[:, n:], values[:, n:], past, Softmax(0.3, softcap, s_aux))
    expected, _, _ = reference(q, keys, values, 0.3, softcap, s_aux)
    assert (got - expected).abs().max() < 1e-5


def test_blocks_of_another_dtype_do_not_lower_the_precision_of_their_neighbours():
    q, keys, values, _ = arrays(200, 30)
    past = [(keys[:, :100], values[:, :100]), (keys[:, 100:200].half(), values[:, 100:200].half())]
    keys[:, 100:200], values[:, 100:200] = past[1][0].float(), past[1][1].float()
    got = attend_blocks(q, keys[:, 200:], values[:, 200:], past, Softmax(0.3))
    assert (got - reference(q, keys, values, 0.3)[0]).abs().max() < 1e-5


def test_bf16_over_blocks_costs_less_than_one_more_rounding():
    q, keys, values, _ = arrays(4096, 256, dtype=torch.bfloat16)
    expected, _, _ = reference(q, keys, values, 0.25)
    past = list(zip(cut(keys[:, :4096], 1024), cut(values[:, :4096], 1024), strict=True))
    got = attend_blocks(q, keys[:, 4096:], values[:, 4096:], past, Softmax(0.25))
    at_once = torch.nn.functional.scaled_dot_product_attention(
        q[None],
        keys[None],
        values[None],
        attn_mask=torch.arange(4352) <= torch.arange(4096, 4352)[:, None],
        scale=0.25,
        enable_gqa=True,
    )[0]
    assert got.dtype == torch.bfloat16
    assert (got - expected).norm() <= 1.5 * (at_once - expected).norm()


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("t", [1, 5])
def test_the_static_part_of_a_step_and_its_mass(softcap, t):
    q, keys, values, aux = arrays(60, t)
    spans = [(keys[:, :7], values[:, :7]), (keys[:, 7:], values[:, 7:])]
    part = static_attention(q, spans, Softmax(0.3, softcap, aux))
    out, lse, weights = reference(q, keys, values, 0.3, softcap, aux)
    torch.testing.assert_close(part.out.double(), out, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(part.lse.double(), lse, atol=1e-5, rtol=1e-5)
    mass = static_mass(q, keys, part.lse, Softmax(0.3, softcap))
    torch.testing.assert_close(mass.double(), weights.view(2, 3, t, -1).sum((1, 2)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["none", "bool", "additive"])
@pytest.mark.parametrize("t", [1, 40])
def test_dense_attention_takes_every_mask_that_transformers_makes(monkeypatch, kind, t):
    monkeypatch.setattr(exact, "MOST_SCORES", 1 << 12)
    n = 40
    q, keys, values, aux = arrays(n - t, t)
    seen = torch.arange(n) <= torch.arange(n - t, n)[:, None]
    if kind != "none":
        seen &= torch.arange(n) >= 3
        seen |= torch.arange(n) == torch.arange(n - t, n)[:, None]
    masks = {
        "none": None,
        "bool": seen[None, None],
        "additive": torch.where(seen, 0.0, torch.finfo(torch.float32).min)[None, None],
    }
    got = dense_attention(
        q[None], keys[None], values[None], masks[kind], Softmax(0.3, 3.0, aux), causal=True
    )[0]
    expected, _, _ = reference(q, keys, values, 0.3, 3.0, aux, hidden=~seen)
    assert (got - expected).abs().max() < 1e-5
