"""A part of a sequence, and its name. Importing this needs no torch, so that a library can be listed and
swept without it; naming parts does, since the kind of index is asked.

A name is a hash of everything that the part's numbers follow from, so that equal beginnings are equal parts.
docs/format.md is the format. What a cache is made of is in `sakuin.snapshot.parts`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sakuin import kinds
from sakuin.backends.fingerprint import Fingerprint
from sakuin.config import RetrievalConfig
from sakuin.snapshot.manifest import FORMAT, TRANSFORMERS
from sakuin.snapshot.numbers import int32_bytes

if TYPE_CHECKING:
    from torch import Tensor

    from sakuin.backends.base import Backend

_SEALING = ("index", "sink", "kv_dtype", "list_size")
"""Settings that stand in the name of every part of exactly computed tokens, beside `segment` and the bits of
a sketch. They stand there since format 1, whether the kind of index reads them or not. What else its segments
follow from a kind says itself."""
_ELSEWHERE = ("offload", "recent", "segment", "sketch_bits", "code_bits", "options")


@dataclass(frozen=True)
class Part:
    """A stretch of tokens `start` to `end` of all layers.

    tensors : by "LAYER.NAME"; a window's by names of its backend. facts : strings beside them.
    """

    kind: str
    start: int
    end: int
    tensors: dict[str, Tensor] = field(repr=False)
    facts: dict[str, str] = field(default_factory=dict)


class Names:
    """The names of the parts of one token sequence.

    config : the settings. exact : so many first tokens were computed by exact attention; what comes after
    depends on how tokens are retrieved too. owner : the backend that alone can use them, where the model has
    windows (`owner_of`).
    """

    def __init__(
        self,
        ids: Sequence[int],
        fingerprint: Fingerprint,
        config: RetrievalConfig,
        head_dim: int,
        exact: int,
        owner: str = "",
    ) -> None:
        self._data = memoryview(int32_bytes(ids))
        self._digest, self._at = hashlib.sha256(), 0
        self._fingerprint, self._exact = fingerprint.digest, exact
        self._sealing, self._all = settings_of(config, head_dim)
        self._owner = owner

    def of(self, kind: str, start: int, end: int) -> str:
        """The name of the part, 64 hex digits."""
        if end < self._at:
            self._digest, self._at = hashlib.sha256(), 0
        self._digest.update(self._data[4 * self._at : 4 * end])
        self._at = end
        settings = self._sealing if end <= self._exact else self._all
        facts = [FORMAT, kind, start, end, self._digest.hexdigest(), self._fingerprint, settings]
        facts += [self._owner] if self._owner else []
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def owner_of(backend: Backend) -> str:
    """Whose the parts are that `backend` writes: of any backend (""), or where the model has windows, which
    are each backend's own, of this one. Those of transformers have no mark: once there was no other."""
    return backend.name if backend.shape.has_windows and backend.name != TRANSFORMERS else ""


def settings_of(config: RetrievalConfig, head_dim: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings that exactly computed tokens are stored by, and all that retrieved ones depend on."""
    every, kind = config.as_dict(), kinds.of(config.index)
    own = kind.segment_settings if kind.storable else ()
    options = kinds.completed(kind, config.options)  # the kind may have gained some since
    sealing = {name: every[name] for name in (*_SEALING, *sorted(own))} | {
        "segment": config.segment_tokens(head_dim),
        "sketch_bits": config.sketch_bits_for(head_dim),
        "code_bits": config.code_bits_for(head_dim),
    }
    whole = {name: value for name, value in every.items() if name not in _ELSEWHERE} | sealing
    # One name for each option, so that a message can say which differ.
    whole |= {f"options.{name}": value for name, value in options.items()}
    sealing |= {f"options.{name}": options[name] for name, o in kind.options.items() if o.sealed}
    return sealing, whole
