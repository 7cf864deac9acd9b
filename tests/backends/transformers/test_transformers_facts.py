"""What the integration rests on in transformers. When one fails, the release named in the failure changed
it."""

from __future__ import annotations

import pytest
import torch
import transformers
from tiny import FLAT, tiny, tokens
from transformers import DynamicCache
from transformers.cache_utils import (
    DYNAMIC_LAYER_TYPE_MAPPING,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    get_layer_types_and_kwargs,
)
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, create_causal_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from sakuin import RetrievalCache
from sakuin.backends.transformers.attention import sakuin_attention, sakuin_mask

RELEASE = f"transformers {transformers.__version__}"


def test_both_functions_are_registered_under_the_name():
    assert ALL_ATTENTION_FUNCTIONS["sakuin"] is sakuin_attention, RELEASE
    assert ALL_MASK_ATTENTION_FUNCTIONS["sakuin"] is sakuin_mask, RELEASE


def test_the_attention_function_gets_the_very_tensors_that_update_returned(monkeypatch):
    model = tiny("llama")
    seen, returned = [], []

    class Layer(DynamicLayer):
        def update(self, *args, **kwargs):
            result = super().update(*args, **kwargs)
            returned.append(result)
            return result

    def attention(module, query, key, value, mask, **kwargs):
        seen.append((key, value))
        return sakuin_attention(module, query, key, value, mask, **kwargs)

    cache = DynamicCache(config=model.config)
    cache.layers = [Layer() for _ in cache.layers]
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "sakuin", attention)
    with torch.no_grad():
        model(tokens(5), cache=cache)
    assert len(seen) == 2
    for (key, value), (given_key, given_value) in zip(seen, returned, strict=True):
        assert key is given_key, RELEASE
        assert value is given_value, RELEASE


def test_a_mask_of_the_pass_alone_is_none_without_padding_and_never_covers_the_past():
    model = tiny("llama")
    cache = RetrievalCache(model.config, FLAT)
    with torch.no_grad():
        model(tokens(100), cache=cache)
    embeds = torch.zeros(1, 30, 64)

    def mask_for(two_dimensional):
        return create_causal_mask(
            config=model.config, inputs_embeds=embeds, attention_mask=two_dimensional, cache=cache
        )

    assert mask_for(None) is None, RELEASE
    assert mask_for(torch.ones(1, 130, dtype=torch.long)) is None, RELEASE
    padded = torch.ones(1, 130, dtype=torch.long)
    padded[0, 100:103] = 0
    mask = mask_for(padded)
    assert mask.shape == (1, 1, 30, 30), RELEASE
    assert mask[0, 0, -1].tolist() == [False] * 3 + [True] * 27, RELEASE


def test_sliding_layers_are_transformers_own_and_the_mapping_is_left_alone():
    model = tiny("gemma3_text")
    kinds, _ = get_layer_types_and_kwargs(model.config)
    assert kinds == ["sliding_attention", "full_attention"], RELEASE
    cache = RetrievalCache(model.config, FLAT)
    assert type(cache.layers[0]) is DynamicSlidingWindowLayer
    assert cache.is_sliding == [True, False]
    assert DYNAMIC_LAYER_TYPE_MAPPING["full_attention"] is DynamicLayer


def test_default_mistral_is_all_sliding_and_is_refused_because_nothing_would_be_indexed():
    config = tiny("mistral", sliding_window=4096).config
    assert set(get_layer_types_and_kwargs(config)[0]) == {"sliding_attention"}, RELEASE
    with pytest.raises(ValueError, match="no full-attention layers"):
        RetrievalCache(config, FLAT)


def test_sdpa_refuses_softcap_and_would_swallow_sinks():
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    module = torch.nn.Module()
    q = torch.randn(1, 2, 3, 8)
    with pytest.raises(ValueError, match="softcap"):
        sdpa_attention_forward(module, q, q, q, None, softcap=5.0)
    plain, _ = sdpa_attention_forward(module, q, q, q, None)
    swallowed, _ = sdpa_attention_forward(module, q, q, q, None, s_aux=torch.full((2,), 9.0))
    assert torch.equal(plain, swallowed), RELEASE


def test_the_flash_kernel_takes_gqa_and_strided_keys_and_returns_the_lse():
    q = torch.randn(1, 6, 20, 16)
    k, v = torch.randn(2, 1, 2, 90, 16)[..., 5:75, :].unbind(0)
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, False, scale=0.3)
    z = q @ k.repeat_interleave(3, 1).mT * 0.3
    torch.testing.assert_close(lse, z.logsumexp(-1))
    torch.testing.assert_close(out, z.softmax(-1) @ v.repeat_interleave(3, 1))


def test_importing_sakuin_loads_neither_torch_nor_transformers():
    import subprocess
    import sys

    code = "import sys, sakuin; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_name_is_registered_whether_sakuin_or_transformers_is_imported_first():
    import subprocess
    import sys

    check = "from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as f; assert 'sakuin' in f"
    for first in ("import sakuin", "import transformers.modeling_utils, sakuin"):
        assert subprocess.run([sys.executable, "-c", f"{first}; {check}"], check=False).returncode == 0
