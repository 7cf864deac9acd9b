"""What was said in a conversation, read back from its tokens: a context keeps no text of it."""

from __future__ import annotations

from collections.abc import Sequence

from sakuin.prompts.reading import Reading
from sakuin.prompts.template import Prompt


def turns(prompt: Prompt, reading: Reading) -> list[tuple[str, str]]:
    """Questions and answers that came after the documents, the oldest first."""
    of_text = [end > start for start, end in zip(reading.starts, reading.ends, strict=True)]
    after = len(of_text) - of_text[::-1].index(True) if True in of_text else 0
    ids = reading.ids[after:]
    if ids[: len(prompt.head)] == prompt.head:
        ids = ids[len(prompt.head) :]
    if prompt.one_line:
        return _of_lines(prompt, prompt.decode(ids))
    opening = prompt.vocabulary.special(prompt.after)
    found = []
    for turn in _parted(ids, prompt.between):
        asked, *said = _parted(turn, opening)
        if said:
            found.append((prompt.decode(asked).strip(), prompt.decode(said[0]).strip()))
    return found


def _of_lines(prompt: Prompt, text: str) -> list[tuple[str, str]]:
    found = []
    for turn in text.split(prompt.before.strip() + " ")[1:]:
        asked, _, said = turn.partition(prompt.after)
        found.append((asked.strip(), said.strip()))
    return found


def _parted(ids: Sequence[int], by: Sequence[int]) -> list[list[int]]:
    """The pieces of `ids` between those that are `by`."""
    pieces, at = [list[int]()], 0
    while at < len(ids):
        if by and list(ids[at : at + len(by)]) == list(by):
            pieces.append([])
            at += len(by)
        else:
            pieces[-1].append(ids[at])
            at += 1
    return pieces
