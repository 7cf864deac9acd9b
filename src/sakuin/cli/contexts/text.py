"""`sakuin contexts text`: the documents of a stored context, as they were read."""

from __future__ import annotations

from sakuin.cli.documents import show_documents
from sakuin.cli.errors import reports_errors
from sakuin.cli.options import Folder, Json, Name
from sakuin.cli.show import tell


def text(name: Name, library: Folder = None, json: Json = False) -> None:
    """Show the text of a context's documents as it was read, with what was noted of them.

    With --json each document is an object of name, text, marks (where headings and pages begin) and notes.
    """
    with reports_errors():
        from sakuin import Library

        found = Library(library).documents(name)
        for note in (note for document in found for note in document.notes):
            tell(note)
        show_documents(found, json)
