"""A model on a GPU, its old keys and values in host memory. Runs where torch sees a GPU, and nowhere else."""

from __future__ import annotations

import pytest
import torch
from tiny import FAMILIES, FLAT, MIXED, feed, full, tiny, tokens
from transformers import DynamicCache

from sakuin import Context, RetrievalCache, RetrievalConfig
from sakuin.attention.exact import _plain, attend_blocks, block_attention
from sakuin.attention.softmax import Softmax
from sakuin.evaluate.answers.audit import Audit
from sakuin.evaluate.configurations import configuration
from sakuin.evaluate.prefilled import Prefilled

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")

GPU = "cuda"
CLOSE = 1e-3
"""fp32 products on a GPU are summed in another order than on the CPU."""


def on_gpu(family: str, attn_implementation: str = "sakuin"):
    return tiny(family, attn_implementation).to(GPU)


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(GPU, dtype)


class TestAttention:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
    @pytest.mark.parametrize("causal", [False, True])
    @pytest.mark.parametrize("t", [1, 17, 300])
    def test_a_block_is_attended_as_in_plain_torch(self, t, causal, dtype):
        n = t if causal else 1000
        q = random(6, t, 64, dtype=dtype)
        keys, values = (random(2, n, 64, dtype=dtype, seed=seed) for seed in (1, 2))
        out, lse = block_attention(q, keys, values, Softmax(0.2), causal=causal)
        wanted, wanted_lse = _plain(q, keys, values, Softmax(0.2), causal)
        bound = 1e-4 if dtype == torch.float32 else 2e-2
        assert (out.shape, lse.shape) == (wanted.shape, wanted_lse.shape)
        assert float((out - wanted).norm() / wanted.norm()) < bound
        assert float((lse - wanted_lse).abs().max()) < bound

    @pytest.mark.parametrize(
        ("head_dim", "value_dim"), [(64, 64), (80, 80), (128, 128), (256, 256), (512, 512), (192, 128)]
    )
    def test_a_chunk_sees_a_past_that_lies_on_the_host(self, head_dim, value_dim):
        q, keys, values = (
            random(4, 96, head_dim),
            random(2, 96, head_dim, seed=1),
            random(2, 96, value_dim, seed=2),
        )
        past = [
            tuple(random(2, n, width, seed=n).cpu() for width in (head_dim, value_dim)) for n in (5000, 300)
        ]
        out = attend_blocks(q, keys, values, past, Softmax(0.1))
        wanted = attend_blocks(q.cpu(), keys.cpu(), values.cpu(), past, Softmax(0.1))
        assert out.device.type == GPU
        assert float((out.cpu() - wanted).norm() / wanted.norm()) < 1e-4


class TestFamilies:
    @pytest.mark.parametrize("family", [*FAMILIES, *MIXED])
    def test_logits_are_those_of_eager_attention(self, family):
        model, ids = on_gpu(family), tokens(364).to(GPU)
        cache = RetrievalCache(model.config, FLAT)
        logits = torch.cat([feed(model, cache, ids[:, :300]), feed(model, cache, ids[:, 300:], 1)], 1)
        assert cache.retrieval_layers[0].rows[0].index.n_tokens > 200
        assert float((logits - full(on_gpu(family, "eager"), ids)).abs().max()) < CLOSE

    @pytest.mark.parametrize("index", ["flat", "sketch", "ivf", "graph", "auto"])
    def test_every_kind_of_index_decodes_as_well_as_on_the_cpu(self, index):
        config = RetrievalConfig(index=index, sink=4, recent=16, segment=64)
        ids, errors = tokens(400), []
        for place in ("cpu", GPU):
            model = tiny("llama").to(place)
            cache = RetrievalCache(model.config, config)
            feed(model, cache, ids[:, :380].to(place))
            logits = feed(model, cache, ids[:, 380:].to(place), 1)
            errors.append(float((logits - full(model, ids.to(place))[:, 380:]).abs().mean()))
        # Keys that differ in their last digits may be sketched otherwise.
        assert errors[1] < 1.5 * errors[0] + CLOSE

    def test_padded_batches_beams_and_crops(self):
        model = on_gpu("llama")
        ids = tokens(300, batch=2).to(GPU)
        mask = torch.ones_like(ids)
        mask[0, :40] = 0
        options = {"attention_mask": mask, "do_sample": False, "max_new_tokens": 20, "num_beams": 2}
        found = model.generate(ids, cache=RetrievalCache(model.config, FLAT), **options)
        assert torch.equal(found, on_gpu("llama", "eager").generate(ids, **options))
        cache = RetrievalCache(model.config, FLAT)
        feed(model, cache, ids[:1])
        cache.crop(-250)
        again = feed(model, cache, ids[:1, 50:])
        assert float((again - full(model, ids[:1])[:, 50:]).abs().max()) < CLOSE


class TestInstruments:
    def test_mass_adds_up_to_one_for_each_query_head(self):
        model, ids = on_gpu("llama"), tokens(310).to(GPU)
        cache = RetrievalCache(model.config, FLAT)
        feed(model, cache, ids[:, :300])
        cache.track_mass()
        feed(model, cache, ids[:, 300:], 1)
        layers, group, steps = 2, 2, 10
        assert cache.mass().sum(1).tolist() == pytest.approx([layers * group * steps] * 2, rel=1e-3)

    def test_a_prefilled_text_is_continued_as_by_full_attention(self):
        model, ids = on_gpu("llama"), tokens(364)[0].tolist()
        prefilled = Prefilled.read(model, ids[:300])
        cache = prefilled.retrieval_cache(FLAT)
        audit, rows = Audit(prefilled.exact_cache(FLAT).whole), []
        with audit.of(prefilled.backend):
            prefilled.continued(cache, ids[300:], rows.append)
        assert (
            float((torch.cat(rows) - full(model, torch.tensor([ids], device=GPU))[0, 300:]).abs().max())
            < CLOSE
        )
        assert float(audit.errors().max()) < 1e-4
        assert isinstance(prefilled.cache(configuration("full")), DynamicCache)


def test_a_context_answers_forks_and_comes_back_from_disk(tmp_path, smollm2_by_transformers, long_text):
    from sakuin import load

    model, tokenizer = load("smollm2", device=GPU)
    assert model.device.type == GPU
    text = long_text[:16000]
    context = Context.from_text(model, tokenizer, text)
    question = "Summarize the text in one sentence."
    answer = context.ask(question, max_new_tokens=16)
    assert context.fork().ask(question, max_new_tokens=16).text == answer.text
    context.save(tmp_path / "kept")
    assert (
        Context.load(tmp_path / "kept", model, tokenizer).ask(question, max_new_tokens=16).text == answer.text
    )
    held = context.kv_bytes()
    assert held["host"] > held["device"] > 0
