"""Loading: names, folders and GGUF files become models that attend through sakuin; what is none of them is
said."""

from __future__ import annotations

import json
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from tiny import tiny
from transformers import LlamaConfig, LlamaForCausalLM

from sakuin.backends import catalogue
from sakuin.backends.transformers import gguf as gguf_weights
from sakuin.backends.transformers import load as models
from sakuin.backends.transformers.gguf import without_vocabulary
from sakuin.backends.transformers.window import own_window
from sakuin.errors import SakuinError
from sakuin.machine import devices


def test_a_gguf_model_loads_dequantized_and_attends_through_sakuin() -> None:
    catalogue.get("smollm2")
    model, tokenizer = models.load("smollm2")
    assert model.config._attn_implementation == "sakuin"
    assert type(model.model.layers[0].self_attn.q_proj) is torch.nn.Linear
    assert model.dtype == devices.resolve_dtype("auto", model.device)
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        assert tokenizer.decode(model(ids).logits[0, -1].argmax()).strip() == "Paris"


def test_the_chat_template_of_a_gguf_file_is_kept(smollm2_by_transformers: tuple[Any, Any]) -> None:
    text = smollm2_by_transformers[1].apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


def test_a_gguf_tokenizer_is_the_same_when_it_comes_from_the_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long_text: str
) -> None:
    path = catalogue.get("smollm2")
    monkeypatch.setenv("SAKUIN_CACHE", str(tmp_path))
    first, second = models.describe(path), models.describe(path)
    assert len(list((tmp_path / "gguf").iterdir())) == 1
    message = [{"role": "user", "content": long_text[:2000]}]
    for render in (
        lambda t: t(long_text[:20000]).input_ids,
        lambda t: t.apply_chat_template(message)["input_ids"],
    ):
        assert render(first.tokenizer) == render(second.tokenizer)
    keys = ("hidden_size", "num_hidden_layers", "head_dim", "rope_parameters", "eos_token_id", "rms_norm_eps")
    assert [getattr(first.config, key) for key in keys] == [getattr(second.config, key) for key in keys]


def test_weights_are_read_without_the_vocabulary_and_are_the_same() -> None:
    path, words = catalogue.get("smollm2"), "tokenizer.ggml.tokens"
    plain = gguf.GGUFReader(path)
    with without_vocabulary():
        from gguf import GGUFReader, get_tensor_name_map

        with without_vocabulary():
            pass
        quick = GGUFReader(path)
        table = get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 30)
        assert get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 30) is table
        with ThreadPoolExecutor(1) as another:  # a thread of somebody else reads all
            assert len(another.submit(gguf.GGUFReader, path).result().fields[words].data) == 49152
    assert get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 30) is not table
    assert get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 30).mapping == table.mapping
    assert len(GGUFReader(path).fields[words].data) == 49152
    assert list(quick.fields) == list(plain.fields)
    left_out = {name for name in plain.fields if quick.fields[name].data != plain.fields[name].data}
    assert left_out == {f"tokenizer.ggml.{name}" for name in ("tokens", "token_type", "merges")}
    for name, field in quick.fields.items():
        assert field.types == plain.fields[name].types
        assert name in left_out or field.contents() == plain.fields[name].contents()
    assert len(quick.tensors) == len(plain.tensors) == 272
    for one, other in zip(quick.tensors, plain.tensors, strict=True):
        assert (one.name, one.tensor_type, one.data_offset) == (
            other.name,
            other.tensor_type,
            other.data_offset,
        )
        assert (one.data == other.data).all()


def test_what_is_not_known_or_torn_is_read_in_the_usual_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torn = tmp_path / "torn.gguf"
    name = b"tokenizer.ggml.tokens"
    strings = struct.pack("<IIQ", 9, 8, 1 << 60)  # an array of strings, of which the file has none
    torn.write_bytes(struct.pack("<4sIQQQ", b"GGUF", 3, 0, 1, len(name)) + name + strings)
    with without_vocabulary(), pytest.raises(IndexError):
        gguf.GGUFReader(torn)

    def other(reader: Any, start: int) -> None:
        raise AttributeError("another version of gguf")

    monkeypatch.setattr(gguf_weights, "_passed_over", other)
    with without_vocabulary():
        assert len(gguf.GGUFReader(catalogue.get("smollm2")).fields["tokenizer.ggml.tokens"].data) == 49152


