"""llama.cpp alone computes with the tiny files what transformers computes with the same models: what the
tests of the backend then measure is sakuin's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from llama_alone import Alone, divergence
from tiny_gguf import ARCHITECTURES, write
from tiny_vocabulary import TEMPLATE, TEXT

from sakuin.backends.llama_cpp import locate

pytestmark = pytest.mark.skipif(locate.find() is None, reason="no llama.cpp is installed")

PREFILL, STEPS = 300, 8
CLOSE = 1e-6
"""The most that any position diverges in fp32. Gemma's is 3e-7, since llama.cpp looks GELU up in a table;
others' are below 1e-9."""


@torch.no_grad()
def _both(architecture: str, folder: Path, dtype: str = "F32") -> torch.Tensor:
    """Divergence of each position."""
    made = write(architecture, folder, dtype)
    ids = made.tokens(PREFILL + STEPS)
    with Alone(made.gguf) as llama:
        got = [llama.feed(ids[:, :PREFILL]), *(llama.feed(one) for one in ids[:, PREFILL:].split(1, 1))]
    return divergence(made.model(ids, use_cache=False).logits, torch.cat(got, 1))[0]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_are_those_of_transformers(architecture: str, tmp_path: Path) -> None:
    assert _both(architecture, tmp_path).max() < CLOSE


@pytest.mark.parametrize(("dtype", "most"), [("F16", 1e-5), ("Q8_0", 1e-2)])
def test_logits_of_rounded_weights_are_near(dtype: str, most: float, tmp_path: Path) -> None:
    # llama.cpp rounds what it multiplies such weights by, too.
    assert _both("qwen3", tmp_path, dtype).mean() < most


def test_another_model_is_far(tmp_path: Path) -> None:
    made, other = write("llama", tmp_path), write("llama", tmp_path, seed=2, name="other")
    ids = made.tokens(20)
    with Alone(other.gguf) as llama, torch.no_grad():
        assert divergence(made.model(ids).logits, llama.feed(ids)).min() > 0.01


@pytest.mark.parametrize("architecture", ["qwen2", "gemma3", "mistral"])
def test_text_has_the_same_tokens(architecture: str, tmp_path: Path) -> None:
    made = write(architecture, tmp_path)
    question = [{"role": "user", "content": "When does the contract end?"}]
    chat = made.tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    with Alone(made.gguf) as llama:
        for text in (TEXT, TEMPLATE, chat, " naïve 索引,\n\tand  a 🙂", "I've  been there; it's 2031!"):
            for begin in (False, True):
                expected = made.tokenizer(text, add_special_tokens=begin)["input_ids"]
                assert llama.encode(text, special=True, begin=begin) == expected
        assert made.tokenizer.convert_tokens_to_ids("<|im_end|>") in llama.encode(chat, special=True)
        assert made.tokenizer.convert_tokens_to_ids("<|im_end|>") not in llama.encode(chat)
