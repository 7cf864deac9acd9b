"""All that a server holds, opened and closed together: the model, its scheduler, who may ask, what is kept.

`with Service(model, tokenizer, settings) as service: create_app(service)`. Called by `sakuin.server.app` and
`sakuin.cli.serve`.
"""

from __future__ import annotations

import time
from typing import Any, Self

from sakuin.context.checks import ready_backend
from sakuin.server.scheduler import Limits, Scheduler
from sakuin.server.settings import Settings


class Service:
    """A model for many who ask. name : by which clients choose it. started : seconds since 1970."""

    def __init__(self, model: Any, tokenizer: Any, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.backend = ready_backend(model, tokenizer)
        self.name = self.settings.name or self.backend.source.rsplit("/", 1)[-1] or "model"
        self.started = time.time()
        self.scheduler = Scheduler(self.backend, Limits(self.settings.running, self.settings.waiting))
        self.is_open = False

    def __enter__(self) -> Self:
        self.scheduler.__enter__()
        self.is_open = True
        return self

    def __exit__(self, *_: object) -> None:
        self.is_open = False
        self.scheduler.close()
