"""One who asks, and what it may do."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Allowed:
    """Limits of a tenant; None is none.

    requests_per_minute, concurrent : requests. stored_bytes : of its contexts. context_tokens : of each, and
    of a prompt. priority : whose requests go first; the higher.
    """

    requests_per_minute: int | None = None
    concurrent: int | None = None
    stored_bytes: int | None = None
    context_tokens: int | None = None
    priority: int = 0


@dataclass(frozen=True)
class Tenant:
    """One who asks. name : "" where the server has no keys, and everybody is the same.

    grants : names of the operator's own contexts, which it may ask too.
    """

    name: str = ""
    allowed: Allowed = field(default_factory=Allowed)
    grants: frozenset[str] = frozenset()

    @property
    def is_anyone(self) -> bool:
        """Whether the server has no keys: the library's own contexts are everybody's."""
        return not self.name
