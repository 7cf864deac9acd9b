"""Which model, tokenizer and template a context was computed with: what must be the same for it to be
used."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Fingerprint:
    """What must be the same for a stored context to be used: SHA-256 in hex, names of dtypes in torch's
    words.

    rope : the rotary embedding's settings as the configuration has them.
    """

    dtype: str
    config: str
    rope: str
    weights: str
    tokenizer: str
    template: str

    def differences(self, other: Fingerprint) -> str | None:
        """Why what was computed with `self` is of no use to `other`, or None."""
        if self.dtype != other.dtype:
            return f"it was computed in {self.dtype} and this model is in {other.dtype}"
        if self.rope != other.rope:
            return f"its rotary embeddings had the settings {self.rope} and this model's are {other.rope}"
        for name, what in (
            ("config", "another model: the configurations differ"),
            ("weights", "another model: the weights differ"),
            ("tokenizer", "another tokenizer"),
            ("template", "another chat template"),
        ):
            if getattr(self, name) != getattr(other, name):
                return f"it was made with {what}"
        return None

    @property
    def digest(self) -> str:
        """All of it in one hash."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
