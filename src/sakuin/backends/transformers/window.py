"""Past the window that a model was made for: YaRN (arXiv 2309.00071) through the model's configuration.

Rotary embeddings turn each pair of a key's dimensions by an angle that grows with the position. Beyond the
window a model meets angles that it has never seen. YaRN slows the slow pairs down by the factor of the longer
window, leaves the fast ones, and sharpens the attention a little; transformers computes all this from the
configuration, so that neither weights nor code change. Frequencies stay the same at every length, so that
cached keys stay right.

`RopeLimit` is for embeddings whose frequencies do change with the length: where, and the refusal of passes
beyond.

Called by `sakuin.backends.transformers.load`, `shape` and `cache`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig

from sakuin.backends.window import check_window
from sakuin.errors import SakuinError

_SLIDING = "sliding_attention"


def own_window(config: PreTrainedConfig) -> int | None:
    """The longest context in tokens that a model of this configuration was made for, or None where it does
    not say."""
    length = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(length) if length else None


def original_window(config: PreTrainedConfig) -> int | None:
    """The window from which YaRN scales the positions of such a model; `own_window` where none does."""
    parameters = getattr(config.get_text_config(), "rope_parameters", None) or {}
    for each in (parameters, *parameters.values()):
        if isinstance(each, dict) and each.get("rope_type", each.get("type")) == "yarn":
            return int(each.get("original_max_position_embeddings") or 0) or own_window(config)
    return own_window(config)


def with_window(config: PreTrainedConfig, window: int, name: str = "this model") -> PreTrainedConfig:
    """A copy of a configuration whose model reads `window` tokens, by YaRN where that is more than its own.

    Layers of sliding-window attention that have rotary embeddings of their own keep them: they never see far.

    name : of the model, for what errors say.

    Raises `SakuinError` where the window is shorter than the model's own, or its positions cannot be scaled
    so.
    """
    own = check_window(name, own_window(config), window)
    changed = copy.deepcopy(config)
    if window == own:
        return changed
    text = changed.get_text_config()
    parameters = dict(getattr(text, "rope_parameters", None) or {})
    nested = [key for key, value in parameters.items() if isinstance(value, dict)]
    if nested:
        for key in nested:
            if key != _SLIDING:
                parameters[key] = _yarn(parameters[key], own, window, name)
    else:
        parameters = _yarn(parameters, own, window, name)
    text.rope_parameters = parameters
    text.max_position_embeddings = window
    return changed


def _yarn(parameters: dict[str, Any], own: int, window: int, name: str) -> dict[str, Any]:
    kind = parameters.get("rope_type", parameters.get("type"))
    if "rope_theta" not in parameters or kind is None:
        raise SakuinError(
            f"{name} has no rotary embeddings, so its window of {own:,} tokens cannot be made longer by YaRN."
        )
    if kind not in ("default", "yarn"):
        raise SakuinError(
            f"{name} scales its positions already ({kind}), which YaRN cannot be put upon: use it within its "
            f"window of {own:,} tokens."
        )
    original = int(parameters.get("original_max_position_embeddings") or own)
    return parameters | {
        "rope_type": "yarn",
        "factor": window / original,
        "original_max_position_embeddings": original,
    }


@dataclass(frozen=True)
class RopeLimit:
    """The kind of rotary embedding whose frequencies depend on the length, and the length at which they
    change."""

    kind: str
    tokens: int

    @classmethod
    def of(cls, text_config: Any) -> RopeLimit | None:
        """That of a model; None where its frequencies never change."""
        parameters = getattr(text_config, "rope_parameters", None) or {}
        nested = [value for value in parameters.values() if isinstance(value, dict)]
        limits = []
        for one in nested or [parameters]:
            kind = one.get("rope_type", "default")
            if kind in ("dynamic", "longrope"):
                limit = one.get("original_max_position_embeddings") or text_config.max_position_embeddings
                limits.append((int(limit), str(kind)))
        if not limits:
            return None
        limit, kind = min(limits)
        return cls(kind, limit)

    def check(self, before: int, after: int) -> None:
        """Refuse the pass in which the model would change the frequencies of keys that are already cached."""
        kind, limit = self.kind, self.tokens
        if after > limit and before and (kind == "dynamic" or before <= limit):
            raise ValueError(
                f"rotary embeddings of type {kind!r} change when a sequence grows beyond {limit} tokens "
                f"(here from {before} to {after}), which makes cached keys wrong: keep prompt and answer "
                f"within {limit} tokens or use YaRN scaling"
            )
