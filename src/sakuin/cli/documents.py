"""`sakuin documents`: the text of files as it is read, before any model sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sakuin.cli.errors import reports_errors
from sakuin.cli.options import Encoding, Files, Json
from sakuin.cli.reading import documents_of
from sakuin.cli.show import Written, say, say_json

if TYPE_CHECKING:
    from sakuin.documents import Document


def documents(files: Files, encoding: Encoding = None, json: Json = False) -> None:
    """Show the text of files as it is read: what a model is given, and what evidence points at.

    What a file holds that is not in its text is said on standard error; docs/documents.md has what is kept of
    each kind, and how. With --json each document is an object of name, text, marks (where headings and pages
    begin) and notes.
    """
    with reports_errors():
        show_documents(documents_of(files, encoding), json)


def show_documents(found: Sequence[Document], json: bool) -> None:
    """Print documents, each under its name where there are several."""
    if json:
        say_json({"documents": [document.as_dict() for document in found]})
        return
    for number, document in enumerate(found):
        if number:
            say("")
        if len(found) > 1:
            say(f"==> {document.name} <==")
        written = Written()
        written(document.text.removesuffix("\n").removesuffix("\r"))
        written.end()
