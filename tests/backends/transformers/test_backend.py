"""The backend of transformers: what evaluations and contexts ask of a model, whatever its attention."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from stored import model_of
from tiny import tiny, tokens

from sakuin import Context
from sakuin.backends.hooks import AttentionCall
from sakuin.backends.open import backend_of
from sakuin.context.generate import generate
from sakuin.errors import SakuinError


def test_a_hook_sees_every_layer_of_a_model_of_any_attention_which_it_keeps() -> None:
    model = tiny("llama")
    model.set_attn_implementation("sdpa")
    backend, seen = backend_of(model), list[AttentionCall]()
    ids = tokens(20)[0].tolist()
    with backend.attention_hook(seen.append):
        logits = backend.forward(backend.new_cache(None), ids)
    assert [call.layer for call in seen] == list(range(model.config.num_hidden_layers))
    assert all(call.q.shape[2] == len(ids) for call in seen)
    assert model.config._attn_implementation == "sdpa"
    with torch.no_grad():
        assert torch.allclose(logits, model(torch.tensor([ids])).logits[0, -1], atol=1e-5)


def test_a_context_of_a_model_of_another_attention_is_refused(tmp_path: Path) -> None:
    model, tokenizer = tiny("llama"), model_of()[1]
    model.set_attn_implementation("eager")
    for make in (
        lambda: Context.from_text(model, tokenizer, "text"),
        lambda: Context.load(tmp_path, model, tokenizer),
    ):
        with pytest.raises(SakuinError, match=r"attn_implementation='eager'; load it with sakuin\.load"):
            make()


def test_end_tokens_are_those_that_the_model_states_now() -> None:
    model, tokenizer = model_of()
    backend, before = backend_of(model, tokenizer), model.generation_config.eos_token_id
    first = next(generate(backend, backend.new_cache(None), 5, 1)).id
    try:
        model.generation_config.eos_token_id = [first, 7]
        assert {first, 7} <= backend.vocabulary.end_tokens
    finally:
        model.generation_config.eos_token_id = before
    assert 7 not in backend.vocabulary.end_tokens
