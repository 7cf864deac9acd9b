"""A model that was told "sakuin" is, with every other cache, the model that was told nothing; and what a
RetrievalCache cannot do is said by `RetrievalCache(config)`, with the reason."""

from __future__ import annotations

import copy
from importlib import import_module

import pytest
import torch
from sweep import FLAT, PROMPT, ids_of, in_chunks, near, others, own_cache, retrieval
from tiny import tiny
from tiny_types import tiny_config, tiny_model

from sakuin import RetrievalCache
from sakuin.backends.transformers import own as own_room
from sakuin.backends.transformers.backend import TransformersBackend
from sakuin.backends.transformers.own import own_implementation
from sakuin.errors import SakuinError


def told(model_type: str, **changes):
    """A model that was told nothing, and the same one told "sakuin"."""
    config = tiny_config(model_type, **changes)
    own, ours = tiny_model(copy.deepcopy(config)), tiny_model(copy.deepcopy(config), "sakuin")
    ours.load_state_dict(own.state_dict())
    return own, ours


class TestOtherCaches:
    @pytest.mark.parametrize(
        "model_type",
        [
            "bloom",  # attention in its own code
            "mpt",  # classes by name
            "git",  # the same, and a vision tower that goes through the interface
            "bigbird_pegasus",  # the interface, but no sdpa
            "deepseek_v32",  # asks for the name, and masks what an index of its own did not choose
            "inkling2_text",  # sinks and a bias by keywords
            "gemma4_text",  # asks for the name to know what no mask means
        ],
    )
    def test_the_model_is_the_one_that_was_told_nothing(self, model_type):
        own, ours = told(model_type)
        assert list(others(own, ours)) == []

    def test_the_name_comes_to_models_that_ask_by_it_alone(self):
        assert tiny("llama").config._attn_implementation == "sakuin"
        assert tiny("gemma2").config._attn_implementation == "sakuin"
        assert told("bloom")[1].config._attn_implementation == "eager"
        assert told("falcon")[1].config._attn_implementation == "sdpa"

    def test_an_implementation_of_its_own_is_told_by_the_class(self):
        assert own_implementation(tiny("llama").config) == "sdpa"
        assert own_implementation(tiny("gpt_oss").config) == "eager"

    def test_setting_the_name_later_is_the_same(self):
        own, _ = told("bloom")
        own.set_attn_implementation("sakuin")
        assert own.config._attn_implementation == "eager"


class TestReasons:
    """Each reason is the true one, and given before anything is read."""

    @pytest.mark.parametrize(
        ("model_type", "reason"),
        [
            ("bloom", "code of its own"),
            ("openai-gpt", "code of its own"),
            ("rwkv", "form of its own"),
            ("xlnet", "form of its own"),
            ("falcon", "code of its own"),
            ("gpt_neox_japanese", "code of its own"),
            ("deepseek_v3", "latent"),
            ("diffllama", "two softmaxes"),
            ("doge", "computes from all cached values"),
            ("jetmoe", "repeats its cached keys"),
            ("inkling_text", "bias"),
            ("ministral", "no full-attention layers"),
        ],
    )
    def test_said_at_the_start(self, model_type, reason):
        with pytest.raises(ValueError, match=reason) as caught:
            RetrievalCache(tiny_config(model_type), FLAT)
        assert "\n" not in str(caught.value)

    def test_the_reason_does_not_depend_on_which_classes_are_loaded(self, monkeypatch):
        import_module("transformers.models.xlnet.modeling_xlnet")
        monkeypatch.setattr(own_room, "_known", {})
        with pytest.raises(ValueError, match="form of its own"):
            RetrievalCache(tiny_config("xlnet"), FLAT)

    def test_an_encoder_is_told_from_the_decoder_of_the_same_class(self):
        with pytest.raises(ValueError, match="is_decoder=True"):
            RetrievalCache(tiny_config("bert", is_decoder=False), FLAT)
        RetrievalCache(tiny_config("bert"), FLAT)

    def test_heads_that_the_indexes_do_not_take(self):
        config = tiny("llama", head_dim=12).config
        with pytest.raises(ValueError, match="head_dim must be a multiple of 8"):
            RetrievalCache(config, FLAT)


class TestSupported:
    """Kinds of models that failed or were refused although their attention is plain."""

    @pytest.mark.parametrize(
        "model_type",
        [
            "afmoe",  # shapes the result by `view`
            "dory",
            "mllama",  # layers that attend to an image, which is not there
            "falcon_h1",  # recurrent states beside full attention
            "zamba",
            "gemma4_text",  # asks layers that share keys for the last position alone
            "qwen2_moe",  # makes a window's mask too, which none of its layers uses
        ],
    )
    def test_agrees_with_eager_attention(self, model_type):
        own, ours = told(model_type)
        assert retrieval(own, ours, steps=6) == ("agrees", "")

    @torch.no_grad()
    def test_a_fork_of_hybrid_layers_has_states_of_its_own(self):
        _, ours = told("falcon_h1")
        cache = RetrievalCache(ours.config, FLAT)
        in_chunks(ours, cache, 4)
        fork, more = cache.fork(), ids_of(3, seed=5)
        expected = ours(more, cache=cache).logits
        assert torch.equal(ours(more, cache=fork).logits, expected)


_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0] * 8,
    "long_factor": [2.0] * 8,
    "short_mscale": 1.0,
    "long_mscale": 1.0,
}


class TestDropped:
    """transformers' `generate` gives these models no cache before a pass beyond their first window."""

    @pytest.mark.parametrize("model_type", ["phi3", "phimoe"])
    def test_a_prompt_beyond_the_window_stays_in_the_cache(self, model_type):
        own, ours = self._models(model_type)
        cache = RetrievalCache(ours.config, FLAT)
        options = {"max_new_tokens": 20, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
        got = ours.generate(ids_of(PROMPT), cache=cache, **options)
        assert cache.get_seq_length() == PROMPT + 19
        assert torch.equal(got, own.generate(ids_of(PROMPT), **options))

    @pytest.mark.parametrize("model_type", ["phi3", "phimoe"])
    def test_growing_beyond_it_is_refused_and_not_done_without_the_cache(self, model_type):
        _, ours = self._models(model_type)
        cache = RetrievalCache(ours.config, FLAT)
        with pytest.raises(ValueError, match="grows beyond 64 tokens"):
            ours.generate(ids_of(60), cache=cache, max_new_tokens=20, pad_token_id=0, eos_token_id=None)

    def _models(self, model_type):
        return told(
            model_type,
            rope_parameters={**_LONGROPE, "original_max_position_embeddings": 64},
            original_max_position_embeddings=64,
            sliding_window=None,
        )


@pytest.mark.parametrize("model_type", ["openai-gpt", "xlnet"])
def test_a_model_that_takes_a_cache_and_does_not_use_it_is_refused_after_the_first_pass(model_type):
    own, _ = told(model_type)
    backend = TransformersBackend(own, None)
    with pytest.raises(SakuinError, match="did not put the pass's 20 tokens into it"):
        backend.forward(own_cache(own), ids_of(20)[0].tolist())


def test_logits_that_differ_are_seen():
    own, other = (
        tiny_model(tiny_config("llama")),
        tiny_model(tiny_config("llama", rope_parameters={"rope_type": "default", "rope_theta": 100.0})),
    )
    other.load_state_dict(own.state_dict())
    a, b = in_chunks(own, own_cache(own), 4), in_chunks(other, own_cache(other), 4)
    assert not near(a, b, 1e-3)
