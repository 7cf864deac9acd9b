"""The files of a model that is loaded. llama.cpp maps their weights, and reads them whenever it needs them: a
file that was cut short meanwhile would end the process (SIGBUS), without a word.

Called by `sakuin.backends.llama_cpp.backend` before each pass. A file that is cut short within a pass still
ends the process.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from sakuin.errors import SakuinError


class HeldFiles:
    """Files as long as they are now; what takes the place of one later is another file and does no harm."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._files = [path.open("rb") for path in paths]
        self._sizes = [os.fstat(file.fileno()).st_size for file in self._files]

    def check(self) -> None:
        """Raise `SakuinError` where one was cut short."""
        for file, size in zip(self._files, self._sizes, strict=True):
            if (now := os.fstat(file.fileno()).st_size) < size:
                raise SakuinError(
                    f"{file.name} was cut from {size:,} to {now:,} bytes after the model was loaded from it, "
                    "so its weights cannot be read any more; put the file back and load the model again."
                )
