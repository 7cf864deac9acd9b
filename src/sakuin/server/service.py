"""All that a server holds, opened and closed together: the model, its scheduler, who may ask, what is kept.

`with Service(model, tokenizer, settings) as service: create_app(service)`. Called by `sakuin.server.app` and
`sakuin.cli.serve`.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any, Self

from sakuin.context.checks import ready_backend
from sakuin.context.context import Context
from sakuin.library import Library
from sakuin.server.asking.engine import Engine
from sakuin.server.asking.kept import Kept
from sakuin.server.scheduler import Limits, Scheduler
from sakuin.server.settings import Settings
from sakuin.server.tenants.tenant import Tenant


class Service:
    """A model for many who ask. name : by which clients choose it. started : seconds since 1970."""

    def __init__(self, model: Any, tokenizer: Any, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.backend = ready_backend(model, tokenizer)
        self.name = self.settings.name or self.backend.source.rsplit("/", 1)[-1] or "model"
        self.started = time.time()
        self.scheduler = Scheduler(self.backend, Limits(self.settings.running, self.settings.waiting))
        self.engine = Engine(self.backend, self.scheduler, Kept(self.backend, self.settings.kept_bytes))
        self.library = Library(self.settings.library)
        self.is_open = False
        self._open = ExitStack()
        self._opened: dict[str, Context] = {}

    def __enter__(self) -> Self:
        self._open.enter_context(self.scheduler)
        self.is_open = True
        return self

    def __exit__(self, *_: object) -> None:
        self.is_open = False
        self._open.close()

    @property
    def is_ready(self) -> bool:
        """Whether requests are taken."""
        return self.is_open

    @property
    def n_vocabulary(self) -> int:
        """Tokens of the model."""
        return self.backend.shape.vocabulary

    # -- contexts --------------------------------------------------------------------------------------------

    def context(self, tenant: Tenant, name: str) -> Context:
        """A context that a tenant may ask, opened. Raises `Problem` where there is none."""
        if name not in self._opened:
            self._opened[name] = self.library.open(name, self.backend.model, self.backend.tokenizer)
        return self._opened[name]

    def open_contexts(self, tenant: Tenant) -> list[Context]:
        """Those of a tenant that are open."""
        return list(self._opened.values())

    def context_names(self, tenant: Tenant) -> list[tuple[str, int, int]]:
        """Name, tokens and second of creation of what a tenant may ask."""
        whole = [one for one in self.library.entries() if one.state == "whole"]
        return [(one.name, one.tokens, int(one.created)) for one in whole]
