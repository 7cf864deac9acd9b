"""What is said of contexts: what is stored of them, and how far their reading is. Called by the routes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from sakuin.errors import SakuinError
from sakuin.library import Library
from sakuin.library.folder import Stored, normal
from sakuin.server.contexts.job import Job
from sakuin.server.contexts.readings import Readings
from sakuin.server.contexts.shelf import light, missing
from sakuin.server.problems import Problem
from sakuin.server.tenants.tenant import Tenant
from sakuin.snapshot import manifest as manifests

_KNOWN = 256
"""Contexts whose documents are remembered: to look them up takes reading all of a manifest."""


class Described:
    """Says what contexts are, of the tenants of `readings`."""

    def __init__(self, readings: Readings) -> None:
        self._readings = readings
        self._known: OrderedDict[tuple[str, str], tuple[Stored, dict[str, Any]]] = OrderedDict()
        self._lock = threading.Lock()

    def every(self, tenant: Tenant) -> list[dict[str, Any]]:
        """All contexts of a tenant, by name, without their documents."""
        shelf = self._readings.shelves.of(tenant)
        found = {}
        for entry, shared in shelf.entries():
            found[entry.name] = _whole(entry.tokens) | {
                "id": entry.name,
                "bytes": entry.bytes,
                "model": entry.model,
                "created": entry.created,
                "used": entry.used or None,
                "pinned": entry.pinned,
                "kept_until": entry.kept_until,
                "shared": shared,
            }
        for name in self._readings.names(tenant.name):
            if (reading := self._reading(tenant, name)) is not None:
                own = found.get(name)
                found[name] = _joined(None if own is None or own["shared"] else own, reading)
        return [found[name] for name in sorted(found)]

    def one(self, tenant: Tenant, name: str) -> dict[str, Any]:
        """All that there is to know of a context. Raises `Problem` where there is none."""
        reading = self._reading(tenant, name)
        try:
            stored = self._stored(tenant, name)
        except Problem:
            # It may have become ready, or failed, in between.
            reading = self._reading(tenant, name)
            if reading is None:
                return self._stored(tenant, name)
            stored = None
        if reading is None:
            assert stored is not None
            return stored
        return _joined(None if stored is None or stored["shared"] else stored, reading)

    def text(self, tenant: Tenant, name: str) -> dict[str, Any]:
        """The documents of a context, as they were read."""
        shelf = self._readings.shelves.of(tenant)
        stored, _ = shelf.find(name)
        documents = []
        try:
            for one in manifests.documents_of(stored.manifest, f"the context {stored.name!r}"):
                documents.append(
                    {
                        "name": one.name,
                        "text": one.text,
                        "marks": [
                            {"start": mark.start, "page": mark.page, "heading": mark.heading}
                            for mark in one.marks
                        ],
                        "notes": list(one.notes),
                        "offset": one.offset,
                        "lines_before": one.lines_before,
                    }
                )
        except SakuinError as error:
            raise Problem(400, shelf.shelves.told(error), "context") from None
        return {"id": stored.name, "object": "context.text", "documents": documents}

    def _reading(self, tenant: Tenant, name: str) -> dict[str, Any] | None:
        """How far the reading of a context is; None where nothing is to be read."""
        try:
            jobs = self._readings.jobs(tenant.name, name)
            job = jobs[0] if jobs else self._readings.failed(tenant.name, name)
        except TypeError:
            raise missing(name) from None
        return None if job is None else of_job(job)

    def _stored(self, tenant: Tenant, name: str) -> dict[str, Any]:
        shelf = self._readings.shelves.of(tenant)
        library, name, shared = shelf.where(name)
        said = self._known_of(library, name)
        if said is None:
            stored, shared = shelf.find(name)
            said = self._note(library, stored)
        return said | {"used": library.folder.used(name) or None, "shared": shared}

    def _known_of(self, library: Library, name: str) -> dict[str, Any] | None:
        key = str(library.folder.path), normal(name)
        with self._lock:
            known = self._known.get(key)
        if (
            known is None
            or not library.folder.is_newest(known[0])
            or known[0].manifest.kept_until is not None
        ):
            return None
        return known[1]

    def _note(self, library: Library, stored: Stored) -> dict[str, Any]:
        said = _of_stored(stored)
        with self._lock:
            key = str(library.folder.path), stored.name
            self._known[key] = light(stored), said
            self._known.move_to_end(key)
            while len(self._known) > _KNOWN:
                self._known.popitem(last=False)
        return said


def _whole(tokens: int) -> dict[str, Any]:
    return {
        "object": "context",
        "status": "ready",
        "askable": True,
        "progress": 1.0,
        "tokens": tokens,
        "tokens_done": tokens,
        "error": None,
    }


def _of_stored(stored: Stored) -> dict[str, Any]:
    manifest = stored.manifest
    return _whole(len(manifest.ids)) | {
        "id": stored.name,
        "bytes": manifest.size,
        "model": manifest.model,
        "created": manifest.created,
        "pinned": manifest.pinned,
        "kept_until": manifest.kept_until,
        "system": manifest.system or None,
        "documents": [
            {
                "name": one.name,
                "characters": one.end - one.start,
                "pages": max((mark.get("page") or 0 for mark in one.more.get("marks", ())), default=0)
                or None,
                "notes": list(one.more.get("notes", ())),
            }
            for one in manifest.documents
        ],
    }


def of_job(job: Job) -> dict[str, Any]:
    """What is said of a context by its reading alone."""
    failed = job.error is not None
    return {
        "id": job.wish.name,
        "object": "context",
        "status": "failed" if failed else job.status,
        "askable": False,
        "progress": min(job.tokens_done / job.tokens, 1.0) if job.tokens else 0.0,
        "tokens": job.tokens,
        "tokens_done": job.tokens_done,
        "created": job.wish.created,
        "pinned": job.wish.pinned,
        "system": job.wish.system,
        "error": job.error.body()["error"] if job.error is not None else None,
        "documents": [{"name": one.name, "characters": 0, "notes": []} for one in job.wish.files],
    }


def _joined(stored: dict[str, Any] | None, reading: dict[str, Any]) -> dict[str, Any]:
    """Of a context that is there and to which something is appended, both; the list knows no documents."""
    if stored is None:
        return reading
    kept = ("status", "progress", "tokens", "tokens_done", "error")
    return stored | {key: reading[key] for key in kept}
