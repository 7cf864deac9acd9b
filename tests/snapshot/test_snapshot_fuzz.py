"""The loader under fire: whatever a manifest or a part file says, the answer is the context or one clear
sentence, and nothing outside the folder is touched."""

from __future__ import annotations

import base64
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forged import LONG, ODD, changed, signed
from stored import TEXT, WINDOWED, model_of, read

from sakuin import Context
from sakuin.errors import SakuinError
from sakuin.snapshot import store
from sakuin.storage import tensorfile


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "saved"
    read(WINDOWED, TEXT[:700]).save(folder)
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    shutil.copytree(saved, tmp_path / "copy")
    return tmp_path / "copy"


def refused_or_same(folder: Path) -> bool:
    """Load and ask; True where it was refused. Any other error fails the test."""
    try:
        context = Context.load(folder, *model_of(WINDOWED))
        context.ask("Who?", max_new_tokens=2)
    except SakuinError as error:
        sentence = str(error)
    else:
        return False
    assert 20 < len(sentence) < 700
    assert sentence.endswith(".")
    return True


def test_a_forged_manifest_is_refused_or_harmless(copy: Path) -> None:
    path = copy / store.MANIFEST
    whole = json.loads(path.read_bytes())
    draw, refused, cases = random.Random(7), 0, 1000 if LONG else 250
    for _ in range(cases):
        said, where = changed(whole, draw)
        try:
            data = signed(said)
        except ValueError:
            continue
        path.write_bytes(data)
        try:
            refused += refused_or_same(copy)
        except Exception as error:
            raise AssertionError(f"{where}: {error!r}") from error
    assert refused > 0.6 * cases
    path.write_bytes(signed(whole))
    assert not refused_or_same(copy)


def test_a_torn_or_flipped_manifest_is_refused(copy: Path) -> None:
    path = copy / store.MANIFEST
    whole = path.read_bytes()
    draw = random.Random(8)
    for _ in range(100):
        data = bytearray(whole)
        at = draw.randrange(len(data))
        if draw.random() < 0.3:
            del data[at:]
        else:
            data[at] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        assert refused_or_same(copy)
    for data in (b"", b"{}", b"[]", b"null", b"[" * 100_000, b"\xff\xfe", b'{"format": 1}'):
        path.write_bytes(data)
        assert refused_or_same(copy)


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "a" * 64 + "/", "..", "A" * 64])
def test_no_path_leads_out_of_the_folder(copy: Path, name: str) -> None:
    path = copy / store.MANIFEST
    whole = path.read_bytes()
    for field in ("name", "sha256"):
        said = json.loads(whole)
        said["parts"][0][field] = name
        path.write_bytes(signed(said))
        with pytest.raises(SakuinError, match="a file has no name"):
            Context.load(copy, *model_of(WINDOWED))


def test_numbers_that_are_too_large_allocate_nothing(copy: Path) -> None:
    path = copy / store.MANIFEST
    whole = json.loads(path.read_bytes())
    huge = base64.b64encode(b"\xff\xff\xff\x7f" * 8).decode()
    for change in (
        {"ids": huge, "starts": huge, "ends": huge},
        {"exact": 2**40},
        {"at": 2**60},
        {"parts": [p | {"size": 2**60} for p in whole["parts"]]},
        {"parts": [p | {"end": 2**40} for p in whole["parts"]]},
    ):
        path.write_bytes(signed(whole | change))
        with pytest.raises(SakuinError):
            Context.load(copy, *model_of(WINDOWED))


def of_header(change: Callable[[dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
    """A change of a part file's header that leaves the file's size as it is, where it can."""

    def apply(data: bytes) -> bytes:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        header = change(header) or header
        text = json.dumps(header, separators=(",", ":")).encode()
        return data[:8] + text.ljust(length)[:length] + data[8 + length :]

    return apply


def test_mutated_part_files_are_refused_or_harmless(saved: Path, copy: Path) -> None:
    draw, refused = random.Random(9), 0
    files = sorted((copy / store.PARTS).iterdir())

    def entry(header: dict[str, Any]) -> dict[str, Any]:
        return header[draw.choice([key for key in header if key != "__metadata__"])]

    def drop(header: dict[str, Any]) -> None:
        del header[draw.choice(list(header))]

    def swap(header: dict[str, Any]) -> None:
        a, b = draw.sample([key for key in header if key != "__metadata__"], 2)
        header[a], header[b] = header[b], header[a]

    def put(header: dict[str, Any]) -> None:
        one = entry(header)
        field = draw.choice(["dtype", "shape", "data_offsets"])
        one[field] = draw.choice([*ODD, "F32", "U8", [1], [2, 3], [-1, 5], [0, 2**62]])

    def reshape(header: dict[str, Any]) -> None:
        one = entry(header)
        one["shape"] = draw.choice([one["shape"][::-1], [*one["shape"], 1], [1, *one["shape"]]])

    def facts(header: dict[str, Any]) -> None:
        held = header["__metadata__"]
        held[draw.choice(list(held))] = draw.choice(["", "x", "9", "{", '{"1": "flat"}', "tail"])

    cases = 1000 if LONG else 150
    for _ in range(cases):
        path = draw.choice(files)
        data = path.read_bytes()
        kind = draw.randrange(7)
        if kind < 5:
            try:
                new = of_header([drop, swap, put, reshape, facts][kind])(data)
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
        elif kind == 5:  # anywhere in the header or the first numbers
            new = bytearray(data)
            new[draw.randrange(min(len(new), 6000))] ^= 1 << draw.randrange(8)
        else:
            new = data[: draw.randrange(len(data))] + bytes(draw.randrange(2))
        path.write_bytes(new)
        try:
            refused += refused_or_same(copy)
        finally:
            path.unlink()
            shutil.copy(saved / store.PARTS / path.name, path)
    assert refused > 80 * cases / 150
    assert not refused_or_same(copy)


@pytest.mark.parametrize(
    "data", [b"", b"1234567", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"[]", b"\x08" + b"\0" * 7 + b"{}"]
)
def test_what_is_no_safetensors_file_is_said(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "odd"
    path.write_bytes(data)
    with pytest.raises(SakuinError, match="damaged"):
        tensorfile.open_mapped(path)
