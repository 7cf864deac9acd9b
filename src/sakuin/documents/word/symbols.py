"""Signs that Word takes from fonts of signs, as Unicode; boxes, ticked or empty, as `[x]` and `[ ]`."""

from __future__ import annotations

from sakuin.documents.boxes import EMPTY, TICKED, boxes

_PRIVATE = 0xF000
_GREEK = dict(
    zip(
        (*range(0x41, 0x5B), *range(0x61, 0x7B)),
        "ΑΒΧΔΕΦΓΗΙϑΚΛΜΝΟΠΘΡΣΤΥςΩΞΨΖ" + "αβχδεφγηιϕκλμνοπθρστυϖωξψζ",
        strict=True,
    )
)
_SYMBOL = _GREEK | {
    0x22: "∀", 0x24: "∃", 0x27: "∋", 0x2A: "∗", 0x2D: "−", 0x40: "≅", 0x5C: "∴", 0x5E: "⊥", 0xA0: "€",
    0xA2: "′", 0xA3: "≤", 0xA4: "⁄", 0xA5: "∞", 0xA6: "ƒ", 0xA7: "♣", 0xA8: "♦", 0xA9: "♥", 0xAA: "♠",
    0xAB: "↔", 0xAC: "←", 0xAD: "↑", 0xAE: "→", 0xAF: "↓", 0xB0: "°", 0xB1: "±", 0xB2: "″", 0xB3: "≥",
    0xB4: "×", 0xB5: "∝", 0xB6: "∂", 0xB7: "•", 0xB8: "÷", 0xB9: "≠", 0xBA: "≡", 0xBB: "≈", 0xBC: "…",
    0xC4: "⊗", 0xC5: "⊕", 0xC6: "∅", 0xC7: "∩", 0xC8: "∪", 0xC9: "⊃", 0xCA: "⊇", 0xCB: "⊄", 0xCC: "⊂",
    0xCD: "⊆", 0xCE: "∈", 0xCF: "∉", 0xD0: "∠", 0xD1: "∇", 0xD2: "®", 0xD3: "©", 0xD4: "™", 0xD5: "∏",
    0xD6: "√", 0xD7: "⋅", 0xD8: "¬", 0xD9: "∧", 0xDA: "∨", 0xDB: "⇔", 0xDC: "⇐", 0xDD: "⇑", 0xDE: "⇒",
    0xDF: "⇓", 0xE2: "®", 0xE3: "©", 0xE4: "™", 0xE5: "∑", 0xF2: "∫",
}  # fmt: skip
_WINGDINGS = {
    0x22: "✂", 0x28: "☎", 0x29: "✆", 0x2A: "✉", 0x46: "☞", 0x4A: "☺", 0x4B: "😐", 0x4C: "☹", 0x6C: "●",
    0x6D: "❍", 0x6E: "■", 0x6F: EMPTY, 0x70: EMPTY, 0x71: EMPTY, 0x72: EMPTY, 0x75: "◆", 0x76: "❖", 0x77: "⬥",
    0x78: TICKED, 0x9F: "•", 0xA1: "○", 0xA7: "▪", 0xA8: EMPTY, 0xD8: "➢", 0xDF: "←", 0xE0: "→", 0xE1: "↑",
    0xE2: "↓", 0xE7: "←", 0xE8: "→", 0xE9: "↑", 0xEA: "↓", 0xEF: "⇦", 0xF0: "⇨", 0xF1: "⇧", 0xF2: "⇩",
    0xF3: "⬄", 0xFB: "✗", 0xFC: "✓", 0xFD: TICKED, 0xFE: TICKED,
    **{0x80 + n: chr(0x2460 + n - 1) for n in range(1, 11)},
    **{0x8B + n: chr(0x2776 + n - 1) for n in range(1, 11)},
}  # fmt: skip
_WINGDINGS_2 = {
    0x2A: EMPTY, 0x30: EMPTY, 0x4F: "✗", 0x50: "✓", 0x51: TICKED, 0x52: TICKED, 0x53: TICKED, 0x54: TICKED,
    0x98: "•", 0xA2: "■", 0xA3: EMPTY, 0xA4: EMPTY, 0xA5: EMPTY,
}  # fmt: skip
_WEBDINGS = {0x61: "✓", 0x63: EMPTY, 0x67: "■", 0x72: "✗", 0x28: "☎", 0x9A: "✉"}
_FONTS = {"symbol": _SYMBOL, "wingdings": _WINGDINGS, "wingdings 2": _WINGDINGS_2, "webdings": _WEBDINGS}


def is_of_signs(font: str) -> bool:
    """Whether a font has signs where others have letters."""
    return font.lower() in _FONTS or font.lower() == "wingdings 3"


def sign(code: int, font: str) -> str | None:
    """The character that `code` is in a font; None where it is not known."""
    signs = _FONTS.get(font.lower())
    code = code - _PRIVATE if _PRIVATE <= code < _PRIVATE + 256 else code
    if signs is None:
        known = 0x20 <= code < 0xD800 or code >= _PRIVATE + 0x1000
        return boxes(chr(code)) if known and not is_of_signs(font) else None
    return signs.get(code) or (chr(code) if signs is _SYMBOL and 0x20 <= code < 0x7F else None)
