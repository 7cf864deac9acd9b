"""Which encoding bytes are likely in that are not UTF-8: one that is nearly certain, some, or none.

Each encoding is tried with each of the languages that are written in it. What decodes to the usual letters of
the language is likely; two encodings of which one is not a hundred times as likely cannot be told apart, and
both are named. `text` decodes.
"""

from __future__ import annotations

import codecs
import math
import re
from collections import Counter
from functools import lru_cache
from typing import NamedTuple

BOMS = (  # the longer ones first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LOOKED_AT = 1 << 16
_MOST_CONTROLS = 0.01
_TEXT_CONTROLS = frozenset("\t\n\v\f\r\x1b")
_MOST_NAMED = 3
_CERTAIN, _POSSIBLE = math.log(100), math.log(1000)
"""By how much the first is likelier than the next, where it is nearly certain; and than any that is named."""

_LEAST = {1: -5.5, 2: -10.5}
"""Logarithm of the likelihood of a letter, by its bytes, below which a text is none of the language."""

_RUSSIAN = "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъё"
_EUROPE = {
    "cp1252 mac_roman cp850": (
        ("’“”–—‘…£é", "the and of to in is that for it with not"),
        ("üäößÜÖÄ", "der die und das ist nicht ein mit für von den auf zu im"),
        ("éèàêçùôîâûœëïÉÈÀÊÇ", "le la les des est une et du que pour dans à au en"),
        ("óíáñéúü¿¡ÁÓÉÍÚÑ", "el los las que es una por con del para se no en y"),
        ("ãçáéíóõêâàúôÁÉÓÇ", "os que não uma por com do da para em se dos um"),
        ("åäöøæéÅÄÖØÆ", "och att det som en på är i og er til av ikke den med"),
        ("àèéìòùÈÀ", "il che di e la per non una con del è in sono"),
    ),
    "cp1250 iso8859_2": (
        ("łąęóżśćńźŁŚŻĆ", "nie się na jest do to że w z o jak po"),
        ("íáéěčřšžýůúťďňóľôäŠČŘŽÚÁ", "na je se že to v a si do s ve jsou sa"),
        ("áéőöóüúíűÁÉÖÓŐÚÜ", "a az és nem hogy egy is van meg ez"),
        ("ăâîşţĂÎŞŢ", "de la şi în a cu nu este pe din"),
        ("čšžćđČŠŽĆĐ", "je i u se na da za su od ne"),
    ),
    "cp1254": (("ıüşğçöİÜŞÇÖ", "ve bir bu için ile da de ne olarak çok"),),
    "cp1257": (
        ("ėšžųąįčęūŠŽČ", "ir yra kad su į iš ne tai"),
        ("āīšēžņļūčķģĀŠ", "un ir ar no uz kas par ka"),
    ),
    "cp1251 koi8_r cp866 iso8859_5 mac_cyrillic": ((_RUSSIAN, ""),),
    "cp1251 koi8_u": (("оанивертслкдімпузяьбгйчхцїєюжшщґф", ""),),
    "cp1253": (("αοιετσνηυρπκμλωςδίόάγέήχθφύώβξζψΑΕΤΠΟΣΚΜΝΗ", ""),),
    "cp1255": (("יוהלאמתרבשנדקחפסכגטצזעםןףץך", ""),),
    "cp1256": (("اليمنترووبهدعسفكقحةجشصخطذءىضغزثظأإئ،؟", ""),),
    "cp874": (("านรอกเงมยลวดทส่้ัิีตหปคบะขไแชพโจถผซูุึืใ", ""),),
}
_RARE = {
    "iso8859_2": 2,
    "koi8_u": 2,
    "cp866": 3,
    "cp850": 4,
    "iso8859_5": 4,
    "mac_cyrillic": 6,
    "mac_roman": 5,
}
"""Logarithm of how much rarer than the others files in an encoding are."""

_PRINT = frozenset("„“”‘’–—…«»€§°£©®·×±½²³№\xa0•")
_MIXED = re.compile(r"(?<=[^\W\d_A-Z])[^\W\d_a-z](?<=[A-ZÀ-ÖØ-ÞА-ЯЁΑ-ΩŠŽŒ])(?=[^\W\d_])")
"""A capital behind a letter that is none, as in no word."""

_JOINED = re.compile("[A-Za-z](?=[\u0370-\u0fff])|[\u0370-\u0fff](?=[A-Za-z])")
"""Letters of two scripts in a word, as a word of Latin letters has them where it is read as another."""

_LONG_RUN = re.compile(r"[^\x00-\x7f„“”‘’–—…«»€§°£\xa0\s]{4,}")
_WORD = re.compile(r"[^\W\d_]+")


class _Asian(NamedTuple):
    """An encoding of two bytes a letter. base : the one whose first bytes say how usual a sign is."""

    base: str
    first: tuple[int, int]
    kana: float
    usual: int


_ASIA = {
    "cp932": _Asian("euc_jp", (0xB0, 0xCF), 0.5, 2965),
    "euc_jp": _Asian("euc_jp", (0xB0, 0xCF), 0.5, 2965),
    "gb18030": _Asian("gb2312", (0xB0, 0xD7), 0.0, 3755),
    "big5": _Asian("big5", (0xA4, 0xC6), 0.0, 5401),
    "cp949": _Asian("euc_kr", (0xB0, 0xC8), 0.0, 2350),
}


def likely(data: bytes) -> tuple[str, ...]:
    """The encodings that `data` is likely in, likeliest first: one where that is nearly certain, and three at
    most; none where it cannot be told, or where it is no text."""
    for mark, name in BOMS:
        if data.startswith(mark):
            return (name,)
    return _of_sample(data[:_LOOKED_AT])


@lru_cache(maxsize=4)  # it is asked again for each sentence of an error
def _of_sample(sample: bytes) -> tuple[str, ...]:
    if b"\0" in sample:
        return _utf16(sample)
    if b"\x1b$" in sample and max(sample) < 0x80:
        return () if _decoded(sample, "iso2022_jp") is None else ("iso2022_jp",)
    if is_binary(sample.decode("latin-1")):
        return ()
    if _decoded(sample, "utf-8") is not None:
        return ("utf-8",)
    found: dict[str, tuple[float, str]] = {}  # by the text, which several encodings may make
    for names, languages in _EUROPE.items():
        for name in names.split():
            for letters, words in languages:
                _take(found, name, sample, _european(sample, name, letters, words))
    for name, kind in _ASIA.items():
        _take(found, name, sample, _asian(sample, name, kind))
    order = sorted(found.values(), reverse=True)
    if not order:
        return ()
    near = [name for score, name in order if order[0][0] - score < _CERTAIN]
    if len(near) > 1:
        near = [name for score, name in order if order[0][0] - score < _POSSIBLE]
    return tuple(dict.fromkeys(near))[:_MOST_NAMED]


def guess(data: bytes) -> str | None:
    """The encoding that `data`, which is not UTF-8, is nearly certainly in."""
    found = likely(data)
    return found[0] if len(found) == 1 else None


def looks_binary(data: bytes) -> bool:
    """Whether `data`, which is not UTF-8, has more of what no text has than a text may."""
    sample = data[:_LOOKED_AT]
    if likely(data):
        return False
    text = sample.decode("cp1252", "replace")
    plain = sum(1 for char in text if char.isalnum() or char.isspace() or " " <= char <= "~")
    return is_binary(text) or plain < 0.5 * len(text)


def is_binary(text: str) -> bool:
    """Whether a text has NULs or more control characters than a text may."""
    if "\0" in text:
        return True
    sample = text[:_LOOKED_AT]
    controls = sum(1 for char in sample if char < " " and char not in _TEXT_CONTROLS)
    return controls > _MOST_CONTROLS * len(sample)


def _take(found: dict[str, tuple[float, str]], name: str, sample: bytes, score: float | None) -> None:
    if score is not None:
        text = _decoded(sample, name) or ""
        score -= _RARE.get(name, 0)
        if text not in found or found[text][0] < score:
            found[text] = score, name


def _european(sample: bytes, name: str, letters: str, words: str) -> float | None:
    """How likely `sample` is in an encoding and a language of these letters, as a logarithm; None where it is
    not. words : frequent ones of a language that is written in Latin letters."""
    text = _decoded(sample, name)
    if text is None:
        return None
    counts = Counter(char for char in text if char > "\x7f")
    many = sum(counts.values())
    scale = max(len(letters) / 3, 3.0)
    weights = {char: math.exp(-rank / scale) for rank, char in enumerate(letters)}
    if name in ("cp1251", "koi8_r", "koi8_u", "cp866", "iso8859_5", "mac_cyrillic"):
        weights |= {char.upper(): weights[char] / 20 for char in letters if char == char.lower()}
    total = sum(weights.values())
    chances = {char: 0.93 * weight / total for char, weight in weights.items()}
    chances = dict.fromkeys(_PRINT, 0.05 / len(_PRINT)) | chances
    score = sum(count * math.log(chances.get(char, 0.0001)) for char, count in counts.items())
    if score < _LEAST[1] * many:
        return None
    score -= 5.0 * len(_MIXED.findall(text))
    if words:
        known = frozenset(words.split())
        score -= 3.0 * sum(len(run) - 3 for run in _LONG_RUN.findall(text))
        score += min(sum(word in known for word in _WORD.findall(text.lower())), 20)
    else:
        score -= 4.0 * len(_JOINED.findall(text))
    return score if score > 2 * _LEAST[1] * many else None


def _asian(sample: bytes, name: str, kind: _Asian) -> float | None:
    """How likely `sample` is in an encoding of two bytes a letter, as `_european` says it."""
    text = _decoded(sample, name)
    if text is None:
        return None
    counts = Counter(char for char in text if char > "\x7f")
    score = 0.0
    for char, count in counts.items():
        if "\u3040" <= char <= "\u30ff":
            chance = kind.kana / 170 or 1e-7
        elif "\u3000" <= char <= "\u303f" or "\uff01" <= char <= "\uff5e":
            chance = 0.05 / 60
        else:
            lead = (char.encode(kind.base, "ignore") or b"\0")[0]
            is_usual = kind.first[0] <= lead <= kind.first[1]
            chance = (0.95 - kind.kana) / kind.usual if is_usual else 1e-6
        score += count * math.log(chance)
    many = sum(counts.values())
    if score < _LEAST[2] * many:
        return None
    # Second bytes of ASCII are letters that the other encodings leave for themselves.
    taken = sum(1 for byte in sample if byte < 0x80) - sum(1 for char in text if char < "\x80")
    return score + 3.4 * taken


def _utf16(sample: bytes) -> tuple[str, ...]:
    """UTF-16 without a mark, of Western text: every other byte is zero."""
    even = sample[: len(sample) // 2 * 2]
    if len(even) < 4:
        return ()
    zeros = even[0::2].count(0), even[1::2].count(0)
    name = "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    text = _decoded(even, name)
    if text is None or is_binary(text) or max(zeros) < 0.3 * (len(even) // 2):
        return ()
    plain = sum(1 for char in text if char.isalnum() or char.isspace() or " " <= char <= "~")
    return (name,) if plain >= 0.5 * len(text) else ()


def _decoded(sample: bytes, name: str) -> str | None:
    """`sample` decoded, forgiving only a character that its end cuts."""
    decoder = codecs.getincrementaldecoder(name)()
    try:
        return decoder.decode(sample)
    except UnicodeDecodeError:
        return None
