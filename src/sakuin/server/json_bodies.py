"""Bodies in JSON, taken strictly: what one reader would take so and another otherwise is refused.

`APIRouter(route_class=JsonRoute)` reads them so. Called by `sakuin.server.routes`.
"""

from __future__ import annotations

import email.message
import json
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from sakuin.server.problems import Gone, Problem
from sakuin.server.threads import in_thread

MOST_PARTS = 1 << 22
"""Commas and opening brackets of a body, in texts too: values take many times the bytes in Python that they
have in JSON."""
_AT_ONCE = 1 << 16
"""Bytes of a body that is parsed so fast that no thread is needed for it."""


class JsonRoute(APIRoute):
    """A route whose body is JSON, where it has one."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()
        if self.body_field is None:
            return handler

        async def strict(request: Request) -> Response:
            return await handler(await _parsed(request))

        return strict


class _Parsed(Request):
    """A request whose body is parsed already."""

    parsed: Any = None

    async def json(self) -> Any:
        return self.parsed


async def _parsed(request: Request) -> Request:
    """The request with its body read. Raises `Problem` where that is no JSON, `Gone` where it ends."""
    found = _Parsed(request.scope, request.receive)
    try:
        body = await found.body()
    except ClientDisconnect:
        raise Gone from None
    if not body:
        return found
    if not _is_json(request.headers.get("content-type", "")):
        raise Problem(415, "The body must be application/json, by its Content-Type.", code="not_json")
    found.parsed = parse(body) if len(body) <= _AT_ONCE else await in_thread(parse, body)
    return found


def _is_json(said: str) -> bool:
    message = email.message.Message()
    message["content-type"] = said.replace("\r", "").replace("\n", "")
    kind = message.get_content_type()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def parse(body: bytes) -> Any:
    """What a body says. Raises `Problem` where it is no JSON, or too much of it."""
    if len(body) > MOST_PARTS and sum(map(body.count, (b",", b"[", b"{"))) > MOST_PARTS:
        raise _invalid(f"it has more than {MOST_PARTS:,} commas and brackets")
    try:
        return json.loads(body.decode("utf-8-sig"), object_pairs_hook=_once)
    except Problem:
        raise
    except UnicodeDecodeError as error:
        raise _invalid(f"it is not UTF-8 at byte {error.start:,}") from None
    except json.JSONDecodeError as error:
        what = error.msg[:1].lower() + error.msg[1:]
        raise _invalid(f"{what} at character {error.pos:,}") from None
    except RecursionError:
        raise _invalid("its lists and objects lie in one another too deep") from None
    except ValueError:  # Python's own bound of figures
        raise _invalid("a number of it has thousands of figures") from None


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object, of which each field is there once."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        shown = twice[:100].encode("ascii", "backslashreplace").decode()
        raise Problem(400, f"The field {shown} is there twice: leave one out.", shown, "invalid_json")
    return found


def _invalid(why: str) -> Problem:
    return Problem(400, f"The body is not JSON that is taken here: {why}.", code="invalid_json")
