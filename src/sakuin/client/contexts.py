"""A server's contexts: uploading, following how far they are read, listing, removing. Called by
`sakuin.client.client`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from sakuin import arguments
from sakuin.client.calls import Calls, ServerError
from sakuin.errors import SakuinError

Progress = Callable[[dict[str, Any]], None]
"""Given the context, as the server says it, each time it has changed."""


class Contexts:
    """The contexts that a server keeps for whoever has this key."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def add(
        self,
        name: str | None = None,
        files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
        *,
        text: str | None = None,
        system: str | None = None,
        pinned: bool = False,
        keep_for: float | None = None,
        encoding: str | None = None,
        wait: bool = True,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Have files, or a text, read as the context `name`; the context, as the server says it.

        system : what the model is told before everything else. pinned : never let it give way to others.
        keep_for : seconds after which it is gone. encoding : of plain text. wait : return when all is read,
        else at once; what is uploaded is read in any case. progress : told how far it is.

        Raises `SakuinError` where a file cannot be read; `ServerError` where the server refuses it, or cannot
        read it.
        """
        how = {"name": name, "system": system, "pinned": pinned or None, "keep_for": keep_for}
        return self._upload("/v1/contexts", files, text, how, encoding, wait, progress)

    def append(
        self,
        name: str,
        files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
        *,
        text: str | None = None,
        replace: bool = False,
        encoding: str | None = None,
        wait: bool = True,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Have more read after what the context holds; else as `add`.

        replace : let a file that was changed take the place of what the context holds of it.
        """
        path = f"{_path(name)}/append"
        return self._upload(path, files, text, {"replace": replace or None}, encoding, wait, progress)

    def get(self, name: str) -> dict[str, Any]:
        """What a context is, and how far its reading is."""
        return self._calls.send("GET", _path(name))

    def text(self, name: str) -> list[dict[str, Any]]:
        """The documents of a context as they were read: name, text, marks (where pages and headings begin)
        and notes."""
        found: list[dict[str, Any]] = self._calls.send("GET", f"{_path(name)}/text")["documents"]
        return found

    def wait(self, name: str, progress: Progress | None = None) -> dict[str, Any]:
        """The context, when it is ready. Raises `ServerError` where it could not be read."""
        said: dict[str, Any] = {}
        while said.get("status") not in ("ready", "failed"):
            for said in self._calls.events("GET", f"{_path(name)}/events"):
                if progress is not None:
                    progress(said)
        if said["status"] == "failed":
            error = said.get("error") or {}
            raise ServerError(str(error.get("message", "the context could not be read.")), 400, error)
        return said

    def update(self, name: str, /, **changes: Any) -> dict[str, Any]:
        """Change a context's `name`, whether it is `pinned`, or for how many seconds from now it is kept
        (`keep_for`; None is for ever)."""
        if odd := changes.keys() - {"name", "pinned", "keep_for"}:
            raise TypeError(f"update takes name, pinned and keep_for, got {', '.join(sorted(odd))}.")
        return self._calls.send("PATCH", _path(name), json=changes)

    def delete(self, name: str) -> None:
        """Remove a context, whether it is ready or still being read."""
        self._calls.send("DELETE", _path(name))

    def _upload(
        self,
        path: str,
        files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        text: str | None,
        how: dict[str, Any],
        encoding: str | None,
        wait: bool,
        progress: Progress | None,
    ) -> dict[str, Any]:
        arguments.callback("progress", progress, "the context")
        paths = [files] if isinstance(files, str | os.PathLike) else list(files)
        if (text is None) == (not paths):
            raise SakuinError("give files, or a text, and not both.")
        form = {key: value for key, value in how.items() if value is not None}
        if text is not None:
            said = self._calls.send("POST", path, json=form | {"text": arguments.text("text", text)})
        else:
            if encoding is not None:
                form["encoding"] = encoding
            with ExitStack() as opened:
                parts = [("files", (PurePath(one).name, opened.enter_context(_file(one)))) for one in paths]
                said = self._calls.send("POST", path, data=form, files=parts)
        return self.wait(said["id"], progress) if wait else said

    def list(self) -> list[dict[str, Any]]:
        """All contexts, by name."""
        found: list[dict[str, Any]] = self._calls.send("GET", "/v1/contexts")["data"]
        return found


def _file(path: str | os.PathLike[str]) -> Any:
    try:
        return open(arguments.path("files", path), "rb")
    except OSError as error:
        raise SakuinError(
            f"{os.fspath(path)} cannot be read ({error.strerror or error}); check the path."
        ) from None


def _path(name: str) -> str:
    return f"/v1/contexts/{quote(arguments.text('name', name), safe='')}"
