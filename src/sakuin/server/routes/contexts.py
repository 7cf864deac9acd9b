"""`/v1/contexts`: documents are uploaded and read, and what was read can be listed, changed and removed."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel

from sakuin.context.checks import system_meant
from sakuin.errors import SakuinError
from sakuin.library.folder import checked_name
from sakuin.library.until import until
from sakuin.prompts.template import Prompt
from sakuin.server.asks import Asker, audited, service_of
from sakuin.server.contexts.described import Described, of_job
from sakuin.server.contexts.job import Job, check_text
from sakuin.server.contexts.readings import Readings
from sakuin.server.contexts.shelf import missing, not_yours
from sakuin.server.contexts.spool import Place, Spooled, Wish
from sakuin.server.contexts.upload import Sizes, taken
from sakuin.server.json_bodies import JsonRoute
from sakuin.server.problems import COMMON, Problem, errors
from sakuin.server.schemas.contexts import (
    AppendForm,
    AppendNew,
    ContextChange,
    ContextDeleted,
    ContextForm,
    ContextList,
    ContextNew,
    ContextObject,
    TextObject,
    body_of,
)
from sakuin.server.tenants.tenant import Tenant
from sakuin.server.threads import in_thread

router = APIRouter(tags=["contexts"], route_class=JsonRoute)

_LOOK_S = 0.1
"""Seconds after which it is looked again how far a reading is."""

Form = TypeVar("Form", bound=BaseModel)


def readings_of(request: Request) -> Readings:
    """What reads the uploads of the app that a request came to."""
    readings: Readings = request.app.state.service.readings
    return readings


def described_of(request: Request) -> Described:
    """What says of contexts what they are; remembered with the service."""
    state = request.app.state
    if not hasattr(state, "described"):
        state.described = Described(state.service.readings)
    described: Described = state.described
    return described


The = Annotated[Readings, Depends(readings_of)]
Says = Annotated[Described, Depends(described_of)]
Id = Annotated[str, Path(description="The context's id, which is its name.", max_length=400)]
Waits = Annotated[bool, Query(description="Answer only when all is read.")]

UPLOADS = errors(409, 415, 507)


@router.post(
    "/v1/contexts",
    status_code=202,
    response_model=ContextObject,
    responses=COMMON
    | UPLOADS
    | {201: {"model": ContextObject, "description": "Read, since it was waited for"}},
    openapi_extra=body_of(ContextForm, ContextNew),
)
async def add(request: Request, tenant: Asker, readings: The, says: Says, wait: Waits = False) -> Response:
    """Upload a text, or files of any kind that can be read, and have them read as a context.

    Once this has answered, the upload will be read, also after a crash or a restart of the server; nothing
    of it is read twice. `GET /v1/contexts/{id}` and its `/events` say how far it is.
    """
    place, job = await in_thread(readings.place, tenant), None
    try:
        form, files = await taken(request, place, ContextForm, ContextNew, _sizes(readings))
        name = await in_thread(_checked, form, files, place, readings)
        wish = Wish(
            "add",
            tenant.name,
            name,
            files,
            time.time(),
            system=form.system,
            pinned=form.pinned,
            keep_for=form.keep_for,
            encoding=form.encoding,
            context_tokens=tenant.allowed.context_tokens,
            priority=tenant.allowed.priority,
        )
        job = await in_thread(readings.take, wish, place)
    finally:
        if job is None:
            await in_thread(readings.give_up, place)
    audited(service_of(request), "add", tenant, name, documents=len(files))
    return await _answer(readings, says, tenant, job, wait or form.wait)


@router.post(
    "/v1/contexts/{id}/append",
    status_code=202,
    response_model=ContextObject,
    responses=COMMON
    | UPLOADS
    | errors(404)
    | {200: {"model": ContextObject, "description": "Read, since it was waited for"}},
    openapi_extra=body_of(AppendForm, AppendNew),
)
async def append(
    id: Id, request: Request, tenant: Asker, readings: The, says: Says, wait: Waits = False
) -> Response:
    """Upload more, which is read after what the context holds. It can be asked meanwhile, as it was.

    A file that the context holds, by its name, goes on where it was: only what is new at its end is read. One
    that was changed is refused, unless it is to `replace` what was there. A text goes on with the last
    document.
    """
    name = await in_thread(_own, readings, tenant, id)
    place, job = await in_thread(readings.place, tenant), None
    try:
        form, files = await taken(request, place, AppendForm, AppendNew, _sizes(readings))
        wish = Wish(
            "append",
            tenant.name,
            name,
            files,
            time.time(),
            replace=form.replace,
            encoding=form.encoding,
            context_tokens=tenant.allowed.context_tokens,
            priority=tenant.allowed.priority,
        )
        job = await in_thread(readings.take, wish, place)
    finally:
        if job is None:
            await in_thread(readings.give_up, place)
    audited(service_of(request), "append", tenant, name, documents=len(files), replace=form.replace)
    return await _answer(readings, says, tenant, job, wait or form.wait, done=200)


@router.get("/v1/contexts", response_model=ContextList, responses=COMMON)
async def every(tenant: Asker, says: Says) -> dict[str, Any]:
    """All contexts, by name; those that are still being read too."""
    return {"data": await in_thread(says.every, tenant)}


@router.get("/v1/contexts/{id}", response_model=ContextObject, responses=COMMON | errors(404, 409))
async def one(id: Id, tenant: Asker, says: Says) -> dict[str, Any]:
    """What a context is, and how far its reading is."""
    return await in_thread(says.one, tenant, id)


@router.get(
    "/v1/contexts/{id}/events",
    response_class=StreamingResponse,
    responses=COMMON
    | errors(404, 409)
    | {200: {"content": {"text/event-stream": {}}, "description": "The context, each time it has changed"}},
)
async def events(id: Id, tenant: Asker, readings: The, says: Says) -> StreamingResponse:
    """The context as `GET /v1/contexts/{id}` says it, each time it changes, until it is ready or failed."""
    first = await in_thread(says.one, tenant, id)
    stream = _events(readings, says, tenant, id, first)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


@router.get("/v1/contexts/{id}/text", response_model=TextObject, responses=COMMON | errors(404, 409))
async def text(id: Id, request: Request, tenant: Asker, says: Says) -> Response:
    """The text of a context's documents as it was read, with where pages and headings begin."""
    found = await in_thread(_text, says, tenant, id)
    audited(service_of(request), "text", tenant, id)
    return Response(found, media_type="application/json")


