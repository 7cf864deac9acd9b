"""Where things are kept: the folders of models and of stored contexts, and what a folder must be."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from sakuin.errors import SakuinError
from sakuin.storage.paths import expanded


def cache_folder() -> Path:
    """`$SAKUIN_CACHE`, else `sakuin` in the user's cache folder (`$XDG_CACHE_HOME`, else `~/.cache`)."""
    if own := os.environ.get("SAKUIN_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "sakuin"


def default_folder() -> Path:
    """`$SAKUIN_LIBRARY`, else `sakuin/library` in the user's data folder (`$XDG_DATA_HOME`, else
    `~/.local/share`)."""
    if own := os.environ.get("SAKUIN_LIBRARY"):
        return expanded(own)
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "sakuin" / "library"


def make_folder(folder: Path) -> None:
    """Make `folder` and what is missing above it, each of mode 0700 whatever the umask; a folder that is
    there keeps its mode. A `SakuinError` where that cannot be."""
    try:
        missing, at = [], folder
        while not at.exists():
            missing.append(at)
            at = at.parent
        for one in reversed(missing):
            with contextlib.suppress(FileExistsError):  # somebody else was faster, whose it is then
                one.mkdir(mode=0o700)
                one.chmod(0o700)
        if not folder.is_dir():
            raise NotADirectoryError
    except NotADirectoryError:
        raise SakuinError(f"{folder} is a file, and a folder is needed there; name another.") from None
    except OSError as error:
        raise SakuinError(
            f"the folder {folder} cannot be made ({error.strerror or error}); name another."
        ) from None


def free_bytes(folder: Path) -> int:
    """Bytes that this user may still write to the disk that holds `folder`."""
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


def sync_folder(folder: Path) -> None:
    """Return when the folder's names are on the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
