"""Work that may wait or compute, in threads beside the server's loop.

Called by all of `sakuin.server` that runs in the loop.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

from starlette.concurrency import run_in_threadpool

from sakuin.machine.threads import let_team_go

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` returns in a thread that may wait. The threads of OpenMP that it began are let go, else
    they would slow down those of the model."""
    return await run_in_threadpool(_alone, partial(work, *args, **kwargs))


def _alone(work: Callable[[], T]) -> T:
    try:
        return work()
    finally:
        let_team_go()
