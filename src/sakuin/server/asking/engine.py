"""What requests are run with. Called by the rest of `sakuin.server.asking`."""

from __future__ import annotations

from dataclasses import dataclass, field

from sakuin.backends.base import Backend
from sakuin.config import RetrievalConfig
from sakuin.server.asking.kept import Kept
from sakuin.server.metrics.metrics import Metrics
from sakuin.server.scheduler import Scheduler


@dataclass(frozen=True)
class Engine:
    """config : of caches that are begun for requests."""

    backend: Backend
    scheduler: Scheduler
    kept: Kept
    metrics: Metrics = field(default_factory=Metrics)
    config: RetrievalConfig = field(default_factory=RetrievalConfig)
