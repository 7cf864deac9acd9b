"""Which part files of a library were computed here: each of them has an authentication code, made with a key
that never leaves the library. docs/format.md has the form.

A part's name follows from a text and a model that others may have too, so a name does not say who computed
the numbers. What came by `import` has no code, and is of use to the context that it came with alone.
Called by `sakuin.library.folder`; needs no torch.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from sakuin.errors import SakuinError
from sakuin.storage.folders import sync_folder
from sakuin.storage.small_files import read_small
from sakuin.storage.whole_files import unwritable, write_whole

_KEY_BYTES = 32
_ABOUT = b"sakuin part 1\0"
_MOST = 1 << 30
"""Bytes of the codes: of six million files."""


class FileCodes:
    """The codes of the library in the folder `path`: `key` has the key, `codes` a line for each file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._key_file, self._file = path / "key", path / "codes"
        self._read: tuple[tuple[int, int, int], dict[str, str]] | None = None
        self._key: bytes | None = None

    @property
    def has_key(self) -> bool:
        return self._key_file.exists()

    def begin(self, there: Iterable[str]) -> None:
        """Make the key, where there is none. The caller holds the library's lock.

        there : the files of a library from before it had a key. They count as computed here, since nobody
            knows better. Where there are codes, the key was lost, and no file counts so any more.
        """
        old = not self._file.exists()
        write_whole(self._key_file, secrets.token_bytes(_KEY_BYTES))
        self._key = None
        if old:
            write_whole(self._file, self._lines(sorted(there)))

    def knows(self, file: str) -> bool:
        """Whether the file of this name was computed here, or came from where the user trusts; of a library
        that has no key yet all were."""
        codes = self._codes()
        if codes is None:
            return True
        said = codes.get(file)
        return said is not None and hmac.compare_digest(said.encode(), self._code(file).encode())

    def add(self, files: Sequence[str]) -> None:
        """Note that the files of these names were computed here. The caller holds the library's lock."""
        new = [file for file in files if not self.knows(file)]
        if not new:
            return
        made = not self._file.exists()
        try:
            handle = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "ab") as file:
                if made:
                    os.fchmod(handle, 0o600)
                # What a process that was killed began is a line of its own, which says nothing.
                file.write(b"\n" + self._lines(new))
                file.flush()
                os.fsync(handle)
        except OSError as error:
            raise unwritable(self.path, error) from error
        if made:
            sync_folder(self.path)

    def forget(self, there: Collection[str]) -> None:
        """Let go of the codes of files that are gone, where they have become many. The caller holds the
        library's lock."""
        held = self._codes() or {}
        staying = [file for file in held if file in there]
        if len(held) > 2 * len(staying) + 64:
            write_whole(self._file, "".join(f"{file} {held[file]}\n" for file in staying).encode())

    def _lines(self, files: Iterable[str]) -> bytes:
        return "".join(f"{file} {self._code(file)}\n" for file in files).encode()

    def _code(self, file: str) -> str:
        """The code of a file, whose name holds the hash of its content."""
        if self._key is None:
            try:
                key = read_small(self._key_file)
            except FileNotFoundError:
                return secrets.token_hex(_KEY_BYTES)  # nothing was made with a key that is not there
            except OSError as error:
                raise SakuinError(f"{self._key_file} cannot be read: {error.strerror or error}.") from None
            if len(key) != _KEY_BYTES:
                raise SakuinError(
                    f"{self._key_file} has {len(key)} bytes where {_KEY_BYTES} were written: restore it, or "
                    "remove it; then what is stored is not shared with new contexts any more."
                )
            self._key = key
        return hmac.new(self._key, _ABOUT + file.encode(), hashlib.sha256).hexdigest()

    def _codes(self) -> dict[str, str] | None:
        try:
            about = self._file.stat()
            mark = about.st_ino, about.st_mtime_ns, about.st_size
            if self._read is None or self._read[0] != mark:
                lines = read_small(self._file, _MOST).decode("ascii", "replace").splitlines()
                pairs = (line.split(" ") for line in lines)
                self._read = mark, {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
            return self._read[1]
        except FileNotFoundError:
            return {} if self.has_key else None
        except OSError as error:
            raise SakuinError(f"{self._file} cannot be read: {error.strerror or error}.") from None
