"""What is said where a file needs a library that the core install does not bring."""

from __future__ import annotations

from importlib.util import find_spec

from sakuin.documents.kinds import Kind
from sakuin.errors import SakuinError

_NEEDS: dict[Kind, tuple[str, tuple[str, ...]]] = {
    "pdf": ("a PDF", ("pypdfium2",)),
    "word": ("a Word document", ("lxml",)),
    "sheets": ("a workbook", ("python_calamine", "lxml")),
    "mail": ("an e-mail", ("bs4", "markdownify", "lxml")),
    "html": ("HTML", ("bs4", "markdownify", "lxml")),
}


def check(kind: Kind, name: str) -> None:
    """Raise `SakuinError` where a module that reading the file `name` takes is not installed."""
    called, modules = _NEEDS.get(kind, ("", ()))
    if any(find_spec(module) is None for module in modules):
        raise SakuinError(
            f"{name} is {called}, and reading it takes an extra: pip install 'sakuin[documents]'."
        )
