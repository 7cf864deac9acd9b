"""Equations in one line, as one types them: `(a+b)/c`, `x^2`, `sqrt(2 g h)`, `sum_(i=1)^n i`.

Word has its own elements for them (OMML), HTML has MathML; both are read here. `script` writes what is raised
or lowered in running text too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

_PLAIN = re.compile(r"[+\-−–]?[\w.,∞′'°*†‡]+|[^\w\s]")
_ENCLOSED = re.compile(r"\[[^\[\]]*\]|\([^()]*\)|\^\S*|\[\^.*\]")
_ORDINAL = re.compile(r"(?:st|nd|rd|th|er|re|e|ère|ème|o|a|º|ª)\.?", re.I)
_TRADE = frozenset("™®©℠ºª°")
_APART = re.compile(r"[+\-−±×·*/=<>≤≥≈≠,;\s]")


def script(sign: str, text: str, before: str) -> str:
    """What is raised (`^`) or lowered (`_`) after the text `before`: 10^6, x_(i+1), and CO2, 2nd, word[1]."""
    inner = text.strip()
    if not inner or not before or before[-1:].isspace() or set(inner) <= _TRADE or _ENCLOSED.fullmatch(inner):
        return text
    if sign == "^" and before[-1:].isdigit() and _ORDINAL.fullmatch(inner):
        return text
    if sign == "_" and inner.isdigit() and before[-1:].isalpha() and not before.startswith("^"):
        return text  # as formulas are typed: H2O
    return text.replace(inner, sign + bound(inner), 1)


def bound(text: str) -> str:
    """`text` as one thing: in parentheses if it is more."""
    text = text.strip()
    return text if _PLAIN.fullmatch(text) or _is_whole(text) else f"({text})"


def fraction(above: str, below: str) -> str:
    return f"{_factor(above)}/{bound(below)}"


def root(of: str, degree: str = "") -> str:
    return f"root_{bound(degree)}({of.strip()})" if degree.strip() else f"sqrt({of.strip()})"


def limits(base: str, below: str, above: str) -> str:
    """A base with what is lowered and raised beside it, either of which may be empty."""
    below, above = below.strip(), above.strip()
    return base.strip() + (f"_{bound(below)}" if below else "") + (f"^{bound(above)}" if above else "")


def _factor(text: str) -> str:
    return (
        f"({text.strip()})" if _APART.search(text.strip()) and not _is_whole(text.strip()) else text.strip()
    )


def _is_whole(text: str) -> bool:
    """Whether `text` is one pair of parentheses with what stands in it."""
    if not (text.startswith("(") and text.endswith(")")):
        return False
    depth = 0
    for at, sign in enumerate(text):
        depth += (sign == "(") - (sign == ")")
        if not depth:
            return at == len(text) - 1
    return False


_Parts = dict[str, str]

_OMML: dict[str, Callable[[_Parts], str]] = {
    "f": lambda p: fraction(p.get("num", ""), p.get("den", "")),
    "sSup": lambda p: limits(_base(p), "", p.get("sup", "")),
    "sSub": lambda p: limits(_base(p), p.get("sub", ""), ""),
    "sSubSup": lambda p: limits(_base(p), p.get("sub", ""), p.get("sup", "")),
    "sPre": lambda p: limits("", p.get("sub", ""), p.get("sup", "")) + p.get("e", ""),
    "rad": lambda p: root(p.get("e", ""), p.get("deg", "")),
    "limLow": lambda p: limits(p.get("e", ""), p.get("lim", ""), ""),
    "limUpp": lambda p: limits(p.get("e", ""), "", p.get("lim", "")),
    "func": lambda p: (
        f"{p.get('fName', '')}{bound(p.get('e', ''))}"
        if _is_whole(p.get("e", "").strip())
        else f"{p.get('fName', '')} {p.get('e', '')}"
    ),
}
_SUMS = {"∑": "sum", "∏": "prod", "∫": "∫", "∬": "∬", "∭": "∭", "∮": "∮"}
_MARKS = {"̂": "hat", "̃": "tilde", "̄": "bar", "̅": "bar", "⃗": "vec", "̇": "dot", "̈": "ddot"}


def _base(parts: _Parts) -> str:
    return _factor(parts.get("e", ""))


def omml(element: Any) -> str:
    """An equation of Word, an element of OMML, in one line."""
    name = _local(element)
    if name == "r":
        return "".join(each.text or "" for each in element if _local(each) == "t")
    if name in ("d", "nary", "acc", "bar", "m", "eqArr"):
        return _omml_with_properties(element, name)
    if name in _OMML:
        return _OMML[name]({_local(part): omml(part) for part in element if not _local(part).endswith("Pr")})
    if name.endswith("Pr") or name in ("del", "moveFrom"):
        return ""
    if name == "oMathPara":
        return "; ".join(omml(part) for part in element if _local(part) == "oMath")
    return "".join(omml(part) for part in element)


def _omml_with_properties(element: Any, name: str) -> str:
    said = {_local(each): _value(each) for part in element if _local(part) == f"{name}Pr" for each in part}
    parts = {_local(part): omml(part) for part in element if not _local(part).endswith("Pr")}
    inner = [omml(part) for part in element if _local(part) == "e"]
    if name == "d":
        opened, closed = said.get("begChr", "("), said.get("endChr", ")")
        return opened + said.get("sepChr", "|").join(inner) + closed
    if name == "nary":
        sign = said.get("chr", "∫")
        whole = limits(_SUMS.get(sign, sign), parts.get("sub", ""), parts.get("sup", ""))
        return f"{whole} {_summed(parts.get('e', ''))}"
    if name == "acc":
        return f"{_MARKS.get(said.get('chr', '̂'), 'hat')}({parts.get('e', '')})"
    if name == "bar":
        return (
            f"bar({parts.get('e', '')})" if said.get("pos") == "top" else f"underline({parts.get('e', '')})"
        )
    if name == "m":
        rows = [[omml(cell) for cell in row if _local(cell) == "e"] for row in element if _local(row) == "mr"]
        return _matrix(rows)
    return "; ".join(line.replace("&", "") for line in inner)


def _summed(text: str) -> str:
    said = text.strip()
    return f"({said})" if re.search(r"[+\-−±=]", said) and not _is_whole(said) else said


def _matrix(rows: list[list[str]]) -> str:
    return "[" + "; ".join(", ".join(cell.strip() for cell in row) for row in rows) + "]"


def _local(element: Any) -> str:
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def _value(element: Any) -> str:
    return next((value for name, value in element.attrib.items() if name.rpartition("}")[2] == "val"), "")


def mathml(element: Any) -> str:
    """An equation of HTML, a `math` element of Beautiful Soup or what stands in one, in one line."""
    if not hasattr(element, "children"):
        return str(element).strip()
    name = element.name.rpartition(":")[2]
    if name in ("annotation", "annotation-xml"):
        return ""
    if name == "mtext":
        return str(element.get_text())
    parts = [part for part in element.children if hasattr(part, "children")]
    if name in ("mi", "mn", "mo", "ms"):
        said = element.get_text().strip()
        # What is applied or multiplied without a sign has one nobody sees.
        return f" {said} " if name == "mo" and said in _SPACED else said.translate(_UNSEEN)
    if name == "mtr" or name == "mlabeledtr":
        return ", ".join(mathml(part).strip() for part in parts)
    if name == "mtable":
        return "[" + "; ".join(mathml(part) for part in parts) + "]"
    read = [mathml(part) for part in parts]
    if name in _MATHML and len(read) == _MATHML[name][0]:
        return _MATHML[name][1](read)
    if name == "msqrt":
        return root("".join(read))
    if name == "mfenced":
        return str(element.get("open", "(") + ", ".join(read) + element.get("close", ")"))
    return "".join(mathml(part) for part in element.children)


_UNSEEN = dict.fromkeys((0x2061, 0x2062, 0x2063, 0x2064))
_SPACED = ("=", "+", "−", "-", "<", ">", "≤", "≥", "≈", "≠", "±")
_MATHML: dict[str, tuple[int, Callable[[list[str]], str]]] = {
    "mfrac": (2, lambda p: fraction(p[0], p[1])),
    "msup": (2, lambda p: limits(_factor(p[0]), "", p[1])),
    "msub": (2, lambda p: limits(_factor(p[0]), p[1], "")),
    "msubsup": (3, lambda p: limits(_factor(p[0]), p[1], p[2])),
    "munder": (2, lambda p: limits(_named(p[0]), p[1], "")),
    "mover": (2, lambda p: limits(_named(p[0]), "", p[1])),
    "munderover": (3, lambda p: limits(_named(p[0]), p[1], p[2]) + " "),
    "mroot": (2, lambda p: root(p[0], p[1])),
}


def _named(sign: str) -> str:
    return _SUMS.get(sign.strip(), sign)