def test_a_local_folder_loads(
    tmp_path: Path, smollm2_by_transformers: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny("llama", vocab_size=len(smollm2_by_transformers[1])).save_pretrained(tmp_path)
    smollm2_by_transformers[1].save_pretrained(tmp_path)
    model, tokenizer = models.load(tmp_path, dtype="fp32", device="cpu")
    assert model.device.type == "cpu"
    assert model.config._attn_implementation == "sakuin"
    assert model.dtype == torch.float32
    assert tokenizer("abc").input_ids == smollm2_by_transformers[1]("abc").input_ids

    def full(*_: Any) -> None:  # what torch raises where a GPU's memory ends
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(LlamaForCausalLM, "to", full)
    with pytest.raises(SakuinError, match=r"too small for .*: load it with device cpu"):
        models.load(tmp_path, dtype="fp32")


@pytest.mark.parametrize("device", ["tpu", "meta", "mps", "cuda:x", "cuda:-1", ""])
def test_an_unknown_device_is_named(device: str) -> None:
    with pytest.raises(SakuinError, match=rf"device must be auto, cpu, cuda .* got {device!r}"):
        models.load("smollm2", device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:0", torch.device("cuda")])
def test_a_gpu_that_is_not_there_is_named_and_what_to_do(device: str | torch.device) -> None:
    with pytest.raises(SakuinError, match=rf"{str(device)!r} needs a GPU, .* sees none here: take cpu"):
        models.load("smollm2", device=device)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no-such-model", "there is no model 'no-such-model'"),
        ("nobody/nothing", "there is no model 'nobody/nothing'"),
        ("./nowhere", "there is no model at './nowhere'"),
        ("nowhere.gguf", "there is no file nowhere.gguf"),
        ("", "there is no model at ''"),
    ],
)
def test_a_model_that_is_not_there_is_named(name: str, said: str) -> None:
    with pytest.raises(SakuinError) as error:
        models.describe(name)
    assert said in str(error.value)


def test_a_known_name_that_is_not_fetched_yet_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAKUIN_CACHE", str(tmp_path))
    with pytest.raises(SakuinError, match="`sakuin models get smollm2`"):
        models.describe("smollm2")


def test_a_folder_without_a_model_and_a_file_that_is_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SakuinError, match=r"holds no config\.json"):
        models.describe(tmp_path)
    (tmp_path / "a.bin").write_bytes(b"abc")
    with pytest.raises(SakuinError, match=r"not a \.gguf file"):
        models.describe(tmp_path / "a.bin")
    (tmp_path / "a.gguf").write_bytes(b"abc")
    with pytest.raises(SakuinError, match="not a GGUF file"):
        models.describe(tmp_path / "a.gguf")


def test_a_torn_gguf_file_is_said_to_be_unreadable(tmp_path: Path) -> None:
    with catalogue.get("smollm2").open("rb") as whole, (tmp_path / "torn.gguf").open("wb") as torn:
        torn.write(whole.read(100_000))
    with pytest.raises(SakuinError, match=r"cannot read .*torn\.gguf"):
        models.describe(tmp_path / "torn.gguf")


def test_a_model_folder_without_a_tokenizer_is_said_to_be_unreadable(tmp_path: Path) -> None:
    LlamaConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=2).save_pretrained(tmp_path)
    with pytest.raises(SakuinError, match="cannot be read"):
        models.describe(tmp_path)


def test_the_window_is_the_configurations(smollm2_by_transformers: tuple[Any, Any]) -> None:
    assert own_window(smollm2_by_transformers[0].config) == catalogue.MODELS["smollm2"].context


def test_code_that_a_model_folder_brings_is_not_run(tmp_path: Path) -> None:
    brought = {"AutoConfig": "brought.Config", "AutoModelForCausalLM": "brought.Model"}
    said = {"model_type": "brought", "auto_map": brought, "architectures": ["Model"]}
    (tmp_path / "config.json").write_text(json.dumps(said))
    (tmp_path / "brought.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(SakuinError, match=r"cannot be read: .*code"):
        models.load(tmp_path)
    assert not (tmp_path / "ran").exists()
