"""Numbers as lists show them: 3, iii, C, (c), third. Word and HTML name the same forms differently."""

from __future__ import annotations

_ROMAN = (
    (1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl"),
    (10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i"),
)  # fmt: skip
_MOST_ROMAN = 3999
_SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ["zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
    "twelve": "twelfth",
}  # fmt: skip
_KANJI = "〇一二三四五六七八九"
_ROWS = {
    "aiueo": "アイウエオカキクケコサシスセソタチツテトナニヌネノハヒフヘホマミムメモヤユヨラリルレロワヲン",
    "iroha": "イロハニホヘトチリヌルヲワカヨタレソツネナラムウヰノオクヤマケフコエテアサキユメミシヱヒモセス",
    "russianLower": "абвгдежзиклмнопрстуфхцчшщыэюя",
    "russianUpper": "АБВГДЕЖЗИКЛМНОПРСТУФХЦЧШЩЫЭЮЯ",
    "lower-greek": "αβγδεζηθικλμνξοπρστυφχψω",
    "ganada": "가나다라마바사아자차카타파하",
    "hebrew2": "אבגדהוזחטיכלמנסעפצקרשת",
    "chicago": "*†‡§",
    "ideographTraditional": "甲乙丙丁戊己庚辛壬癸",
    "ideographZodiac": "子丑寅卯辰巳午未申酉戌亥",
    "chosung": "ㄱㄴㄷㄹㅁㅂㅅㅇㅈㅊㅋㅌㅍㅎ",
}
_LOWER = dict.fromkeys(("upperLetter", "A", "upper-alpha", "upper-latin"), "a")
_LOWER |= dict.fromkeys(("upperRoman", "I", "upper-roman"), "i")
"""Forms in capitals, and the one in small letters that each is like."""

_ENCLOSED = {
    "decimalEnclosedCircle": 0x2460,
    "decimalEnclosedCircleChinese": 0x2460,
    "decimalEnclosedParen": 0x2474,
    "decimalEnclosedFullstop": 0x2488,
}
"""Forms of which Unicode has the first twenty numbers as signs, and the first of these."""

_DIGITS = {
    form: str.maketrans("0123456789", digits)
    for form, digits in (
        ("decimalFullWidth", "０１２３４５６７８９"),
        ("decimalFullWidth2", "０１２３４５６７８９"),
        ("ideographDigital", "〇一二三四五六七八九"),
        ("hindiNumbers", "०१२३४५६७८९"),
        ("thaiNumbers", "๐๑๒๓๔๕๖๗๘๙"),
    )
}


def written(number: int, form: str) -> str:
    """A number in one of Word's forms or of CSS's, or in one that shows its first numbers ("001, 002, …"); in
    a form that is not known it is written in digits."""
    if form == "none":
        return ""
    if "," in form:
        return _continued(number, [shown.strip() for shown in form.split(",")])
    if number > 0:
        if form in ("lowerLetter", "a", "lower-alpha", "lower-latin"):
            return (
                chr(96 + (number - 1) % 26 + 1) * ((number - 1) // 26 + 1) if number <= 780 else str(number)
            )
        if form in ("lowerRoman", "i", "lower-roman") and number <= _MOST_ROMAN:
            return _roman(number)
        if row := _ROWS.get(form.removesuffix("FullWidth")):
            return (
                row[(number - 1) % len(row)] * ((number - 1) // len(row) + 1) if number < 500 else str(number)
            )
        if form in _ENCLOSED and number <= 20:
            return chr(_ENCLOSED[form] + number - 1)
        if form in ("cardinalText", "ordinalText") and number < 1000:
            words = _words(number)
            return (words if form == "cardinalText" else _ordinal(words)).capitalize()
    if (lower := _LOWER.get(form)) is not None:
        return written(number, lower).upper()
    if form == "ordinal":
        return f"{number}{_ending(number)}"
    if form in ("decimalZero", "decimal-leading-zero"):
        return f"{number:02}"
    if form in _DIGITS:
        return str(number).translate(_DIGITS[form])
    if form == "hex":
        return f"{number:X}"
    if form in _JAPANESE and 0 < number < 10000:
        return _kanji(number)
    return f"- {number} -" if form == "numberInDash" else str(number)


_JAPANESE = (
    "japaneseCounting", "chineseCounting", "chineseCountingThousand", "taiwaneseCounting",
    "taiwaneseCountingThousand", "japaneseDigitalTenThousand", "cjk-ideographic", "cjk-decimal",
)  # fmt: skip


def _continued(number: int, shown: list[str]) -> str:
    """A number as a row of the first ones goes on: 001, 002 with zeros; beyond any other row in digits."""
    if shown[0].isascii() and shown[0].isdigit():
        return f"{number:0{min(len(shown[0]), 20)}}"
    known = 0 < number <= len(shown) and shown[number - 1].strip(".…")
    return shown[number - 1] if known else str(number)


def _roman(number: int) -> str:
    found = ""
    for worth, sign in _ROMAN:
        found += sign * (number // worth)
        number %= worth
    return found


def _ending(number: int) -> str:
    if number % 100 in (11, 12, 13):
        return "th"
    return {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")


def _words(number: int) -> str:
    if number < 20:
        return _SMALL[number]
    if number < 100:
        return _TENS[number // 10] + (f"-{_SMALL[number % 10]}" if number % 10 else "")
    return f"{_SMALL[number // 100]} hundred" + (f" {_words(number % 100)}" if number % 100 else "")


def _ordinal(words: str) -> str:
    before, _, last = words.replace("-", "- ").rpartition(" ")
    last = _ORDINALS.get(last) or (last[:-1] + "ieth" if last.endswith("y") else last + "th")
    return f"{before} {last}".replace("- ", "-").strip()


def _kanji(number: int) -> str:
    found = ""
    for worth, sign in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = number // worth
        number %= worth
        if digit:
            found += ("" if digit == 1 and sign else _KANJI[digit]) + sign
    return found
