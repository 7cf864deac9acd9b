"""GGUF files whose headers were changed: read, changed at one place or several, and written again.

What is written is a file of the same layout whose metadata or tensors are odd; where a change makes no file,
`Parsed.bytes` raises `struct.error`. Used by the tests of damaged files, and by the fuzzer of headers.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STRING, ARRAY = 8, 9
FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""GGUF's numbers of its types, in the letters of `struct`."""
_ODD = (0, 1, 2, 3, 7, 31, 33, 255, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
_ODD_SIGNED = (-(2**63), -(2**31), -1000, -2, -1)
_ODD_REAL = (0.0, -1.0, 1e-38, 1e38, float("inf"), float("-inf"), float("nan"))
_ODD_TEXT = (
    b"",
    b" ",
    b"\xff\xfe",
    b"a\0b",
    b"x" * 5000,
    b"<|im_end|>",
    b"\n",
    b"<0x0A>",
    b"<0xZZ>",
    b"\xe2\x96\x81",
)


@dataclass
class Value:
    """type : GGUF's. value : a number, bytes, or a list. item : the type of a list's items."""

    type: int
    value: Any
    item: int = 0


@dataclass
class Tensor:
    name: bytes
    shape: list[int]
    type: int
    offset: int


@dataclass
class Parsed:
    """A file of version 3."""

    values: list[tuple[bytes, Value]]
    tensors: list[Tensor]
    data: bytes = field(repr=False)

    def __getitem__(self, key: str) -> Value:
        return dict(self.values)[key.encode()]

    def set(self, key: str, value: Value | None) -> None:
        """Have this value of a key; None takes it out."""
        kept = [each for each in self.values if each[0] != key.encode()]
        self.values = kept if value is None else [*kept, (key.encode(), value)]

    def bytes(self) -> bytes:
        out = [struct.pack("<4sIQQ", b"GGUF", 3, len(self.tensors), len(self.values))]
        for key, value in self.values:
            out += [_text(key), struct.pack("<I", value.type & 0xFFFFFFFF), _packed(value)]
        for each in self.tensors:
            shape = [n & (2**64 - 1) for n in each.shape]
            out += [_text(each.name), struct.pack(f"<I{len(shape)}Q", len(shape), *shape)]
            out.append(struct.pack("<IQ", each.type & 0xFFFFFFFF, each.offset & (2**64 - 1)))
        head = b"".join(out)
        return head + bytes(-len(head) % 32) + self.data


def parsed(path: Path) -> Parsed:
    """What stands in a file."""
    raw, at = path.read_bytes(), 0

    def take(form: str) -> Any:
        nonlocal at
        found = struct.unpack_from("<" + form, raw, at)
        at += struct.calcsize("<" + form)
        return found[0] if len(found) == 1 else found

    def text() -> bytes:
        nonlocal at
        n = take("Q")
        at += n
        return raw[at - n : at]

    def value(kind: int) -> Value:
        if kind == STRING:
            return Value(kind, text())
        if kind == ARRAY:
            item, n = take("I"), take("Q")
            return Value(kind, [text() if item == STRING else take(FORMATS[item]) for _ in range(n)], item)
        return Value(kind, take(FORMATS[kind]))

    _, _, n_tensors, n_values = take("4sIQQ")
    values = [(text(), value(take("I"))) for _ in range(n_values)]
    tensors = []
    for _ in range(n_tensors):
        name, n = text(), take("I")
        shape = [take("Q") for _ in range(n)]
        tensors.append(Tensor(name, shape, take("I"), take("Q")))
    return Parsed(values, tensors, raw[at + -at % 32 :])


def _text(raw: bytes) -> bytes:
    return struct.pack("<Q", len(raw)) + raw


def _packed(value: Value) -> bytes:
    if value.type == STRING:
        return _text(value.value)
    if value.type == ARRAY:
        head = struct.pack("<IQ", value.item, len(value.value))
        if value.item == STRING:
            return head + b"".join(_text(each) for each in value.value)
        return head + struct.pack(f"<{len(value.value)}{FORMATS[value.item]}", *value.value)
    return struct.pack("<" + FORMATS[value.type], value.value)


class Fire:
    """Draws changes. `change(parsed)` makes one or several and says which."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)

    def change(self, of: Parsed) -> str:
        ways: list[Callable[[Parsed], str]] = [
            self.number,
            self.number,
            self.array,
            self.array,
            self.token,
            self.token,
            self.merge,
            self.retyped,
            self.removed,
            self.shape,
            self.shape,
            self.tensor,
            self.renamed,
            self.word,
        ]
        said = []
        for _ in range(self.draw.choice((1, 1, 1, 2, 3))):
            said.append(self.draw.choice(ways)(of))
        return "; ".join(said)

    def _value(self, of: Parsed, fits: Callable[[Value], bool]) -> tuple[bytes, Value]:
        return self.draw.choice([each for each in of.values if fits(each[1])])

    def _number(self, kind: int) -> Any:
        if kind in (6, 12):
            return self.draw.choice(_ODD_REAL)
        if kind == 7:
            return self.draw.random() < 0.5
        size = 8 * struct.calcsize(FORMATS[kind])
        low, high = (
            (-(1 << size - 1), (1 << size - 1) - 1) if FORMATS[kind].islower() else (0, (1 << size) - 1)
        )
        return self.draw.choice([n for n in (*_ODD, *_ODD_SIGNED) if low <= n <= high])

    def number(self, of: Parsed) -> str:
        key, value = self._value(of, lambda each: each.type in FORMATS)
        old = value.value
        near = not isinstance(old, bool | float) and self.draw.random() < 0.5
        value.value = (
            max(0, old + self.draw.choice((-1, 1, old, -(old // 2)))) if near else self._number(value.type)
        )
        return f"{key.decode()} {old} -> {value.value}"

    def array(self, of: Parsed) -> str:
        key, value = self._value(of, lambda each: each.type == ARRAY)
        held, way = value.value, self.draw.choice(("cut", "empty", "longer", "item", "item"))
        if way == "empty":
            held.clear()
        elif way == "cut":
            del held[self.draw.randrange(len(held) + 1) :]
        elif way == "longer":
            held += held[: self.draw.randrange(1, len(held) + 1)] if held else []
        elif held:
            odd = self.draw.choice(_ODD_TEXT) if value.item == STRING else self._number(value.item)
            held[self.draw.randrange(len(held))] = odd
        return f"{key.decode()} {way}"

    def _texts(self, of: Parsed, key: bytes) -> Value | None:
        """A list of texts that is still one, and holds some."""
        found = dict(of.values).get(key)
        is_one = found is not None and found.type == ARRAY and found.item == STRING and found.value
        return found if is_one else None

    def token(self, of: Parsed) -> str:
        """A word of the vocabulary is another's, or odd."""
        found = self._texts(of, b"tokenizer.ggml.tokens")
        if found is None:
            return "no tokens"
        at = self.draw.randrange(len(found.value))
        found.value[at] = self.draw.choice((*_ODD_TEXT, *[self.draw.choice(found.value)] * 8))
        return f"token {at} is {found.value[at][:20]!r}"

    def merge(self, of: Parsed) -> str:
        found = self._texts(of, b"tokenizer.ggml.merges")
        if found is None:
            return "no merges"
        at, odd = self.draw.randrange(len(found.value)), (b"zzz qqq", b"a", b" ", b"a b c", b"", b" b", b"a ")
        found.value[at] = self.draw.choice(odd)
        return f"merge {at} is {found.value[at]!r}"

    def retyped(self, of: Parsed) -> str:
        """A value of another type."""
        key, value = self.draw.choice(of.values)
        kind = self.draw.choice((*FORMATS, STRING, ARRAY))
        value.type = kind
        if kind == STRING:
            value.value = b"7"
        elif kind == ARRAY:
            value.item = self.draw.choice((4, 5, 6, 7, STRING))
            odd = b"a" if value.item == STRING else self._number(value.item)
            value.value = [odd] * self.draw.choice((0, 1, 3, 384))
        else:
            value.value = self._number(kind)
        return f"{key.decode()} of type {kind}"

    def removed(self, of: Parsed) -> str:
        key, _ = of.values.pop(self.draw.randrange(len(of.values)))
        return f"no {key.decode()}"

    def word(self, of: Parsed) -> str:
        key, value = self._value(of, lambda each: each.type == STRING)
        value.value = self.draw.choice(
            (
                *_ODD_TEXT,
                b"gpt2",
                b"llama",
                b"bert",
                b"t5",
                b"rwkv",
                b"none",
                b"no_vocab",
                b"plamo2",
                b"llama-bpe",
            )
        )
        return f"{key.decode()} is {value.value[:20]!r}"

    def shape(self, of: Parsed) -> str:
        tensor = self.draw.choice(of.tensors)
        old, way = list(tensor.shape), self.draw.choice(("odd", "near", "near", "swap", "more", "fewer"))
        at = self.draw.randrange(len(old)) if old else 0
        if way == "odd" and old:
            tensor.shape[at] = self.draw.choice((*_ODD, *_ODD_SIGNED))
        elif way == "near" and old:
            tensor.shape[at] = max(0, old[at] + self.draw.choice((-32, -1, 1, 32, -(old[at] // 2))))
        elif way == "swap":
            tensor.shape.reverse()
        elif way == "more":
            tensor.shape.append(self.draw.choice((1, 1, 2, 0)))
        elif old:
            tensor.shape.pop()
        return f"{tensor.name.decode()} {old} -> {tensor.shape}"

    def tensor(self, of: Parsed) -> str:
        tensor, way = self.draw.choice(of.tensors), self.draw.choice(("type", "offset", "gone", "twice"))
        if way == "type":
            tensor.type = self.draw.choice((*range(42), 99, 2**31))
        elif way == "offset":
            tensor.offset = self.draw.choice(
                (0, 1, 32, tensor.offset + 4, tensor.offset + 32, 2**40, 2**63, 2**64 - 32)
            )
        elif way == "gone":
            of.tensors.remove(tensor)
        else:
            of.tensors.append(tensor)
        return f"{tensor.name.decode()} {way} {tensor.type} {tensor.offset}"

    def renamed(self, of: Parsed) -> str:
        tensor = self.draw.choice(of.tensors)
        old, tensor.name = (
            tensor.name,
            self.draw.choice(
                (
                    b"",
                    b"x" * 63,
                    b"blk.99.attn_q.weight",
                    b"blk.x.attn_q.weight",
                    b"blk.-1.ffn_up.weight",
                    b"\xff",
                    b"blk.",
                    self.draw.choice(of.tensors).name,
                )
            ),
        )
        return f"{old.decode()} is called {tensor.name[:20]!r}"
