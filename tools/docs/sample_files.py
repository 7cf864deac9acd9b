"""Writes what in `examples/files/` is no plain text: contract.pdf from contract.txt, and two Word files.

Run: python tools/docs/sample_files.py, after a change here or in contract.txt. A test compares the texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from docx import Document
from places import ROOT
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.platypus import Paragraph, SimpleDocTemplate
from reportlab.rl_config import defaultPageSize

FILES = ROOT / "examples" / "files"

RULES = """
Rules for the stores of the harbour

1. Opening hours

The stores at Berth 2 and Berth 6 are open from 7:00 to 15:30 on working days. The keys lie in the harbour
office. Who takes a key signs for it and brings it back on the same day.

2. Ordering

Only the store manager may order spare parts. The store manager is Jonas Pike. While he is away, Lena Ortiz
orders in his place.

An order of more than 2,000 euros needs the signature of the head of the harbour office. Annex 1 says from
whom which parts are bought.

3. Taking parts

Each part that leaves the store is written into the store's book, with the date, the berth and a name. Parts
that are not used come back within five days.

4. Counting

The stores are counted in January and in July. What is missing is told to the harbour office in one list.
"""

ANNEX = (
    ("Part", "Bought from", "Least number in store"),
    ("Controller for a gate", "Halden Systems", "2"),
    ("Display", "Brook and Sons", "4"),
    ("Sensor for wind", "Meteor Instruments", "3"),
    ("Badge reader", "Halden Systems", "6"),
)


def laid_out(text: str) -> Iterator[tuple[str, str]]:
    """Paragraphs, each with what it is: a title (the first), a heading (the line that begins a section) or
    "", plain text."""
    for i, paragraph in enumerate(text.strip().split("\n\n")):
        kind = "title" if i == 0 else "heading" if re.match(r"\d+\. ", paragraph) else ""
        yield kind, paragraph.replace("\n", " ")


def contract(text: str, target: Path) -> None:
    styles = getSampleStyleSheet()
    named = {"title": styles["Title"], "heading": styles["Heading2"], "": styles["BodyText"]}
    flow = [Paragraph(paragraph, named[kind]) for kind, paragraph in laid_out(text)]
    SimpleDocTemplate(
        str(target), pagesize=defaultPageSize, title="Support agreement", author="", invariant=1
    ).build(flow)


def rules(target: Path) -> None:
    document = Document()
    for kind, paragraph in laid_out(RULES):
        document.add_paragraph(paragraph, style={"title": "Title", "heading": "Heading 1"}.get(kind))
    document.save(str(target))


def annex(target: Path) -> None:
    document = Document()
    document.add_paragraph("Annex 1: parts and where they are bought", style="Title")
    table = document.add_table(rows=0, cols=len(ANNEX[0]))
    for row in ANNEX:
        for cell, text in zip(table.add_row().cells, row, strict=True):
            cell.text = text
    document.save(str(target))


def main() -> None:
    contract((FILES / "contract.txt").read_text(encoding="utf-8"), FILES / "contract.pdf")
    rules(FILES / "rules.docx")
    annex(FILES / "annex.docx")


if __name__ == "__main__":
    main()
