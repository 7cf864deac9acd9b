"""Reading documents as people have them: text, Markdown, HTML, PDF, Word, CSV, Excel, e-mails, folders.

`read` tells by the content what a file is, and has its text laid out: by the room for its kind (`pdf`,
`html`, `word`, `mail`, `sheets`, which has CSV too), entered by its `file`, or by `text`. All but plain text
is laid out in a process of its own (`apart`, `child`). `read_all` does so with folders and patterns too
(`folders`). What they find comes back as a `Document`, with the page and the heading of every passage, and
with notes on what the file holds that is not in its text. All but plain text and CSV need the extra
`documents`. Called by `sakuin.context.context` and by the command line.
"""

from sakuin.documents.document import Document, Mark
from sakuin.documents.folders import read_all
from sakuin.documents.reading import read
from sakuin.documents.text import decode

__all__ = ["Document", "Mark", "decode", "read", "read_all"]