@router.patch("/v1/contexts/{id}", response_model=ContextObject, responses=COMMON | errors(404, 409))
async def change(
    id: Id, change: ContextChange, request: Request, tenant: Asker, readings: The, says: Says
) -> dict[str, Any]:
    """Give a context another name, pin it or not, or keep it for so long from now on."""
    name = await in_thread(_changed, readings, tenant, id, change)
    audited(service_of(request), "change", tenant, id, **change.model_dump(exclude_unset=True))
    return await in_thread(says.one, tenant, name)


@router.delete("/v1/contexts/{id}", response_model=ContextDeleted, responses=COMMON | errors(404, 409))
async def remove(id: Id, request: Request, tenant: Asker, readings: The) -> dict[str, Any]:
    """Remove a context, whether it is ready or still being read. Answers that are under way are finished."""
    await in_thread(_removed, readings, tenant, id)
    audited(service_of(request), "remove", tenant, id)
    return {"id": id}


# -- what these are made of ----------------------------------------------------------------------------------


def _sizes(readings: Readings) -> Sizes:
    return Sizes(readings.settings.max_body_bytes, readings.settings.max_upload_bytes)


def _checked(form: ContextForm, files: tuple[Spooled, ...], place: Place, readings: Readings) -> str:
    """The name that a context gets; what is wrong with it, and can be known now, is said now."""
    try:
        name = checked_name(form.name or f"context-{secrets.token_hex(4)}")
    except SakuinError as error:
        raise Problem(400, str(error), "name", "invalid_value") from None
    backend = readings.shelves.backend
    for one in files:
        if one.is_text:
            check_text(place.bytes_of(one).decode(), backend)
    if form.system is not None:
        _check_system(form.system, readings)
    return name


