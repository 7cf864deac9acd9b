"""The parts of a Word file: a zip archive of XML, in which relations say what each part is."""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
import zlib
from typing import Any

from lxml import etree

from sakuin.documents.limits import MOST_UNPACKED, MOST_XML
from sakuin.errors import SakuinError

_LOOKED_AT = 256
"""Bytes at a part's start that show whether it can be XML."""

_BEFORE_XML = b"\xef\xbb\xbf\xff\xfe\0\t\n\r "
"""What may stand before the first tag: blanks, a byte order mark, and the zeros of UTF-16."""

_STRICT = re.compile(rb"http://purl\.oclc\.org/ooxml/(wordprocessingml|officeDocument|drawingml)/")
_USUAL = {
    b"wordprocessingml": b"http://schemas.openxmlformats.org/wordprocessingml/2006/",
    b"officeDocument": b"http://schemas.openxmlformats.org/officeDocument/2006/",
    b"drawingml": b"http://schemas.openxmlformats.org/drawingml/2006/",
}
"""Names of the strict variant of the format, and what they are elsewhere."""

_READ = ("styles", "numbering", "settings", "footnotes", "endnotes", "comments", "header", "footer")
"""Parts beside the running text, by their relation to it."""

_NO_MEMORY = 2
"""libxml2's number for the error that memory ran out."""

_DOCTYPE = "<!DOCTYPE"


class Parts:
    """The XML of a Word file, each part parsed when it is asked for. Raises `SakuinError` where the file is
    encrypted, unpacks to too much or cannot be parsed."""

    def __init__(self, data: bytes, name: str) -> None:
        self._name = name
        try:
            self._archive = zipfile.ZipFile(io.BytesIO(data))
            if any(part.flag_bits & 1 for part in self._archive.infolist()):
                raise SakuinError(f"{name} is encrypted; save it without a password.")
            _check_sizes(self._archive, name)
        except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, ValueError, zlib.error) as error:
            if isinstance(error, SakuinError):
                raise
            raise SakuinError(f"{name} is damaged ({error}); open it in Word and save it anew.") from None
        self._names = {part.lower(): part for part in self._archive.namelist()}
        main = next((path for kind, path in self.relations("").values() if kind == "officeDocument"), None)
        self.main = main or "word/document.xml"
        """The path of the part that holds the running text."""
        self._related: dict[str, str] = {}
        relations = self.relations(self.main)
        for kind, path in relations.values():
            self._related.setdefault(kind, path)
        if not relations:  # it is damaged; the parts have their usual names
            folder = posixpath.dirname(self.main)
            usual = {kind: posixpath.join(folder, f"{kind}.xml") for kind in _READ}
            self._related = {kind: path for kind, path in usual.items() if path.lower() in self._names}
        self.missing = sorted(
            {path for kind, path in relations.values() if kind in _READ and path.lower() not in self._names}
        )
        """Paths of parts that are read and are not there though the file names them."""

    def root(self, path: str) -> Any:
        """The root element of a part; None where there is no such part."""
        try:
            stored = self._names.get(path.lower())
            data = None if stored is None else self._archive.read(stored)
        except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, ValueError, zlib.error) as error:
            raise self._damaged(error) from None
        return None if data is None else self._parse(data)

    def related(self, kind: str) -> Any:
        """The root of the part that is this to the running text: "styles", "numbering", …; or None."""
        path = self._related.get(kind)
        return None if path is None else self.root(path)

    def related_path(self, kind: str) -> str | None:
        """The path of that part."""
        return self._related.get(kind)

    def relations(self, path: str) -> dict[str, tuple[str, str]]:
        """What a part refers to: by the relation's id its kind, and a path or, outside, an address."""
        folder, base = posixpath.split(path)
        root = self.root(posixpath.join(folder, "_rels", base + ".rels"))
        found: dict[str, tuple[str, str]] = {}
        for each in [] if root is None else root:
            kind, target = (each.get("Type") or "").rpartition("/")[2], each.get("Target") or ""
            if each.get("TargetMode") != "External":
                target = posixpath.normpath(posixpath.join("/", folder, target)).lstrip("/")
            found[each.get("Id") or ""] = kind, target
        return found

    def _parse(self, data: bytes) -> Any:
        # Word writes no document type; in one, entities could swell to gigabytes.
        if any(_DOCTYPE.encode(code) in data for code in ("utf-8", "utf-16-le", "utf-16-be")):
            raise self._damaged(ValueError("it declares a document type"))
        data = _STRICT.sub(lambda match: _USUAL[match[1]], data)
        parser = etree.XMLParser(
            resolve_entities=False, no_network=True, remove_comments=True, remove_pis=True, huge_tree=True
        )
        try:
            return etree.fromstring(data, parser)
        except etree.XMLSyntaxError as error:
            if error.code == _NO_MEMORY:
                raise MemoryError from None
            if "depth" in str(error).lower():
                raise RecursionError from None
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> SakuinError:
        return SakuinError(
            f"{self._name} is damaged and cannot be read ({type(error).__name__}: {str(error)[:120]}); open "
            "it in Word and save it anew."
        )


def _check_sizes(archive: zipfile.ZipFile, name: str) -> None:
    """Refuse what unpacks to too much. Any part that can be XML counts as such, whatever it is called: which
    one holds the text the file says itself."""
    parts = archive.infolist()
    whole = sum(part.file_size for part in parts)
    if whole > MOST_UNPACKED:
        raise SakuinError(
            f"{name} unpacks to {whole >> 20:,} MB, and at most {MOST_UNPACKED >> 20:,} MB are read; split "
            "it, or save it as PDF or text."
        )
    size = 0
    for part in parts if whole > MOST_XML else []:
        with archive.open(part) as file:
            head = file.read(_LOOKED_AT).lstrip(_BEFORE_XML)
        if not head or head.startswith(b"<"):
            size += part.file_size
    if size > MOST_XML:
        raise SakuinError(
            f"{name} unpacks to {size >> 20:,} MB of XML, and at most {MOST_XML >> 20} MB are read; split "
            "it, or save it as PDF or text."
        )
