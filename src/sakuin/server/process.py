"""The server as a process: uvicorn at a socket, until a signal ends it.

uvicorn alone kills itself by the signal that it was ended by, so that nothing behind it is closed, and cuts
what still runs after its patience without a word. Called by `sakuin.cli.serve`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from types import FrameType

import uvicorn
from fastapi import FastAPI

from sakuin.server.connection import Connection
from sakuin.server.service import Service
from sakuin.server.settings import Settings

HEADER_BYTES = 16384
"""Of a request's line and headers together."""
_LAST_WORDS_S = 5.0
"""Seconds for saying that the server goes down to whoever still waits after `Settings.drain_s`."""
_SWITCH_S = 5e-4
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def config_of(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """How uvicorn serves `app`."""
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        h11_max_incomplete_event_size=HEADER_BYTES,
        log_config=None,
        log_level=settings.log_level,
        access_log=False,  # each request is logged with its id
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=int(settings.drain_s + _LAST_WORDS_S),
        timeout_keep_alive=30,
    )


class Server(uvicorn.Server):
    """uvicorn that lets what runs end, or be told that it cannot, and then returns.

    The first signal takes no more requests; what runs has `Settings.drain_s`, then the scheduler is closed,
    and each request says so. A second signal ends the process at once: what was acknowledged is on the disk.
    """

    def __init__(self, app: FastAPI, service: Service) -> None:
        super().__init__(config_of(app, service.settings))
        self._service = service

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are handled by `run`, for longer than uvicorn runs."""
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            os._exit(128 + sig)
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.readings.stop()  # who waits for a reading, or watches it, waits no longer
        ending = asyncio.create_task(self._end_late())
        try:
            await super().shutdown(sockets)
        finally:
            ending.cancel()

    async def _end_late(self) -> None:
        await asyncio.sleep(self._service.settings.drain_s)
        await asyncio.to_thread(self._service.scheduler.close)


def run(app: FastAPI, service: Service, listening: socket.socket) -> None:
    """Serve `app` at a socket until a signal comes, and close `service`, which is entered here. Called in the
    main thread."""
    server = Server(app, service)
    before = {one: signal.signal(one, server.handle_exit) for one in _SIGNALS}
    try:
        # The thread that runs the model shall not wait for this one, which tells what it says.
        sys.setswitchinterval(_SWITCH_S)
        with service:
            server.run(sockets=[listening])
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
