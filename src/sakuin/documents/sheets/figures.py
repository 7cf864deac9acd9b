"""Numbers in the cells of sheets, with their unit and all their figures."""

from __future__ import annotations

import datetime
import math
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

_CURRENCY = re.compile(r"\[\$([^\]-]*)[^\]]*\]")
_ASIDE = re.compile(r"\[[^\]]*\]|[_*].")
_CONDITION = re.compile(r"\[(<=|>=|<>|<|>|=)\s*(-?\d+(?:\.\d+)?)\]")
_DURATION = re.compile(r"\[(?:h+|m+|s+)\]", re.I)
_SECTION = re.compile(r'((?:"[^"]*"|\\.|\[[^\]]*\]|[^;])*)(?:;|$)')
_PIECE = re.compile(r'"[^"]*"|\\.|General|E[+-][0#?]+|.', re.I | re.S)
_SIGNS = re.compile(r"^[-−(]|[-−)]$")
_LONGEST_UNIT = 12
_LONGEST_FORMAT = 255

_BUILT_IN = {
    9: "0%",
    10: "0.00%",
    45: "mm:ss",
    46: "[h]:mm:ss",
    47: "mm:ss.0",
}
"""Formats that every workbook has without saying so, as far as they change what a number means."""

_COMPARED: dict[str, Callable[[float, float], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "=": lambda a, b: a == b,
    "<>": lambda a, b: a != b,
}


@dataclass(frozen=True)
class Section:
    """How some of the numbers are shown: by which power of ten they are scaled, with how many digits before
    the point at least, with what before and after them. pattern : the places of digits (0) with the signs
    between them, as of 000-00-0000; "" where there are none. words : what is shown in their place."""

    power: int = 0
    least: int = 1
    before: str = ""
    after: str = ""
    pattern: str = ""
    words: str = ""
    condition: tuple[str, float] | None = None


@dataclass(frozen=True)
class Format:
    """How numbers are shown: the section for most, for negative ones and for nought. seconds : whether a
    length of time is shown with its seconds."""

    sections: tuple[Section, ...] = ()
    seconds: bool = True


PERCENT = Format((Section(2, after="%"),))


def parsed(number: int, code: str) -> Format | None:
    """The format of this number or code; None where it changes nothing that is written."""
    code = code or _BUILT_IN.get(number, "")
    if not code or len(code) > _LONGEST_FORMAT:
        return None
    if _DURATION.search(code):
        return Format(seconds="s" in _bare(code).lower())
    sections = tuple(_section(each) for each in _SECTION.findall(code)[:4] if each or ";" in code)[:3]
    changed = any(section not in (None, Section()) for section in sections)
    return Format(tuple(each or Section() for each in sections)) if changed else None


def written(value: float, form: Format | None) -> str:
    """A number as its format has it: scaled and with its unit, but with all its figures."""
    section = _section_for(value, form.sections) if form else Section()
    if section.words:
        return f"{section.words} ({figure(value)})"
    if not math.isfinite(value):
        return figure(value)
    if section.pattern and value == int(value):
        said = _in_pattern(section.pattern, str(abs(int(value))))
    else:
        said = _padded(_scaled(abs(value), section.power), section.least)
    return f"{'-' if value < 0 else ''}{section.before}{said}{section.after}"


def length(value: datetime.timedelta, form: Format | None) -> str:
    """A length of time in hours, minutes and seconds: 30:00 are thirty hours."""
    total = value.total_seconds()
    rest, parts = divmod(round(abs(total) * 1000), 1000)
    hours, seconds = divmod(rest, 3600)
    said = f"{'-' if total < 0 else ''}{hours}:{seconds // 60:02}"
    if (form is None or form.seconds) or seconds % 60 or parts:
        said += f":{seconds % 60:02}" + (f".{parts:03}" if parts else "")
    return said


def figure(value: float) -> str:
    """A number without what binary fractions add to it: 0.3, not 0.30000000000000004."""
    if math.isfinite(value) and value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.15g}"


def around(shown: str, value: float) -> Section | None:
    """What stands around a number as it was shown; None where that is no such number, as where it is scaled.

    A number may be shown rounded, and with the commas of any country.
    """
    found = re.fullmatch(r"([^\d]*?)[-−(]?(\d(?:[\d.,'’  ]*\d)?)\)?([^\d]*)", shown.strip())
    if not found or not math.isfinite(value):
        return None
    digits = re.sub(r"\D", "", found[2])
    after_sign = len(digits) - len(re.sub(r"\D", "", re.split(r"[.,]", found[2])[0]))
    last = len(re.split(r"[.,]", found[2])[-1]) if re.search(r"[.,]", found[2]) else 0
    for decimals in {0, last, after_sign}:
        if digits.lstrip("0") == re.sub(r"\D", "", f"{abs(value):.{decimals}f}").lstrip("0"):
            before = re.sub(r"[-−(]", "", found[1]).lstrip()
            after = found[3].rstrip()
            if len(before) > _LONGEST_UNIT or len(after) > _LONGEST_UNIT:
                return None
            least = len(digits) - decimals if digits.startswith("0") else 1
            return Section(least=max(least, 1), before=before, after=after)
    return None


