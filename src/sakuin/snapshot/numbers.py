"""Numbers as text, as a manifest holds them. Called by `sakuin.snapshot`'s `manifest` and `part`."""

from __future__ import annotations

import base64
import binascii
import sys
from array import array
from collections.abc import Sequence
from typing import Any


def packed(numbers: Sequence[float], kind: str = "i") -> str:
    """Numbers as base64 of little-endian ones of 4 bytes: "i" whole, "f" floating."""
    return base64.b64encode(_bytes_of_numbers(numbers, kind)).decode()


def int32_bytes(numbers: Sequence[int]) -> bytes:
    """Tokens or offsets as little-endian numbers of 4 bytes."""
    return _bytes_of_numbers(numbers, "i")


def _bytes_of_numbers(numbers: Sequence[float], kind: str) -> bytes:
    held = array(kind, numbers)
    if sys.byteorder == "big":
        held.byteswap()
    return held.tobytes()


def unpacked(text: Any, kind: str = "i") -> list[Any]:
    """The numbers in what `packed` gave. Raises `ValueError` where it is none of that."""
    if not isinstance(text, str):
        raise ValueError("numbers are missing")
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("numbers are not base64") from None
    held = array(kind)
    held.frombytes(data)
    if sys.byteorder == "big":
        held.byteswap()
    return held.tolist()
