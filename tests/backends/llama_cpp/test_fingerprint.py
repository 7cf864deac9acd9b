"""What a context of a GGUF model belongs to: the same for both backends, another for another file, and read
from the file once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader, GGUFWriter
from tiny_gguf import write
from written import written

from sakuin import load
from sakuin.backends import gguf_fingerprint
from sakuin.backends.base import Backend
from sakuin.backends.fingerprint import Fingerprint, hash_of
from sakuin.backends.gguf_fingerprint import GgufFile, Marks
from sakuin.backends.open import backend_of
from sakuin.errors import SakuinError

BOTH = ("transformers", "llama.cpp")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv("SAKUIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def loaded(path: Path, backend: str, dtype: str = "fp32", window: int | None = None) -> Backend:
    return backend_of(*load(path, dtype=dtype, device="cpu", window=window, backend=backend))


def fingerprints(path: Path, **how: Any) -> list[Fingerprint]:
    return [loaded(path, backend, **how).fingerprint() for backend in BOTH]


# -- the same, and another -----------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen2", "gemma2", "gemma3", "lfm2", "qwen35"])
def test_both_backends_say_the_same_of_a_file(architecture: str, tmp_path: Path) -> None:
    ours, theirs = fingerprints(write(architecture, tmp_path).gguf)
    assert ours == theirs
    assert ours.is_of_file


def test_the_window_that_was_asked_for_is_in_it(tmp_path: Path) -> None:
    path = write("qwen2", tmp_path).gguf
    own = loaded(path, "llama.cpp")
    assert own.shape.window is not None
    ours, theirs = fingerprints(path, window=4 * own.shape.window)
    assert ours == theirs
    assert "rotary embeddings had the settings" in str(own.misfit(ours))
    assert fingerprints(path, window=own.shape.window) == [own.fingerprint()] * 2


def test_frequencies_that_transformers_passes_over_make_another(tmp_path: Path) -> None:
    ours, theirs = fingerprints(write("llama3", tmp_path).gguf)
    assert "rope_freqs.weight" in str(ours.differences(theirs))


def test_other_weights_templates_words_and_dtypes_are_others(tmp_path: Path) -> None:
    tiny = write("qwen2", tmp_path)
    ours = loaded(tiny.gguf, "transformers")
    stored = ours.fingerprint()
    other = loaded(write("qwen2", tmp_path, seed=2, name="other").gguf, "llama.cpp")
    assert other.misfit(stored) == "it was made with another model: the weights differ"
    assert other.fingerprint().config == stored.config
    assert "computed in float32 and this model is in bfloat16" in str(
        loaded(tiny.gguf, "llama.cpp", "bf16").misfit(stored)
    )
    template, ours.tokenizer.chat_template = ours.tokenizer.chat_template, "{{ messages }}"
    assert ours.misfit(stored) == "it was made with another chat template"
    ours.tokenizer.chat_template = template
    assert ours.misfit(stored) is None
    ours.tokenizer.add_tokens(["of its own"])
    assert ours.misfit(stored) == "it was made with another tokenizer"


def test_a_template_or_a_word_in_the_file_is_seen_by_both(tmp_path: Path) -> None:
    path = write("qwen2", tmp_path).gguf
    stored = loaded(path, "llama.cpp").fingerprint()
    data = path.read_bytes()
    template = GGUFReader(path).fields["tokenizer.chat_template"].contents().encode()
    assert data.count(template) == 1
    changed = tmp_path / "changed.gguf"
    changed.write_bytes(data.replace(template, template[:-1] + b" "))
    for backend in BOTH:
        assert loaded(changed, backend).misfit(stored) == "it was made with another chat template"
    place = data.index(b"tokenizer.ggml.eos_token_id") + len(b"tokenizer.ggml.eos_token_id") + 4
    changed.write_bytes(data[:place] + b"\1" + data[place + 1 :])
    assert loaded(changed, "llama.cpp").misfit(stored) == "it was made with another tokenizer"


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.lm_head.weight.mul_(1.01),
        lambda model: model.model.layers[1].mlp.up_proj.weight.data.add_(1e-3),  # as adapters are merged
        lambda model: model.double().float(),
        lambda model: setattr(model.config, "rms_norm_eps", 0.1),
    ],
)
def test_a_model_that_was_changed_in_memory_is_not_the_files(
    tmp_path: Path, change: Callable[[Any], Any]
) -> None:
    ours = loaded(write("llama", tmp_path).gguf, "transformers")
    stored = ours.fingerprint()
    assert stored.is_of_file
    with torch.no_grad():
        change(ours.model)
    assert not ours.fingerprint().is_of_file
    assert "a GGUF file, which this model is not" in str(ours.misfit(stored))


def test_weights_that_transformers_drew_at_random_are_not_the_files(tmp_path: Path) -> None:
    assert not loaded(write("mixtral", tmp_path).gguf, "transformers").fingerprint().is_of_file


def test_a_split_file_has_the_fingerprint_of_the_whole(tmp_path: Path) -> None:
    whole = write("llama", tmp_path).gguf
    reader = GGUFReader(whole)
    writer = GGUFWriter(tmp_path / "split.gguf", "llama", split_max_tensors=7)
    for key, field in reader.fields.items():
        if not key.startswith(("GGUF.", "general.architecture")):
            kinds = field.types
            writer.add_key_value(key, field.contents(), kinds[0], kinds[-1] if len(kinds) > 1 else None)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    parts = sorted(tmp_path.glob("split-*.gguf"))
    assert len(parts) > 2
    assert loaded(parts[0], "llama.cpp").fingerprint() == loaded(whole, "llama.cpp").fingerprint()


# -- what is kept of a file ----------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return written(tmp_path / "a.gguf")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What has been read of tensors."""
    seen, usual = [], gguf_fingerprint._read

    def read(files: Any) -> Marks:
        seen.append(files)
        return usual(files)

    monkeypatch.setattr(gguf_fingerprint, "_read", read)
    return seen


