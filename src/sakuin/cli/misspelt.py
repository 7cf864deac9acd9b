"""Names of files that are not there: which was probably meant."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

from sakuin.errors import SakuinError
from sakuin.quantities import nearest
from sakuin.storage.paths import expanded, is_address, is_file, is_folder, shortened

_MOST = 10_000
"""Names of a folder that are looked through."""
_PATTERN = frozenset("*?[")


def is_there(word: str) -> bool:
    """Whether a word names something that can be read, or is at least an address."""
    return word == "-" or is_file(word) or is_folder(word) or is_address(word)


def check_names(paths: list[str]) -> None:
    """Raise `SakuinError` where a file is not there and one of nearly that name is. All else is left to
    whoever reads them."""
    for path in paths:
        if near := near_file(path):
            raise SakuinError(f"there is no file {shortened(path)}{near}; check the path.")


def near_file(path: str) -> str:
    """The name that was probably meant by the path of a file that is not there, as " (did you mean …?)"; ""
    where it is there, or no other is like it."""
    if is_there(path) or not path.strip() or _PATTERN & set(path) or os.path.lexists(expanded(path)):
        return ""
    wrong = Path(path)
    while not is_folder(folder := expanded(wrong.parent)):
        if wrong.parent == wrong:
            return ""
        wrong = wrong.parent
    try:
        with os.scandir(folder) as found:
            names = sorted(entry.name for entry in islice(found, _MOST) if not entry.name.startswith("."))
    except (OSError, ValueError):
        return ""
    # By what stands before the suffix, which many share; of several the one with the same suffix.
    names.sort(key=lambda name: Path(name).suffix.casefold() == wrong.suffix.casefold())
    stems = {Path(name).stem.casefold(): name for name in names}
    stem = nearest(wrong.stem, stems)
    if stem is None:
        return ""
    near = wrong.parent / stems[stem]
    whole = near / Path(path).relative_to(wrong)
    return f" (did you mean {whole if whole.exists() else near}?)"
