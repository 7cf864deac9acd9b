"""A request's body on its way to the disk: JSON with a text, or a form with files.

Files are written as they come, whatever they hold, under names of our own; what a file is called is only a
text that is kept beside it. They are read later, in a process of their own (`sakuin.documents`). Called by
`sakuin.server.routes.contexts`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from sakuin.documents.limits import MOST_BYTES
from sakuin.documents.text import check_encoding
from sakuin.errors import SakuinError
from sakuin.server.contexts.spool import Place, Spooled
from sakuin.server.json_bodies import parse
from sakuin.server.problems import Problem
from sakuin.server.threads import in_thread

MOST_FILES = 1000
_FIELDS = 16
_FIELD_BYTES = 2 << 20
_NAME = 200
"""Characters of a file's name that are kept."""
_CHECKED = 8 << 20
"""Bytes after which it is looked anew how much room the disk has."""
_FILES = ("file", "files", "file[]", "files[]")
_ODD = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
"""Characters that no name of a file shows: controls, and such as turn the direction of a line."""

Form = TypeVar("Form", bound=BaseModel)


@dataclass(frozen=True)
class Sizes:
    """Most bytes of a body of JSON or of the text in a form, and of all files together."""

    body: int
    upload: int


async def taken(
    request: Request, place: Place, form: type[Form], new: type[Form], sizes: Sizes
) -> tuple[Form, tuple[Spooled, ...]]:
    """What a request wants, and the documents that it brought, which lie in `place`.

    Raises `Problem` or `RequestValidationError` where the body is not of that form, or too large.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    try:
        if kind == b"application/json":
            wanted, files = await _json(request, place, new, sizes)
        elif kind == b"multipart/form-data":
            fields, files = await _parts(request, place, options.get(b"boundary", b""), sizes)
            wanted = _valid(form, fields)
        else:
            raise Problem(
                415, "The body must be application/json or multipart/form-data, by its Content-Type."
            )
    except ClientDisconnect:
        raise Problem(400, "The body ended before it was whole.") from None
    if (encoding := getattr(wanted, "encoding", None)) is not None:
        _check_encoding(encoding)
    return wanted, files


def _check_encoding(encoding: str) -> None:
    try:
        check_encoding(encoding)
    except (SakuinError, ValueError) as error:  # ValueError: a NUL
        said = str(error) if isinstance(error, SakuinError) else f"there is no text encoding {encoding!r}."
        raise Problem(400, said, "encoding") from None


def _valid(form: type[Form], said: dict[str, Any]) -> Form:
    try:
        return form.model_validate(said)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None


async def _json(
    request: Request, place: Place, new: type[Form], sizes: Sizes
) -> tuple[Form, tuple[Spooled, ...]]:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > sizes.body:
            raise _too_large(sizes.body, "A body of JSON")
    return await in_thread(_json_of, bytes(data), place, new)


def _json_of(data: bytes, place: Place, new: type[Form]) -> tuple[Form, tuple[Spooled, ...]]:
    try:
        wanted = new.model_validate(parse(data), strict=True)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None
    text: str = wanted.text  # type: ignore[attr-defined]
    encoded = text.encode()
    _check_text(encoded)
    place.check_room(len(encoded))
    with place.writing("0") as file:
        file.write(encoded)
    return wanted, (Spooled("0", "text", len(encoded), is_text=True),)


def _check_text(data: bytes) -> None:
    if not data.strip():
        raise Problem(400, "The text is empty; there is nothing to read.", "text")


def _too_large(most: int, what: str) -> Problem:
    return Problem(413, f"{what} may have {most:,} bytes at most; send less.", code="too_large")


async def _parts(
    request: Request, place: Place, boundary: bytes, sizes: Sizes
) -> tuple[dict[str, Any], tuple[Spooled, ...]]:
    with Parts(place, boundary, sizes) as parts:
        async for chunk in _of_size(request.stream()):
            await in_thread(parts.feed, chunk)
        return await in_thread(parts.end)


async def _of_size(stream: AsyncIterator[bytes], size: int = 1 << 18) -> AsyncIterator[bytes]:
    """The same in pieces of at least that size, so that a thread is not woken for each packet."""
    held: list[bytes] = []
    for_now = 0
    async for chunk in stream:
        held.append(chunk)
        for_now += len(chunk)
        if for_now >= size:
            yield b"".join(held)
            held, for_now = [], 0
    yield b"".join(held)


class Parts(ExitStack):
    """A form's parts, written into a folder as they come: `feed` each piece of the body, then `end`."""

    def __init__(self, place: Place, boundary: bytes, sizes: Sizes) -> None:
        super().__init__()
        if not boundary or len(boundary) > 200:
            raise Problem(
                400, "The Content-Type of a form must name its boundary, of at most 200 characters."
            )
        self._place, self._sizes = place, sizes
        self._fields: dict[str, bytearray] = {}
        self._files: list[Spooled] = []
        self._size = self._checked = self._text_bytes = 0
        self._header: tuple[bytearray, bytearray] = bytearray(), bytearray()
        self._disposition = b""
        self._field: bytearray | None = None
        self._file: BinaryIO | None = None
        self._writing = ExitStack()
        self._called, self._is_text, self._here = "", False, 0
        self._whole = False
        self.push(self._writing)
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers,
                "on_part_data": self._data,
                "on_part_end": self._part_end,
                "on_end": self._end,
            },
        )

    def feed(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > self._sizes.upload:
            raise _too_large(self._sizes.upload, "An upload")
        if self._size - self._checked >= 0:
            self._place.check_room(_CHECKED)
            self._checked = self._size + _CHECKED
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise Problem(400, "The body is not a form as multipart/form-data has it.") from None

    def end(self) -> tuple[dict[str, Any], tuple[Spooled, ...]]:
        """The fields, and what was brought of documents."""
        if not self._whole:
            raise Problem(400, "The form ended before it was whole.")
        fields: dict[str, Any] = {}
        for name, value in self._fields.items():
            try:
                fields[name] = value.decode()
            except UnicodeDecodeError:
                raise Problem(400, f"{name} is not UTF-8.", name) from None
        texts = [one for one in self._files if one.is_text]
        if len(texts) > 1 or (texts and len(self._files) > 1):
            raise Problem(400, "Give one text or files, not both.", "text")
        if not self._files:
            raise Problem(400, "There is nothing to read: give files, or a text.", "files")
        if texts:
            data = self._place.bytes_of(texts[0])
            try:
                data.decode()
            except UnicodeDecodeError:
                raise Problem(400, "text is not UTF-8.", "text") from None
            _check_text(data)
        return fields, tuple(self._files)

    # -- what the parser calls -------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._disposition, self._header = b"", (bytearray(), bytearray())

    def _header_end(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = bytes(value)
        self._header = bytearray(), bytearray()

    def _headers(self) -> None:
        kind, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if kind != b"form-data" or not name:
            raise Problem(400, "A part of the form has no name in its Content-Disposition.")
        self._field = self._file = None
        if b"filename" in options or name == "text":
            self._open(name, options.get(b"filename"))
        elif name in _FILES:
            raise Problem(400, f"{name} must be a file, with a filename.", name)
        elif name in self._fields:
            raise Problem(400, f"{name:.100} is there twice.", name[:100])
        elif len(self._fields) == _FIELDS:
            raise Problem(400, f"A form may have {_FIELDS} fields at most beside its files.")
        else:
            self._field = self._fields[name] = bytearray()

    def _open(self, name: str, filename: bytes | None) -> None:
        """A file begins, or a text, which may be as long as one."""
        self._is_text = filename is None
        if not self._is_text and name not in _FILES:
            raise Problem(400, f"{name:.100} is not supported as a file; call it files.", name[:100])
        if len(self._files) >= MOST_FILES:
            raise Problem(413, f"An upload may have {MOST_FILES:,} files at most; send more in further ones.")
        called = "text" if filename is None else cleaned(filename.decode("utf-8", "replace"))
        self._called = called or f"document {len(self._files) + 1}"
        self._here = 0
        self._file = self._writing.enter_context(self._place.writing(str(len(self._files))))

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._here += end - start
            most = self._sizes.body if self._is_text else min(self._sizes.upload, MOST_BYTES)
            if self._here > most:
                raise _too_large(most, "A text" if self._is_text else f"{self._called!r:.100}")
            self._file.write(data[start:end])
        elif self._field is not None:
            if len(self._field) + end - start > _FIELD_BYTES:
                raise _too_large(_FIELD_BYTES, "A field")
            self._field += data[start:end]

    def _part_end(self) -> None:
        if self._file is None:
            return
        self._writing.close()
        self._file = None
        if not self._here:
            raise Problem(400, f"{self._called!r:.100} is empty; there is nothing to read.", "files")
        self._files.append(
            Spooled(
                str(len(self._files)), apart(self._called, self._files), self._here, is_text=self._is_text
            )
        )

    def _end(self) -> None:
        self._whole = True


def cleaned(name: str) -> str:
    """What a file is called, as a name to be shown: never a path of this machine."""
    steps = _ODD.sub("", name).replace("\\", "/").split("/")
    return "/".join(step.strip() for step in steps if step.strip() not in ("", ".", ".."))[-_NAME:].strip(
        "/ "
    )


def apart(name: str, others: list[Spooled]) -> str:
    """`name`, with a number where another document is called so."""
    taken, found, i = {one.name for one in others}, name, 2
    while found in taken:
        found, i = f"{name} ({i})", i + 1
    return found
