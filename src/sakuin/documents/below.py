"""What lies below folders, and what a pattern matches there: each folder is looked at once.

Links lead back to where they stand, and two of them to the next folder double the ways at every step. So a
folder is known by its device and inode, not by its path; folders come before links to them, so that what is
found has the name of where it lies.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from sakuin.documents.limits import MOST_ENTRIES, MOST_FILES
from sakuin.errors import SakuinError
from sakuin.storage.paths import is_folder

ANY_FOLDERS = "**"

_Place = tuple[int, int, int]
"""A part of the pattern, and the device and inode of a folder in which it is looked for."""


@dataclass
class Below:
    """What was found for what is `called` so in errors.

    files, folders : paths that match. hidden : what was passed over for its name. links : by path, of folders
    that were not looked at again, why. shut : of those that could not be looked at, why.
    """

    called: str
    files: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    hidden: list[str] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    shut: dict[str, str] = field(default_factory=dict)
    _entries: int = 0

    def take_all(self, folders: list[str]) -> None:
        """All files below `folders`."""
        self._follow([(folder, 0) for folder in folders], [ANY_FOLDERS], note_hidden=True)

    def match(self, pattern: str) -> None:
        """What `pattern` matches as `glob.glob` has it with `recursive=True`; folders only without `**`."""
        parts = [part for part in pattern.split(os.sep) if part]
        parts = [part for at, part in enumerate(parts) if part != ANY_FOLDERS or parts[at - 1 : at] != [part]]
        start = os.sep if pattern.startswith(os.sep) else ""
        self._follow([(start, 0)], parts, note_hidden=False)
        if ANY_FOLDERS in parts:
            self.folders.clear()

    def _follow(self, work: list[tuple[str, int]], parts: list[str], note_hidden: bool) -> None:
        """Look for part after part, from each folder and the number of the part that is looked for in it."""
        seen: dict[_Place, str] = {}
        later: deque[tuple[str, int]] = deque()

        def go(path: str, at: int) -> None:
            (later.append if os.path.islink(path) else work.append)((path, at))

        work.reverse()
        work, first = [], work
        for path, at in first:
            go(path, at)
        while work or later:
            folder, at = work.pop() if work else later.popleft()
            if not self._is_new(folder, at, seen):
                continue
            part, last = parts[at], at == len(parts) - 1
            if part != ANY_FOLDERS and not glob.has_magic(part):
                path = os.path.join(folder, part)
                if not last:
                    if is_folder(path):
                        go(path, at + 1)
                elif os.path.lexists(path):
                    self._take(path)
                continue
            if part == ANY_FOLDERS and not last:
                work.append((folder, at + 1))
            fits = _fitting(part)
            for name in self._listed(folder):
                path = os.path.join(folder, name)
                if part == ANY_FOLDERS:
                    if name.startswith("."):
                        if note_hidden:
                            self.hidden.append(path)
                    elif is_folder(path):
                        go(path, at)
                    elif last:
                        self._take(path)
                elif fits(name) and (not name.startswith(".") or part.startswith(".")):
                    if last:
                        self._take(path)
                    elif is_folder(path):
                        go(path, at + 1)

    def _is_new(self, folder: str, at: int, seen: dict[_Place, str]) -> bool:
        try:
            held = os.stat(folder or os.curdir)
        except OSError as error:
            self.shut[os.path.join(folder, "")] = (error.strerror or str(error)).lower()
            return False
        first = seen.setdefault((at, held.st_dev, held.st_ino), folder)
        if first is folder:
            return True
        if first != folder and os.pardir not in folder.split(os.sep):
            around = os.path.realpath(os.path.dirname(folder))
            above = os.path.commonpath([around, real := os.path.realpath(folder)]) == real
            is_link = "is a link to a folder" if os.path.islink(folder) else "is a folder"
            self.links[folder] = f"{is_link} that it lies in" if above else f"{is_link} that is read already"
        return False

    def _listed(self, folder: str) -> list[str]:
        try:
            names = sorted(os.listdir(folder or os.curdir))
        except OSError as error:
            self.shut[os.path.join(folder, "")] = (error.strerror or str(error)).lower()
            return []
        self._entries += len(names)
        if self._entries > MOST_ENTRIES:
            raise SakuinError(
                f"{self.called} leads to more than {MOST_ENTRIES:,} files and folders to look at; name the "
                "ones that matter."
            )
        return names

    def _take(self, path: str) -> None:
        if is_folder(path):
            self.folders.add(path)
            return
        self.files.add(path)
        if len(self.files) > MOST_FILES:
            raise SakuinError(
                f"{self.called} holds more than {MOST_FILES:,} files; name the ones that matter."
            )


def _fitting(part: str) -> Callable[[str], object]:
    return re.compile(fnmatch.translate(os.path.normcase(part))).match
