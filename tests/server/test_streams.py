"""A stream that is silent says that it is alive, so that no proxy cuts it."""

from __future__ import annotations

import asyncio

from stored import CONFIG, model_of

from sakuin.backends.open import backend_of
from sakuin.server.asking.engine import Engine
from sakuin.server.asking.kept import Kept
from sakuin.server.asking.origins import of_any
from sakuin.server.asking.prompts import of_text
from sakuin.server.asking.running import Alive, Done, Running
from sakuin.server.asking.wanted import Wanted
from sakuin.server.scheduler import Limits, Scheduler


def test_silence_is_told_and_speech_is_not() -> None:
    backend = backend_of(*model_of())

    async def events(alive_s: float, busy: float) -> list[object]:
        with Scheduler(backend, Limits(running=1)) as scheduler:
            engine = Engine(backend, scheduler, Kept(backend, 0), config=CONFIG)
            start = of_any(engine, "", of_text(backend, "The fox"))

            def before():  # type: ignore[no-untyped-def]
                import time

                time.sleep(busy)
                return None
                yield

            scheduler.submit(before())
            running = Running(engine, "", start, Wanted(max_tokens=3, raw=True))
            return [event async for event in running.events(alive_s)]

    silent = asyncio.run(events(0.05, 0.5))
    assert sum(isinstance(event, Alive) for event in silent) >= 3
    assert isinstance(silent[-1], Done)
    assert not any(isinstance(event, Alive) for event in asyncio.run(events(0.0, 0.3)))
    assert not any(isinstance(event, Alive) for event in asyncio.run(events(30.0, 0.1)))
