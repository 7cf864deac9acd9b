"""Named contexts in a folder: `folder` is where things are, `library` what can be done with them, `adding` an
add on its way, `tidying` what goes when, `archive` one context in one file."""

from sakuin.library.library import Entry, Library
from sakuin.library.sweeping import Swept

__all__ = ["Entry", "Library", "Swept"]
