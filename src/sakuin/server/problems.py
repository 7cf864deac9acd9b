"""What goes wrong with a request, in OpenAI's form: one sentence, which field it is about, and a status.

Whatever a route raises ends here. A `SakuinError` is the mistake of who asked (400); what nobody foresaw is
500 with a sentence that tells nothing of the inside, and is logged with its trace. Called by
`sakuin.server.app`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from sakuin.errors import SakuinError, is_out_of_memory
from sakuin.server.scheduler import Busy, Closed

log = logging.getLogger("sakuin.server")

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    429: "rate_limit_error",
    503: "unavailable_error",
}


class ErrorBody(BaseModel):
    """What is wrong. param : the field that it is about."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None
    n_prompt_tokens: int | None = None
    n_ctx: int | None = None


class ErrorAnswer(BaseModel):
    """An error in OpenAI's form."""

    error: ErrorBody


class Gone(Exception):
    """The client has gone, and nobody waits for an answer."""


class Disagrees(ValueError):
    """Of fields that do not go together, `field` is the one that is to be changed."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class Problem(SakuinError):
    """A request that is refused.

    status : of HTTP. param : the field that it is about. code : a word for programs. headers : of the answer.
    more : further members of the error.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code
        self.headers, self.more = dict(headers or {}), more

    def body(self) -> dict[str, Any]:
        """As it is sent."""
        said = {
            "message": str(self),
            "type": _TYPES.get(self.status, "server_error" if self.status >= 500 else _TYPES[400]),
            "param": self.param,
            "code": self.code,
        }
        return {"error": said | self.more}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), self.status, self.headers)


def problem_of(error: BaseException) -> Problem:
    """What an error is to the one who asked."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, Busy):
        return Problem(429, str(error), code="busy", headers={"Retry-After": "1"})
    if isinstance(error, Closed):
        return Problem(503, "The server is going down: ask again when it is back.", code="closing")
    if isinstance(error, SakuinError):
        return Problem(400, str(error))
    if is_out_of_memory(error):
        log.error("out of memory", exc_info=error)
        return Problem(503, "There is not enough memory for this request now: ask for less, or later.")
    log.error("unforeseen", exc_info=error)
    return Problem(500, "Something went wrong in the server; its log says what.", code="internal")


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The answers of a route that are errors, for its documentation."""
    return {status: {"model": ErrorAnswer, "description": HTTPStatus(status).phrase} for status in statuses}


COMMON = errors(400, 401, 403, 408, 413, 415, 429, 500, 503)
"""Errors that any route that works for a tenant may answer with."""


def install(app: FastAPI) -> None:
    """Let `app` answer with errors in this form."""

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return _invalid(error.errors()).response()

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        message = str(error.detail)
        if error.status_code == 404 and message == "Not Found":
            message = "There is nothing at this address; /docs lists what there is."
        if error.status_code == 405:
            message = "This address is not there for this method; /docs lists what there is."
        return Problem(error.status_code, message, headers=error.headers).response()

    @app.exception_handler(Gone)
    async def gone(_: Request, __: Gone) -> Response:
        return Response(status_code=499)  # which nobody reads; the log and the metrics say it

    @app.exception_handler(SakuinError)
    async def own(_: Request, error: SakuinError) -> JSONResponse:
        return problem_of(error).response()

    @app.exception_handler(Exception)
    async def unforeseen(_: Request, error: Exception) -> JSONResponse:
        return problem_of(error).response()


def _invalid(found: Sequence[Mapping[str, Any]]) -> Problem:
    """What is wrong with a body, its field named."""
    first = _telling(found)
    kind, message, where = first["type"], str(first["msg"]), first["loc"]
    # Of a field that is not known the name is whatever was sent.
    field = _field(where) if kind != "extra_forbidden" else ".".join([*_steps(where[:-1]), str(where[-1])])
    if kind == "json_invalid":
        reason = first.get("ctx", {}).get("error", "")
        return Problem(400, f"The body is not JSON: {reason or message}.", code="invalid_json")
    if kind == "extra_forbidden":
        return Problem(400, f"{field} is not supported: leave it out.", field, "unsupported_parameter")
    if kind == "missing":
        return Problem(400, f"{field or 'The body'} is missing.", field or None, "missing_parameter")
    if kind == "value_error":
        error = first.get("ctx", {}).get("error", message)
        message = str(error)
        field = field or getattr(error, "field", "")  # where fields disagree, the one that is to be changed
    message = message[:1].lower() + message[1:]
    return Problem(400, f"{field or 'The body'}: {message.rstrip('.')}.", field or None, "invalid_value")


def _telling(found: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Of what is wrong the first. Where that may have several forms, each of which says why it is not the
    one, what has the right type and another fault; else what comes furthest."""
    same = [one for one in found if one["loc"][:2] == found[0]["loc"][:2]]
    other = [one for one in same if not one["type"].endswith(("_type", "_parsing"))]
    return max(other or same, key=lambda one: len(one["loc"])) if len(same) > 1 else found[0]


def _field(where: Sequence[str | int]) -> str:
    """The field's path."""
    return ".".join(_steps(where))


def _steps(where: Sequence[str | int]) -> list[str]:
    """The steps to a field, without what tells which form of a union was tried."""
    steps: list[str] = []
    for step in map(str, where[tuple(where[:1]) in (("body",), ("query",), ("path",), ("header",)) :]):
        is_form = step in ("str", "int", "float", "bool") or not step.replace("_", "a").isalnum()
        if step.isdecimal() or not (is_form or step[:1].isupper() or step in steps[-1:]):
            steps.append(step)
    return steps
