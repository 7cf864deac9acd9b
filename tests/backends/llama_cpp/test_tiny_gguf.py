"""The tiny models that the tests of llama.cpp rest on: the files hold what transformers' models hold."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from tiny_gguf import ARCHITECTURES, HYBRIDS, RECIPES, Tiny, write
from tiny_recipe import WINDOW, permute
from tiny_vocabulary import SIZE, TEXT, bytes_vocabulary, pieces_vocabulary


@pytest.fixture(scope="module", params=ARCHITECTURES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return write(request.param, tmp_path_factory.mktemp("tiny"))


def test_the_file_holds_every_weight_once(made: Tiny) -> None:
    tensors = GGUFReader(made.gguf).tensors
    assert len({t.name for t in tensors}) == len(tensors)
    weights = made.model.state_dict()
    if made.model.config.tie_word_embeddings:
        del weights["lm_head.weight"]
    kept = [t for t in tensors if not t.name.startswith("rope_")]
    assert sum(int(t.n_elements) for t in kept) == sum(w.numel() for w in weights.values())
    embeddings = next(t for t in tensors if t.name == "token_embd.weight")
    assert torch.equal(torch.from_numpy(embeddings.data.copy()), made.model.get_input_embeddings().weight)


def test_metadata_say_what_the_model_is(made: Tiny) -> None:
    fields = GGUFReader(made.gguf).fields
    kind = fields["general.architecture"].contents()
    assert fields[f"{kind}.block_count"].contents() == made.n_layers
    assert len(fields["tokenizer.ggml.tokens"].contents()) == made.n_words == SIZE
    assert {*made.full, *made.sliding, *made.recurrent} <= set(range(made.n_layers))
    assert made.full
    assert bool(made.recurrent) == (made.architecture in HYBRIDS)
    if made.sliding:
        assert fields[f"{kind}.attention.sliding_window"].contents() == WINDOW
        pattern = fields[f"{kind}.attention.sliding_window_pattern"].contents()
        assert [i for i, slides in enumerate(pattern) if slides] == list(made.sliding)


def test_the_same_bytes_each_time(tmp_path: Path) -> None:
    first, again = (write("llama", tmp_path, name=name) for name in ("first", "again"))
    assert first.gguf.read_bytes() == again.gguf.read_bytes()
    assert write("llama", tmp_path, seed=2, name="other").gguf.read_bytes() != first.gguf.read_bytes()


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_queries_and_keys_are_in_the_order_of_llama_cpp(architecture: str, tmp_path: Path) -> None:
    made = write(architecture, tmp_path)
    keys = next(t for t in GGUFReader(made.gguf).tensors if t.name == "blk.0.attn_k.weight").data
    weight = made.model.model.layers[0].self_attn.k_proj.weight
    assert made.permuted == (architecture == "llama")
    assert torch.equal(torch.from_numpy(keys.copy()), permute(weight, 32) if made.permuted else weight)


def test_pairs_that_turn_together_stand_together() -> None:
    assert permute(torch.arange(8)[:, None], 8)[:, 0].tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


@pytest.mark.parametrize("dtype", ["F16", "Q8_0"])
@pytest.mark.parametrize("architecture", ["qwen3", "gpt-oss"])
def test_the_model_has_the_weights_that_the_file_keeps(architecture: str, dtype: str, tmp_path: Path) -> None:
    made = write(architecture, tmp_path, dtype)
    tensors = GGUFReader(made.gguf).tensors
    kept = {t.name: torch.tensor(dequantize(t.data, t.tensor_type)) for t in tensors}
    quantized = {t.name for t in tensors if t.tensor_type.name == dtype}
    layer = made.model.model.layers[0]
    assert {"token_embd.weight", "blk.0.attn_q.weight", "output.weight"} <= quantized
    assert not any("norm" in name or "gate_inp" in name for name in quantized)
    assert torch.equal(kept["blk.0.attn_q.weight"], layer.self_attn.q_proj.weight)
    assert torch.equal(kept["output.weight"], made.model.lm_head.weight)
    if architecture == "gpt-oss":
        assert "blk.0.ffn_down_exps.weight" in quantized
        assert torch.equal(kept["blk.0.ffn_down_exps.weight"], layer.mlp.experts.down_proj.mT)


@pytest.mark.parametrize(
    "vocabulary", [bytes_vocabulary(), pieces_vocabulary(False), pieces_vocabulary(True)], ids=str
)
@pytest.mark.parametrize("text", [TEXT, " naïve 索引,\n\tand  a 🙂", "keys"])
def test_text_comes_back_from_its_tokens(vocabulary: object, text: str) -> None:
    tokenizer = vocabulary.tokenizer  # type: ignore[attr-defined]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert len(ids) < len(text.encode())


def test_groups_are_from_one_to_sixteen() -> None:
    groups = set()
    for recipe in RECIPES.values():
        settings = {"num_attention_heads": 4, "num_key_value_heads": 2, **recipe.settings}
        groups.add(settings["num_attention_heads"] // settings["num_key_value_heads"])
    assert {1, 2, 3, 4, 5, 6, 7, 8, 16} <= groups