def _bare(code: str) -> str:
    return re.sub(r'"[^"]*"|\\.', "", code)


def _section(code: str) -> Section | None:
    """One section of a format; None where it is that of a date or a text, or hides the number."""
    condition = _CONDITION.search(code)
    code = _ASIDE.sub("", _CURRENCY.sub(lambda found: f'"{found[1]}"', code))
    body, signs, places = "", ["", "", ""], False  # before the digits, between them, after them
    pattern = ""
    for piece in _PIECE.findall(code):
        if piece in "0#?" or piece.lower() == "general":
            if signs[2]:
                signs[1] += signs[2]
                pattern, signs[2] = pattern + signs[2], ""
            places, body, pattern = True, body + piece[0], pattern + "0"
        elif piece[0] in "Ee" and len(piece) > 1:
            body += "E"
        elif piece in ".,/":
            body += piece
        elif sign := _sign(piece):
            signs[2 if places else 0] += sign
        elif piece.lower() in "dmyhs" or piece == "@":
            return None  # a date, or a text
    least = body.partition(".")[0].count("0")
    power = 2 * _bare(code).count("%")
    if not re.search("[E/]", body):
        power -= 3 * sum(len(commas) for commas in re.findall(r",+(?=\.|$)", body))
    before, after = _unit(signs[0].lstrip()), _unit(signs[2].rstrip())
    at = (condition[1], float(condition[2])) if condition else None
    if not places:
        words = signs[0].strip()
        said = words if any(char.isalnum() for char in words) and len(words) <= _LONGEST_UNIT else ""
        return Section(words=said, condition=at)
    if len(before) > _LONGEST_UNIT or len(after) > _LONGEST_UNIT:
        # A unit that is a sentence is none. What is scaled for it stands as it is.
        return Section(power if "%" in _bare(code) else 0, after="%" * (power > 0), condition=at)
    laid = pattern if signs[1] and not re.search("[./E]", body) and len(signs[1]) <= _LONGEST_UNIT else ""
    before = signs[0].lstrip() if laid else before  # the parenthesis of (000) 000-0000 is no minus
    return Section(power, max(least, 1) if "/" not in body else 1, before, after, laid, condition=at)


def _sign(piece: str) -> str:
    """What a piece of a format shows as it stands; "" where it has another meaning."""
    if piece[0] == '"' and len(piece) > 1:
        return piece[1:-1]
    if piece[0] == "\\":
        return piece[1:]
    if piece in "$-+()%:!^&'~{}<>= " or (not piece.isascii() and unicodedata.category(piece) != "Cc"):
        return piece
    if piece.isalpha() and piece.lower() not in "dmyhsbeg":  # what is not of a date: 0.0 K
        return piece
    return ""


def _unit(signs: str) -> str:
    """Signs around a number without those of negative ones, which each negative number has anyhow."""
    return _SIGNS.sub("", signs.strip()) if signs.strip() in ("-", "−", "(", ")") else _SIGNS.sub("", signs)


def _section_for(value: float, sections: tuple[Section, ...]) -> Section:
    if any(section.condition for section in sections):
        for section in sections:
            if section.condition is None or _COMPARED[section.condition[0]](value, section.condition[1]):
                return section
        return Section()
    if value < 0 and len(sections) > 1:
        return sections[1]
    if value == 0 and len(sections) > 2:
        # Nought is often a dash there: its unit is that of the others.
        return sections[2] if sections[2].words or sections[2].after else sections[0]
    return sections[0] if sections else Section()


def _scaled(value: float, power: int) -> str:
    return figure(value * 10**power if power >= 0 else value / 10**-power)


def _padded(said: str, least: int) -> str:
    whole, point, rest = said.partition(".")
    return said if "e" in said else whole.zfill(least) + point + rest


def _in_pattern(pattern: str, digits: str) -> str:
    """Digits laid from the right into the places of a pattern; those left over stand before it."""
    digits = digits.zfill(pattern.count("0"))
    extra = len(digits) - pattern.count("0")
    rest = iter(digits[extra:])
    return digits[:extra] + "".join(next(rest) if char == "0" else char for char in pattern)
