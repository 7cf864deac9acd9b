"""Which model, tokenizer and template a context was computed with: what must be the same for it to be
used."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

_FILE = "gguf:"


def of_file(digest: str) -> str:
    """The mark of weights that is made of the file that they lie in, not of the weights in memory."""
    return _FILE + digest


def hash_of(value: Any) -> str:
    """SHA-256 of a value as JSON, in hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True)
class Fingerprint:
    """What must be the same for a stored context to be used: SHA-256 in hex, names of dtypes in torch's
    words.

    rope : the rotary embedding's settings as the configuration has them. weights : of a model of a GGUF file,
    as `of_file` says.
    """

    dtype: str
    config: str
    rope: str
    weights: str
    tokenizer: str
    template: str

    @property
    def is_of_file(self) -> bool:
        """Whether it is that of a GGUF file, which any backend may run; else of weights in memory."""
        return self.weights.startswith(_FILE)

    def differences(self, other: Fingerprint) -> str | None:
        """Why what was computed with `self` is of no use to `other`, or None."""
        if self.dtype != other.dtype:
            return f"it was computed in {self.dtype} and this model is in {other.dtype}"
        if self.is_of_file and not other.is_of_file:
            return "it was made with a model of a GGUF file, which this model is not"
        if other.is_of_file and not self.is_of_file:
            return "it is marked by weights in memory, which do not tell the GGUF file that they came from"
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