def test_a_file_is_read_once(path: Path, reads: list[Any], cache: Path) -> None:
    first = GgufFile([path]).marks()
    assert GgufFile([path]).marks() == first
    assert len(reads) == 1
    (kept,) = (cache / "fingerprints").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600


def _resealed(said: dict[str, Any]) -> str:
    said.pop("checksum")
    return json.dumps(said | {"checksum": hash_of(said)})


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: text.replace("gguf:", "gguf:0"),
        lambda text: _resealed(json.loads(text) | {"files": [["/elsewhere.gguf", 1, 2]]}),
        lambda text: _resealed(json.loads(text) | {"form": 0}),
        lambda text: _resealed({key: x for key, x in json.loads(text).items() if key != "rope"}),
    ],
)
def test_what_is_kept_but_wrong_is_read_anew(
    path: Path, reads: list[Any], cache: Path, damage: Callable[[str], str]
) -> None:
    first = GgufFile([path]).marks()
    (kept,) = (cache / "fingerprints").iterdir()
    kept.write_text(damage(kept.read_text()))
    for _ in range(2):
        assert GgufFile([path]).marks() == first
    assert len(reads) == 2


def test_another_time_or_size_or_path_is_another_file(path: Path, reads: list[Any], tmp_path: Path) -> None:
    first = GgufFile([path]).marks()
    path.touch()
    assert GgufFile([path]).marks() == first
    moved = path.rename(tmp_path / "b.gguf")
    assert GgufFile([moved]).marks() == first
    assert len(reads) == 3
    data = bytearray(moved.read_bytes())
    data[-1] ^= 1
    moved.write_bytes(data)
    assert GgufFile([moved]).marks().weights != first.weights


def test_a_file_that_changed_after_loading_is_refused(path: Path) -> None:
    file = GgufFile([path])
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(SakuinError, match="changed after the model was loaded"):
        file.marks()
    path.unlink()
    with pytest.raises(SakuinError, match="cannot be read"):
        file.marks()


def test_a_cache_folder_that_cannot_be_written_costs_time_alone(
    path: Path, reads: list[Any], cache: Path
) -> None:
    cache.parent.mkdir(exist_ok=True)
    cache.write_text("a file")
    assert GgufFile([path]).marks() == GgufFile([path]).marks()
    assert len(reads) == 2


@pytest.mark.parametrize("length", [0, 3, 23, 40, 200])
def test_a_file_that_is_cut_off_is_refused(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(SakuinError, match=r"a\.gguf"):
        GgufFile([path]).marks()
