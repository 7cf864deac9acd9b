"""From the bytes of a file whose kind is known to a document. Runs in `sakuin.documents.child`."""

from __future__ import annotations

from sakuin.documents import ligatures, text
from sakuin.documents.document import Document
from sakuin.documents.kinds import Kind
from sakuin.documents.limits import check_length


def parse(data: bytes, kind: Kind, name: str, encoding: str | None) -> Document:
    """The document in `data`, a file called `name`. Raises `SakuinError` where there is none to be read."""
    # Each kind brings libraries that take long to import, and only one kind is read.
    if kind == "pdf":
        from sakuin.documents.pdf import file as pdf

        document = pdf.read(data, name)
    elif kind == "word":
        from sakuin.documents.word import file as word

        document = word.read(data, name)
    elif kind == "html":
        from sakuin.documents.html import file as html

        document = html.read(data, name, encoding)
    elif kind == "mail":
        from sakuin.documents.mail import file as mail

        document = mail.read(data, name, encoding)
    elif kind == "csv":
        from sakuin.documents.sheets import file as sheets

        document = sheets.read_csv(data, name, encoding)
    elif kind == "sheets":
        from sakuin.documents.sheets import file as sheets

        document = sheets.read(data, name)
    else:
        document = text.read(data, name, encoding, markdown=kind == "markdown")
    if kind not in ("text", "markdown", "csv"):  # these stay as they are
        document = ligatures.opened(document)
    check_length(len(document.text), name)
    return document
