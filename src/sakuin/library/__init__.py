"""Named contexts in a folder: `library` is what can be done with them, `folder` where things are.

`adding` reads a new one, and `prefix` finds what is stored of its beginning; `opening` and `keeping` go from
files to a context and back, `model` loads the model that a context was read with; `quota` makes room,
`sweeping` removes what nobody needs, `archive` puts one context into one file, `codes` knows what was
computed here.
"""

from sakuin.library.folder import Stored
from sakuin.library.library import Library
from sakuin.library.listing import Entry
from sakuin.library.sweeping import Swept

__all__ = ["Entry", "Library", "Stored", "Swept"]
