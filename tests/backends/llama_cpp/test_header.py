"""Headers of GGUF files: what is read, and what is refused before anything else is."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader
from tiny_gguf import ARCHITECTURES, write
from written import TENSORS, written

from sakuin.backends import catalogue
from sakuin.backends.llama_cpp.header import Header
from sakuin.errors import SakuinError


def test_metadata_and_tensors_are_those_that_gguf_reads(tmp_path: Path) -> None:
    path = write("gpt-oss", tmp_path, "Q8_0").gguf
    header, other = Header.read(path), GGUFReader(path)
    assert header.architecture == "gpt-oss"
    for key, field in other.fields.items():
        value = field.contents() if not key.startswith("GGUF.") else None
        if isinstance(value, list):
            assert header.lengths[key] == len(value)
            held = header.values.get(key, [each.decode() for each in header.strings(key)])
            assert list(header.long.get(key, held)) == value
        elif value is not None:
            assert header.values[key] == value
    kept = [
        (t.name, t.tensor_type.name.lower(), [int(n) for n in t.shape], int(t.data_offset))
        for t in other.tensors
    ]
    assert [(t.name, t.type, list(t.shape), t.offset) for t in header.tensors] == kept
    assert header.nbytes == sum(int(t.n_bytes) for t in other.tensors)
    assert header.files == (path,)
    assert header.path == path


def test_long_arrays_are_no_python_objects() -> None:
    header = Header.read(catalogue.get("gemma3-270m"))
    assert not [key for key in header.values if key.startswith("tokenizer.ggml.token_type")]
    assert header.lengths["tokenizer.ggml.scores"] == len(header.long["tokenizer.ggml.scores"]) == 262_144
    assert header.long["tokenizer.ggml.token_type"][:6].tolist() == [3, 3, 3, 3, 3, 4]
    assert header.strings("tokenizer.ggml.tokens")[:3] == [b"<pad>", b"<eos>", b"<bos>"]
    assert header.strings("no such key") == header.strings("tokenizer.ggml.scores") == []


def test_numbers_for_all_layers_or_for_each(tmp_path: Path) -> None:
    path = written(tmp_path / "a.gguf", attention__head_count_kv=[2, 1], block_count=2, rope__freq_base=1e6)
    header = Header.read(path)
    assert header.per_layer("llama.attention.head_count_kv", 2) == [2, 1]
    assert header.per_layer("llama.attention.head_count", 2) == [4, 4]
    assert header.number("llama.attention.head_count_kv") == 2
    assert header.real("llama.rope.freq_base") == 1e6
    assert (header.text("none"), header.number("none", 7), header.real("none", 0.5)) == ("", 7, 0.5)
    with pytest.raises(SakuinError, match="for 2 layers of 3"):
        header.per_layer("llama.attention.head_count_kv", 3)


# -- split files ---------------------------------------------------------------------------------------------


def _split(folder: Path, n: int = 3, name: str = "model") -> list[Path]:
    files = []
    for i in range(n):
        general = {"split.no": np.uint16(i), "split.count": np.uint16(n), "split.tensors.count": n + 2}
        tensors = TENSORS if i == 0 else [f"blk.1.part{i}.weight"]
        path = folder / f"{name}-{i + 1:05d}-of-{n:05d}.gguf"
        files.append(written(path, tensors=tensors, general=general))
    return files


@pytest.mark.parametrize("named", [0, 1, 2])
def test_any_part_of_a_split_file_stands_for_all(tmp_path: Path, named: int) -> None:
    files = _split(tmp_path)
    header = Header.read(files[named])
    assert header.files == tuple(files)
    assert [t.file for t in header.tensors] == [0, 0, 0, 1, 2]
    assert header.nbytes == 4 * (96 * 64 + 4 * 64)


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_missing_part_is_named(tmp_path: Path, missing: int) -> None:
    files = _split(tmp_path)
    files[missing].unlink()
    with pytest.raises(SakuinError, match=f"{files[missing].name}.* is not beside it; fetch all parts"):
        Header.read(files[(missing + 1) % 3])


def test_parts_under_other_names_cannot_be_found(tmp_path: Path) -> None:
    files = _split(tmp_path)
    moved = files[0].rename(tmp_path / "mine.gguf")
    with pytest.raises(SakuinError, match=r"must end in -00001-of-00003\.gguf"):
        Header.read(moved)


def test_parts_that_do_not_belong_together(tmp_path: Path) -> None:
    files = _split(tmp_path)
    written(files[2], tensors=["a.weight", "b.weight"], general={"split.count": np.uint16(3)})
    with pytest.raises(SakuinError, match="6 tensors instead of 5"):
        Header.read(files[0])


# -- files that are none -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "not a GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "not a GGUF file"),
        (b"tjgg" + bytes(40), "in the format GGJT"),
        (b"GGUF" + bytes(5), "ends after 9 bytes"),
        (b"GGUF\x01\0\0\0" + bytes(16), "version 1 of the GGUF format, which is older"),
        (b"GGUF\x04\0\0\0" + bytes(16), "version 4 of the GGUF format, which is newer"),
        (b"GGUF\0\0\0\x03" + bytes(16), "other byte order"),
        (b"GGUF\x03\0\0\0" + b"\xff" * 16, "cannot be read .*fetch it again"),
    ],
)
def test_what_is_no_gguf_file_is_said(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(SakuinError, match=expected) as error:
        Header.read(path)
    assert str(path) in str(error.value)


def test_no_file_and_no_permission(tmp_path: Path) -> None:
    with pytest.raises(SakuinError, match="there is no file"):
        Header.read(tmp_path / "none.gguf")
    with pytest.raises(SakuinError, match="cannot be read"):
        Header.read(tmp_path)


def test_a_cut_file_says_how_much_is_missing(tmp_path: Path) -> None:
    path = written(tmp_path / "cut.gguf")
    size = max(t.offset + t.nbytes for t in Header.read(path).tensors)
    os.truncate(path, size - 100)
    with pytest.raises(SakuinError, match=f"cut off: 100 of the {size:,} bytes"):
        Header.read(path)
    os.truncate(path, 300)
    with pytest.raises(SakuinError, match=r"header of .* cannot be read \(failed to read .*fetch it again"):
        Header.read(path)


_READ = """
import sys
from sakuin.backends.llama_cpp.header import Header
from sakuin.backends.llama_cpp.shape import shape_of
from sakuin.errors import SakuinError
for path in sys.argv[1:]:
    try:
        shape_of(Header.read(path))
    except SakuinError:
        pass
