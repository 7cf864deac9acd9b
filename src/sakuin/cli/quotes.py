"""Forgotten quotes: a question that the shell has taken apart into words."""

from __future__ import annotations

import re
import shlex

from sakuin.cli.misspelt import is_there, near_file
from sakuin.errors import SakuinError
from sakuin.storage.paths import shortened

_MOST = 300
"""Characters of a command line that an error shows."""
_LONG = 80
_LIKE_A_FILE = re.compile(r"[/\\*\[]|\.\w{1,5}\Z|\A-\Z")


def check_quotes(words: list[str], command: str) -> None:
    """Refuse files that are followed by a question of several words; the sentence shows the line as it was
    meant.

    words : files and the question, as `ask` has them.
    """
    first = next((at for at, word in enumerate(words) if not _names_a_file(word)), len(words))
    if not first and near_file(words[0]):
        first = 1
    files, question = words[:first], words[first:]
    if len(question) < 2 or any(map(is_there, question)):
        return
    if not files:
        meant = unquoted(words, [command, "FILE"])
        raise SakuinError(f"there is no file {shortened(words[0])}: name a file first, and {meant}")
    meant = unquoted(question, [command, *files])
    missing = next((file for file in files if not is_there(file)), None)
    if missing is None:
        raise SakuinError(f"there is no file {shortened(question[0])}: {meant}")
    raise SakuinError(f"there is no file {shortened(missing)}{near_file(missing)}, and {meant}")


def unquoted(question: list[str], before: list[str]) -> SakuinError:
    """What to say of a question without quotes, after the words `before` it."""
    # What was one word for the shell stood in quotes already, and is not printed whole again.
    meant = " ".join(word if len(word) <= _LONG else f"{word[: _LONG // 2]}…" for word in question)
    quoted = f'"{meant}"' if not re.search(r'["$`\\!]', meant) else shlex.quote(meant)
    line = " ".join([before[0], *map(shlex.quote, before[1:]), quoted])
    line = line if len(line) <= _MOST else f"{line[:_MOST]}…"
    return SakuinError(f"a question of several words has to stand in quotes, `{line}`.")


def _names_a_file(word: str) -> bool:
    return is_there(word) or _LIKE_A_FILE.search(word) is not None
