"""`/docs`: the page of the API, which reads /openapi.json.

It asks for nothing but files of this server, those in `sakuin/server/console/docs`, by addresses relative to
the page, so that it works wherever the app is mounted. It needs no key, and neither does /openapi.json: what
the API is, is no secret. Called by `sakuin.server.app`.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import Response

from sakuin.server.problems import Problem

router = APIRouter(include_in_schema=False)

_TYPES = {
    "index.html": "text/html; charset=utf-8",
    "docs.js": "text/javascript; charset=utf-8",
    "docs.css": "text/css; charset=utf-8",
}

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""The page runs no script but its own file, asks no one but its server, and turns no text into markup."""


@cache
def _content(name: str) -> bytes:
    return files("sakuin.server.console").joinpath("docs", name).read_bytes()


def _answer(name: str) -> Response:
    if name not in _TYPES:
        raise Problem(404, "The page of the API has no such file.", code="not_found")
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}
    return Response(_content(name), media_type=_TYPES[name], headers=headers)


@router.api_route("/docs", methods=["GET", "HEAD"])
async def page() -> Response:
    """The page."""
    return _answer("index.html")


@router.api_route("/docs/{name}", methods=["GET", "HEAD"])
async def part(name: str) -> Response:
    """What it loads."""
    return _answer(name)