print("survived")
"""


def test_damaged_headers_never_end_the_process(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole.gguf", attention__sliding_window=[1, 2], general={"a.text": "b" * 40})
    raw, rng, paths = whole.read_bytes(), random.Random(5), []
    header = min(t.offset for t in Header.read(whole).tensors)
    for i in range(200):
        broken = bytearray(raw)
        for _ in range(rng.randint(1, 4)):
            broken[rng.randrange(4, header)] = rng.randrange(256)
        paths.append(tmp_path / f"{i}.gguf")
        paths[-1].write_bytes(broken)
    done = subprocess.run([sys.executable, "-c", _READ, *map(str, paths)], capture_output=True, text=True)
    assert done.stdout.strip() == "survived", done.stderr[-2000:]


# -- models that cannot be used ------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_models_that_work_are_not_refused(architecture: str, tmp_path: Path) -> None:
    assert Header.read(write(architecture, tmp_path).gguf).tensors


@pytest.mark.parametrize(
    ("architecture", "reason"),
    [
        ("bert", "encoder"),
        ("nomic-bert", "encoder"),
        ("gemma-embedding", "encoder"),
        ("t5", "encoder with a decoder"),
        ("eagle3", "draft model"),
        ("llada", "diffusion"),
        ("clip", "pictures or sound"),
        ("mamba2", "state of fixed size"),
        ("rwkv7", "state of fixed size"),
        ("deepseek4", "chooses by itself"),
        ("deepseek2", "MLA"),
        ("bloom", "ALiBi"),
    ],
)
def test_architectures_that_cannot_be_used(tmp_path: Path, architecture: str, reason: str) -> None:
    path = written(tmp_path / "model.gguf", architecture)
    with pytest.raises(SakuinError, match=rf"sakuin cannot use .*\({architecture}\): .*{reason}"):
        Header.read(path)


@pytest.mark.parametrize(
    ("stated", "reason"),
    [
        ({"own": {"pooling_type": 3}}, "judge or embed texts"),
        ({"own": {"attention__causal": False}}, "looks ahead"),
        ({"own": {"attention__kv_lora_rank": 512}}, "MLA"),
        ({"own": {"attention__key_length_mla": 192}}, "MLA"),
        ({"own": {"attention__max_alibi_bias": 8.0}}, "ALiBi"),
        ({"own": {"attention__indexer__top_k": 64}}, "chooses by itself"),
        ({"own": {"attention__key_length": 16, "attention__value_length": 32}}, "keys have 16 .* values 32"),
        ({"own": {"block_count": 0}}, "0 layers.*damaged"),
        ({"own": {"attention__head_count": None}}, "0 query heads.*damaged"),
        ({"own": {"nextn_predict_layers": 1}, "tensors": ["blk.2.attn_norm.weight"]}, "MTP"),
        ({"tensors": ["token_embd.weight"]}, "no layers"),
        ({"tensors": []}, "vocabulary and no weights"),
        ({"general": {"general.type": "adapter"}}, "adapter"),
        ({"general": {"general.type": "mmproj"}}, "reads pictures or sound"),
    ],
)
def test_metadata_that_tell_that_a_model_cannot_be_used(
    tmp_path: Path, stated: dict[str, Any], reason: str
) -> None:
    path = tmp_path / "model.gguf"
    written(
        path, tensors=stated.get("tensors", TENSORS), general=stated.get("general"), **stated.get("own", {})
    )
    with pytest.raises(SakuinError, match=rf"sakuin cannot use .*: .*{reason}") as error:
        Header.read(path)
    assert str(error.value).endswith((".", "again."))


def test_the_large_baichuan_weighs_distances_and_the_small_one_does_not(tmp_path: Path) -> None:
    assert Header.read(written(tmp_path / "small.gguf", "baichuan", block_count=32)).tensors
    with pytest.raises(SakuinError, match="ALiBi"):
        Header.read(written(tmp_path / "large.gguf", "baichuan", block_count=40))
