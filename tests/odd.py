"""Two hundred odd files: kinds times damage times encodings times names, the same every time."""

from __future__ import annotations

import io
import json
import random
import zipfile
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import made
import xlsxwriter

TEXT = (
    "The keys of the harbour office hang beside the door.\nÄrger gibt es nie; “so be it”, said Ada.\n"
    "契約は三月に終了する。\n" * 6
)
NAMES = (
    "plain.txt", "no suffix", "-dash.log", "two words.txt", "ünï.md", "日本.csv", "a'b\"c.txt", "[1]*.txt",
    "~tilde.html", "%41.json", "$HOME.txt", "line\nbreak.txt", "\x1b[31mred.txt", "UPPER.PDF", "x.docx",
    ".hidden", "a.xlsx", "w" * 200 + ".txt", "b.tsv", "trailing. ",
)  # fmt: skip
KINDS = ("text", "markdown", "html", "csv", "pdf", "word", "sheets", "json", "log", "zip")
DAMAGES = ("none", "cut", "flipped", "nuls", "bytes", "doubled", "reversed", "crlf", "bom", "control")
ENCODINGS = ("utf-8", "utf-16", "cp1252", "cp932", "utf-8-sig", "utf-32")


@cache
def _packed(kind: str) -> bytes:
    with TemporaryDirectory() as folder:
        return _made(kind, Path(folder) / "made")


def _made(kind: str, path: Path) -> bytes:
    if kind == "pdf":
        return made.contract(path).read_bytes()
    if kind == "word":
        return made.word(path, lambda document: document.add_paragraph(TEXT)).read_bytes()
    if kind == "sheets":
        with xlsxwriter.Workbook(str(path)) as book:
            book.add_worksheet("Ärger").write_column(0, 0, TEXT.splitlines())
        return path.read_bytes()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.txt", TEXT)
    return out.getvalue()


def sound(kind: str, encoding: str) -> bytes:
    """A file of a kind, in an encoding where the kind has one."""
    if kind in ("pdf", "word", "sheets", "zip"):
        return _packed(kind)
    text = {
        "markdown": f"# Keys\n\n{TEXT}",
        "html": f"<!doctype html><title>Keys</title><body><p>{TEXT}</p>",
        "csv": 'name;due;sum\nAda;2031-03-14;1,5\n"Bo\nOtt";;\n' * 9,
        "json": json.dumps({"keys": TEXT.splitlines()}, ensure_ascii=False, indent=1),
        "log": "".join(f"10:{minute:02} \x1b[32mok\x1b[0m pump {minute}\r" for minute in range(60)),
    }.get(kind, TEXT)
    return text.encode(encoding, "replace")


def damaged(data: bytes, damage: str, chance: random.Random) -> bytes:
    """`data` with this damage at a place by chance."""
    at = chance.randrange(len(data) // 2, len(data))
    if damage == "flipped":
        broken = bytearray(data)
        for _ in range(20):
            broken[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        return bytes(broken)
    return {
        "none": data,
        "cut": data[:at],
        "nuls": data[:at] + bytes(chance.randrange(1, 99)) + data[at:],
        "bytes": data[:at]
        + bytes(chance.randrange(128, 256) for _ in range(chance.randrange(1, 4)))
        + data[at:],
        "doubled": data + data,
        "reversed": data[::-1],
        "crlf": data.replace(b"\n", b"\r\n"),
        "bom": b"\xef\xbb\xbf" + data,
        "control": data[:at] + b"\x07\x08\x0b\x0c\x1b[2J\x7f\x85" + data[at:],
    }[damage]


def odd_files(folder: Path) -> list[Path]:
    """The files, each in a folder of its own for its name."""
    chance = random.Random(20311114)
    paths = []
    for number in range(200):
        kind, damage = KINDS[number % len(KINDS)], DAMAGES[number // len(KINDS) % len(DAMAGES)]
        name = chance.choice(NAMES)
        data = damaged(sound(kind, chance.choice(ENCODINGS)), damage, chance)
        path = folder / str(number) / name
        path.parent.mkdir()
        path.write_bytes(data)
        paths.append(path)
    return paths
