"""Past the trained window: YaRN through the configuration, with any index as with full attention."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config

from sakuin import RetrievalCache
from sakuin.backends.transformers import load as models
from sakuin.backends.transformers.window import original_window, own_window, with_window
from sakuin.errors import SakuinError
from tests import tiny

OWN = 256


def short(model_type: str = "llama", **changes: Any) -> Any:
    return tiny.tiny(model_type, max_position_embeddings=OWN, **changes).config


def longer(model_type: str, window: int) -> Any:
    """A tiny model whose window has been made longer."""
    torch.manual_seed(1)
    config = with_window(short(model_type), window)
    return AutoModelForCausalLM.from_config(config, attn_implementation="sakuin").eval()


def test_slow_pairs_are_slowed_by_the_factor_and_fast_ones_not_at_all() -> None:
    before = tiny.tiny("llama", max_position_embeddings=OWN).model.rotary_emb.inv_freq
    model = longer("llama", 4 * OWN)
    after = model.model.rotary_emb.inv_freq
    assert after[0] == before[0]
    assert torch.allclose(after[-1], before[-1] / 4)
    assert model.model.rotary_emb.attention_scaling == pytest.approx(0.1 * math.log(4) + 1)
    assert own_window(model.config) == 4 * OWN


@pytest.mark.parametrize("model_type", ["llama", "gemma3_text"])
def test_beyond_its_window_an_index_sees_what_full_attention_sees(model_type: str) -> None:
    model = longer(model_type, 4 * OWN)
    ids = tiny.tokens(3 * OWN)
    cache = RetrievalCache(model.config, tiny.FLAT)
    assert tiny.close(tiny.feed(model, cache, ids), tiny.full(model, ids))
    assert tiny.layer_of(cache).rows[0].index.n_tokens > OWN


def test_sliding_layers_keep_the_positions_that_are_theirs() -> None:
    before = short("gemma3_text")
    after = with_window(before, 2 * OWN)
    assert after.rope_parameters["sliding_attention"] == before.rope_parameters["sliding_attention"]
    assert after.rope_parameters["full_attention"]["rope_type"] == "yarn"
    assert after.rope_parameters["full_attention"]["factor"] == 2.0
    assert before.rope_parameters["full_attention"]["rope_type"] == "default"


def test_a_model_that_is_at_yarn_already_is_scaled_from_its_original_window() -> None:
    twice = with_window(with_window(short(), 2 * OWN), 8 * OWN)
    assert twice.rope_parameters["factor"] == 8.0
    assert twice.rope_parameters["original_max_position_embeddings"] == OWN


@pytest.mark.parametrize("model_type", ["llama", "gemma3_text"])
def test_the_window_that_positions_are_scaled_from_is_known(model_type: str) -> None:
    config = short(model_type)
    scaled = with_window(config, 4 * OWN)
    assert (original_window(config), own_window(scaled), original_window(scaled)) == (OWN, 4 * OWN, OWN)


def test_its_own_window_changes_nothing() -> None:
    config = short()
    assert with_window(config, OWN).to_dict() == config.to_dict()


@pytest.mark.parametrize("window", [OWN - 1, 0, -5, 2.5 * OWN, True])
def test_what_is_no_longer_window_is_refused(window: Any) -> None:
    with pytest.raises(SakuinError, match=f"at least {OWN} tokens.*got {window!r}"):
        with_window(short(), window)


def test_positions_that_yarn_cannot_scale_are_named() -> None:
    with pytest.raises(SakuinError, match="no rotary embeddings"):
        with_window(GPT2Config(), 4096)
    scaled = copy.deepcopy(short())
    scaled.rope_parameters = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    with pytest.raises(SakuinError, match="dynamic"):
        with_window(scaled, 4 * OWN)


def test_a_real_model_loads_with_a_longer_window(smollm2_by_transformers: tuple[Any, Any]) -> None:
    known = models.describe("smollm2", window=16384)
    assert known.shape.window == 16384
    model, _ = models.load("smollm2", window=16384)
    assert model.config.rope_parameters == known.config.rope_parameters
    theirs = model.model.rotary_emb.inv_freq
    assert torch.allclose(theirs[-1], smollm2_by_transformers[0].model.rotary_emb.inv_freq[-1] / 2)
    assert own_window(smollm2_by_transformers[0].config) == 8192
