"""Forgotten quotes: a question that the shell has taken apart into words."""

from __future__ import annotations

import re
import shlex

from sakuin.errors import SakuinError
from sakuin.storage.paths import is_address, is_file, is_folder, shortened

_MOST = 300
"""Characters of a command line that an error shows."""
_LIKE_A_FILE = re.compile(r"[/\\*\[]|\.\w{1,5}\Z|\A-\Z")


def check_quotes(words: list[str], command: str) -> None:
    """Refuse files that are followed by a question of several words; the sentence shows the line as it was
    meant.

    words : files and the question, as `ask` has them.
    """
    first = next((at for at, word in enumerate(words) if not _is_file(word)), len(words))
    question = words[first:]
    if not first or len(question) < 2 or any(map(_is_file, question)) or _LIKE_A_FILE.search(question[0]):
        return
    raise SakuinError(
        f"there is no file {shortened(question[0])}: {unquoted(question, [command, *words[:first]])}"
    )


def unquoted(question: list[str], before: list[str]) -> SakuinError:
    """What to say of a question without quotes, after the words `before` it."""
    meant = " ".join(question)
    quoted = f'"{meant}"' if not re.search(r'["$`\\!]', meant) else shlex.quote(meant)
    line = " ".join([before[0], *map(shlex.quote, before[1:]), quoted])
    line = line if len(line) <= _MOST else f"{line[:_MOST]}…"
    return SakuinError(f"a question of several words has to stand in quotes, `{line}`.")


def _is_file(word: str) -> bool:
    return word == "-" or is_file(word) or is_folder(word) or is_address(word)
