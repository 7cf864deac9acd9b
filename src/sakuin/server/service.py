"""All that a server holds, opened and closed together: the model, its scheduler, who may ask, what is kept.

`with Service(model, tokenizer, settings) as service: create_app(service)`. Called by `sakuin.server.app` and
`sakuin.cli.serve`.
"""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import ExitStack, suppress
from functools import cached_property
from typing import Any, Self

from sakuin.context.checks import ready_backend
from sakuin.context.context import Context
from sakuin.errors import SakuinError
from sakuin.library import Library
from sakuin.library.like import beginning_like
from sakuin.prompts.template import Prompt
from sakuin.server.asking.engine import Engine
from sakuin.server.asking.kept import Kept
from sakuin.server.constraints.grammars import Grammars
from sakuin.server.contexts.readings import Readings
from sakuin.server.contexts.shelf import Shelves
from sakuin.server.metrics.metrics import Metrics, Sources
from sakuin.server.problems import Problem
from sakuin.server.scheduler import Limits, Scheduler
from sakuin.server.settings import Settings
from sakuin.server.tenants.audit import Audit
from sakuin.server.tenants.door import Door
from sakuin.server.tenants.keys import Keys
from sakuin.server.tenants.limits import TenantLimits
from sakuin.server.tenants.tenant import Tenant
from sakuin.storage.folders import free_bytes

_LONG = 512
"""Tokens of a prompt from which on it is looked whether a stored context begins like it."""


class Service:
    """A model for many who ask. name : by which clients choose it. started : seconds since 1970."""

    def __init__(self, model: Any, tokenizer: Any, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.backend = ready_backend(model, tokenizer)
        self.name = self.settings.name or self.backend.source.rsplit("/", 1)[-1] or "model"
        self.started = time.time()
        self.scheduler = Scheduler(self.backend, Limits(self.settings.running, self.settings.waiting))
        kept = Kept(self.backend, self.settings.kept_bytes)
        self.shelves = Shelves(self.settings.library, self.backend)
        self.readings = Readings(self.shelves, self.settings)
        self.metrics = Metrics(self._sources())
        self.engine = Engine(self.backend, self.scheduler, kept, self.metrics)
        self.grammars = Grammars(self.backend)
        self.keys = None if self.settings.api_keys is None else Keys(self.settings.api_keys)
        if self.keys is not None:
            self.keys.check()
        self.door = Door(self.keys, TenantLimits())
        self.audit = Audit(self.settings.audit, self.settings.audit_contents)
        self.is_open = False
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._open.callback(self.audit.close)
        self._open.callback(self.door.close)
        self._open.callback(self.shelves.close)
        self._open.callback(self.readings.close)  # which is soon done where the scheduler is closed
        self._open.enter_context(self.scheduler)
        self._open.enter_context(self.metrics)
        self._open.callback(self.readings.stop)
        self.readings.__enter__()
        # What is loaded stays: the collector need not look at it for every answer.
        gc.collect()
        gc.freeze()
        self._open.callback(gc.unfreeze)
        self.is_open = True
        return self

    def __exit__(self, *_: object) -> None:
        self.is_open = False
        self._open.close()

    def _sources(self) -> Sources:
        """What it can say of its state."""
        return Sources(
            queue=self.scheduler.counts,
            turns=lambda: self.scheduler.turns,
            contexts=self._contexts,
            readings=lambda: dict(zip(("reading", "queued"), self.readings.counts(), strict=True)),
            kv_bytes=self._kv_bytes,
            library_bytes=lambda: self.shelves.library.folder.size(),
            disk_free=lambda: free_bytes(self.shelves.root),
            model=self.name,
            backend=self.backend.name,
        )

    @property
    def is_ready(self) -> bool:
        """Whether requests are taken."""
        return self.is_open

    @cached_property
    def has_system(self) -> bool:
        """Whether the model's chat template has a place for a system message."""
        try:
            Prompt.of(self.backend.vocabulary, "system")
        except SakuinError:
            return False
        return True

    def check_length(self, tenant: Tenant, n_tokens: int, param: str = "messages") -> None:
        """Refuse a prompt that is longer than a tenant may send."""
        most = tenant.allowed.context_tokens
        if most is not None and n_tokens > most:
            raise Problem(
                400,
                f"The prompt is {n_tokens:,} tokens long, and with this key it may have {most:,}.",
                param,
                "context_length_exceeded",
                n_prompt_tokens=n_tokens,
                n_ctx=most,
            )

    @property
    def n_vocabulary(self) -> int:
        """Tokens of the model."""
        return self.backend.shape.vocabulary

    def _contexts(self) -> dict[str, int]:
        """How many are open, and stored: files that are counted, not read."""
        stored = sum(1 for _ in self.shelves.root.glob("contexts/*.json"))
        stored += sum(1 for _ in self.shelves.root.glob("tenants/*/contexts/*.json"))
        return {"open": self.shelves.counts()[0], "stored": stored}

    def _kv_bytes(self) -> dict[str, int]:
        """Of open contexts, and of what requests left."""
        total: Counter[str] = Counter()
        for context in self.shelves.open_contexts():
            total.update(self.backend.nbytes(context.cache))
        total["host"] += self.engine.kept.nbytes
        return dict(total)

    # -- contexts --------------------------------------------------------------------------------------------

    def context(self, tenant: Tenant, name: str) -> Context:
        """A context that a tenant may ask, opened. Raises `Problem` where there is none."""
        return self.shelves.of(tenant).open(name)

    def contexts_like(self, tenant: Tenant, ids: Sequence[int]) -> list[Context]:
        """Contexts that a tenant may ask of which a prompt may be the sequel: those that are open, and the
        stored one that begins most like it."""
        shelf, shared = self.shelves.of(tenant), self.shelves.library
        found = self.shelves.open_contexts(shelf.library)
        places: list[tuple[Library, Collection[str] | None]] = [(shelf.library, None)]
        if not tenant.is_anyone and tenant.grants:
            places.append((shared, tenant.grants))
        if len(ids) < _LONG:
            return found
        for library, among in places:
            name, n = beginning_like(library.folder, self.backend, self.engine.config, ids, among)
            if n >= _LONG // 2:
                with suppress(Problem):  # it was removed meanwhile
                    found.append(shelf.open(name))
        return found

    def context_names(self, tenant: Tenant) -> list[tuple[str, int, int]]:
        """Name, tokens and second of creation of what a tenant may ask."""
        every = self.shelves.of(tenant).entries()
        return [(one.name, one.tokens, int(one.created)) for one, _ in every]