def _check_system(system: str, readings: Readings) -> None:
    backend = readings.shelves.backend
    try:
        Prompt.of(backend.vocabulary, system_meant(backend, system))
    except SakuinError as error:
        raise Problem(400, str(error), "system") from None


def _own(readings: Readings, tenant: Tenant, id: str) -> str:
    """The name of a context of the tenant's own, there or still being read."""
    try:
        name = checked_name(id)
    except (SakuinError, TypeError):
        raise missing(id) from None
    if readings.jobs(tenant.name, name) or readings.failed(tenant.name, name):
        return name
    library = readings.shelves.library_of(tenant.name)
    if library.folder.manifest(name, unfinished=True).is_file():
        return name
    _, name, shared = readings.shelves.of(tenant).where(name)
    if shared:
        raise not_yours(name)
    return name


async def _answer(
    readings: Readings, says: Described, tenant: Tenant, job: Job, wait: bool, done: int = 201
) -> Response:
    """What is said of an upload: at once, or when it is read."""
    pause = 0.005
    while wait and not readings.is_stopping and not job.over.is_set():
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LOOK_S)
    if job.error is not None and wait:
        raise job.error
    try:
        said = await in_thread(says.one, tenant, job.wish.name)
    except Problem:  # it was read, and is gone already: its time is over, or somebody has removed it
        said = of_job(job) | {"status": "ready"}
    whole = ContextObject.model_validate(said).model_dump(mode="json")
    is_read = wait and job.over.is_set()
    where = f"/v1/contexts/{quote(job.wish.name)}"
    return JSONResponse(whole, done if is_read else 202, {"Location": where})


async def _events(
    readings: Readings, says: Described, tenant: Tenant, name: str, said: dict[str, Any]
) -> AsyncIterator[bytes]:
    """A context as it changes."""
    keep_alive = max(readings.settings.keep_alive_s, 0.1)
    sent = time.monotonic()
    yield _event(said)
    seen = None
    while said["status"] in ("queued", "reading") and not readings.is_stopping:
        await asyncio.sleep(_LOOK_S)
        if time.monotonic() - sent > keep_alive:
            sent = time.monotonic()
            yield b": still here\n\n"
        if (now := readings.glance(tenant, name)) == seen and now is not None:
            continue  # as it was: many may watch
        seen = now
        try:
            said = await in_thread(says.one, tenant, name)
        except Problem as problem:
            yield f"data: {json.dumps(problem.body())}\n\n".encode()
            return
        sent = time.monotonic()
        yield _event(said)


def _event(said: dict[str, Any]) -> bytes:
    whole = ContextObject.model_validate(said).model_dump_json()
    return f"data: {whole}\n\n".encode()


def _text(says: Described, tenant: Tenant, name: str) -> bytes:
    said = TextObject.model_validate(says.text(tenant, name))
    return said.model_dump_json().encode()


def _changed(readings: Readings, tenant: Tenant, id: str, change: ContextChange) -> str:
    """Change a context; its name then."""
    name, new = _own(readings, tenant, id), change.name
    if new is not None:
        try:
            new = checked_name(new)
        except SakuinError as error:
            raise Problem(400, str(error), "name", "invalid_value") from None
    kept = "keep_for" in change.model_fields_set
    keep_for = (float("inf") if change.keep_for is None else change.keep_for) if kept else None
    until(keep_for)
    with readings.changing(tenant, name, *([new] if new else [])) as library:
        readings.shelves.of(tenant).find(name)
        try:
            if change.pinned is not None or keep_for is not None:
                library.change(name, pinned=change.pinned, keep_for=keep_for)
            if new is not None and new != name:
                if library.is_there(new):
                    raise Problem(409, f"There is a context {new!r} already.", "name", "context_exists")
                library.rename(name, new)
        except Problem:
            raise
        except SakuinError as error:
            raise Problem(409, readings.shelves.told(error), "context", "busy") from None
    return new or name


def _removed(readings: Readings, tenant: Tenant, id: str) -> None:
    name = _own(readings, tenant, id)
    try:
        readings.remove(tenant, name)
    except Problem:
        raise
    except SakuinError as error:
        raise Problem(409, readings.shelves.told(error), "context", "busy") from None
