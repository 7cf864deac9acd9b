"""Raw WordprocessingML: what python-docx does not write."""

from __future__ import annotations

ABOVE = "<w:vertAlign w:val='superscript'/>"
BELOW = "<w:vertAlign w:val='subscript'/>"


def text(run: str, look: str = "") -> str:
    return f"<w:r><w:rPr>{look}</w:rPr><w:t xml:space='preserve'>{run}</w:t></w:r>"


def paragraph(inner: str, properties: str = "") -> str:
    return f"<w:p><w:pPr>{properties}</w:pPr>{inner}</w:p>"


def field(code: str, result: str | None = None, data: str = "") -> str:
    between = "" if result is None else f"<w:r><w:fldChar w:fldCharType='separate'/></w:r>{text(result)}"
    return (
        f"<w:r><w:fldChar w:fldCharType='begin'>{data}</w:fldChar></w:r>"
        f"<w:r><w:instrText>{code}</w:instrText>"
        f"</w:r>{between}<w:r><w:fldChar w:fldCharType='end'/></w:r>"
    )


def box(checked: str) -> str:
    return (
        f"<w:sdt><w:sdtPr><w14:checkbox>{checked}</w14:checkbox></w:sdtPr><w:sdtContent>{text('?')}"
        "</w:sdtContent></w:sdt>"
    )


def cell(inner: str, properties: str = "") -> str:
    return (
        f"<w:tc><w:tcPr>{properties}</w:tcPr>{inner if inner[:2] == '<w' else paragraph(text(inner))}</w:tc>"
    )


def table(*rows: str) -> str:
    return f"<w:tbl>{''.join(f'<w:tr>{row}</w:tr>' for row in rows)}</w:tbl>"


def equation(inner: str) -> str:
    return f"<m:oMath>{inner}</m:oMath>"


def m(letters: str) -> str:
    return f"<m:r><m:t>{letters}</m:t></m:r>"


def level(at: int, form: str, pattern: str, more: str = "") -> str:
    form = f"<w:start w:val='1'/><w:numFmt w:val='{form}'/>{more}"
    return f"<w:lvl w:ilvl='{at}'>{form}<w:lvlText w:val='{pattern}'/></w:lvl>"


def item(which: int, at: int, words: str) -> str:
    return paragraph(text(words), f"<w:numPr><w:ilvl w:val='{at}'/><w:numId w:val='{which}'/></w:numPr>")
