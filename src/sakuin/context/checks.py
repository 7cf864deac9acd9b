"""What a context checks of its settings, messages and length before any work begins.

Each function raises one sentence that names the value and the remedy. Called by `sakuin.context.context` and
the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from sakuin.config import RetrievalConfig
from sakuin.errors import SakuinError

_FOR_QUESTION = 512
"""Tokens left to question and answer where it is said how much of a document fits."""


def check_length(window: int | None, tokens: int, characters: int) -> None:
    """Raise `SakuinError` where a context of so many tokens and characters is longer than a model reads.

    window : most tokens that the model was made for, or None where it does not say.
    """
    if window is None or tokens < window:
        return
    share = max(window - _FOR_QUESTION, 0) / tokens
    raise SakuinError(
        f"the document is {tokens:,} tokens long and this model reads at most {window:,}, question and "
        f"answer included; about the first {share:.0%} of it ({int(share * characters):,} characters) fit: "
        "shorten it, take a model with a longer window, or make this one's longer (`window`, by YaRN)."
    )


def checked_message(i: int, message: Mapping[str, Any]) -> dict[str, str]:
    """Role and text of a message; lists of text parts, as some programs write them, are joined."""
    role, content = message.get("role"), message.get("content")
    if isinstance(content, list) and all(isinstance(part, Mapping) and "text" in part for part in content):
        content = "".join(str(part["text"]) for part in content)
    if not isinstance(role, str) or not isinstance(content, str):
        raise SakuinError(
            f"message {i + 1} must have a role and a text as content, got {dict(message)!r:.80}; give "
            '{"role": "user", "content": "…"}.'
        )
    return {"role": role, "content": content}


def settings_meant(config: RetrievalConfig | Literal["full"] | None) -> RetrievalConfig | None:
    """The settings that a `config` argument means; None is full attention."""
    if config is None:
        return RetrievalConfig()
    if config == "full":
        return None
    if not isinstance(config, RetrievalConfig):
        raise TypeError(f"config must be a RetrievalConfig or 'full', got {config!r}")
    return config
