"""The console: one page, its modules, its style and its signs, as they lie in `sakuin.server.console`.

The page asks the API of the same server by addresses relative to its own, so it works wherever the app is
mounted. Called by `sakuin.server.app`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Request
from fastapi.responses import Response

from sakuin.server.problems import Problem

router = APIRouter(include_in_schema=False)

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}

POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "object-src 'none'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        # No string becomes markup, whatever a document holds: the browser refuses it where it knows the rule.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""The page runs no script but its own files, asks no one but its server, and lies in no frame."""


@dataclass(frozen=True)
class _File:
    content: bytes
    media_type: str
    tag: str


@cache
def _known() -> dict[str, _File]:
    """The console's files by name; nothing else is ever sent."""
    found = {}
    for one in files("sakuin.server.console").iterdir():
        suffix = one.name[one.name.rfind(".") :]
        if suffix in _TYPES:
            content = one.read_bytes()
            tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            found[one.name] = _File(content, _TYPES[suffix], tag)
    return found


def _answer(request: Request, name: str) -> Response:
    file = _known().get(name)
    if file is None:
        raise Problem(404, "The console has no such file.", code="not_found")
    headers = {
        "ETag": file.tag,
        "Cache-Control": "no-cache",
        "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    if file.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)


@router.api_route("/", methods=["GET", "HEAD"])
async def page(request: Request) -> Response:
    """The console."""
    return _answer(request, "index.html")


@router.api_route("/console/{name}", methods=["GET", "HEAD"])
async def part(request: Request, name: str) -> Response:
    """A file of the console."""
    return _answer(request, name)
