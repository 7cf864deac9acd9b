"""The named configurations that every evaluation runs side by side: full attention, the presets, and each
kind of index at its settings, at others, or at a given share of touched bytes.

A name is `KIND_OR_PRESET[:SETTING=VALUE,...][@SHARE]`: `balanced`, `ivf:estimate_rest=false`, `pages@9%`,
`pages@balanced`. So methods can be compared at equal bytes: `@9%` turns the kind's one knob (`Kind.knob`)
until a step touches that share of the offloaded keys and values (`calibrated`), `@balanced` until it touches
what `balanced` does.

Called by the evaluations beside it and by `sakuin eval`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

from sakuin import kinds
from sakuin.config import PRESETS, RetrievalConfig
from sakuin.errors import SakuinError
from sakuin.index.kind import kind_of

FULL = "full"
"""The name of the model's own full attention, with transformers' own cache."""

STEPS = 14
CLOSE = 0.02
"""A share counts as reached within so much of itself, or after so many steps of bisection."""


@dataclass(frozen=True)
class Configuration:
    """One way to attend, under a name for tables.

    config : the settings; None is full attention.
    share : the touched share that the kind's knob is to be turned to, or None to take the settings as they
        are.
    like : the name of a configuration whose touched share that is to be; None where `share` is known.
    """

    name: str
    config: RetrievalConfig | None
    share: float | None = None
    like: str | None = None

    @property
    def kind(self) -> str:
        """`"full"` or the kind of index."""
        return FULL if self.config is None else self.config.index

    @property
    def context_config(self) -> Any:
        """What `sakuin.Context` takes for it: settings, or the word `"full"`."""
        return FULL if self.config is None else self.config

    @property
    def state(self) -> list[Any]:
        """All that it does, in JSON's types."""
        settings = None if self.config is None else self.config.as_dict()
        return [settings, self.share, None if self.like is None else configuration(self.like).state]

    @property
    def key(self) -> str:
        """What results are kept under: its name and a digest of what that means, so that other settings of
        the same name are another."""
        return f"{self.name} {hashlib.sha256(json.dumps(self.state).encode()).hexdigest()[:12]}"

    def at(self, share: float) -> Configuration:
        """The same, under the same name, at a touched share."""
        return replace(self, share=share, like=None)


def configurations(names: str | Iterable[str]) -> list[Configuration]:
    """The configurations of several names, or of one string with blanks between them; each once, in order."""
    words = names.split() if isinstance(names, str) else list(names)
    if not words:
        raise SakuinError(f"name at least one configuration: {_known()}.")
    return [configuration(name) for name in dict.fromkeys(words)]


def configuration(name: str) -> Configuration:
    """The configuration of a name; a `SakuinError` says what is wrong with it."""
    rest, at, share = name.partition("@")
    word, _, given = rest.partition(":")
    changes = _changes(name, word, given)
    if word == FULL:
        if given or at:
            raise SakuinError(f"full attention has no settings and no share to set, got {name!r}.")
        return Configuration(name, None)
    if word in PRESETS:
        settings = {**PRESETS[word], **changes}
    elif kinds.is_known(word):
        settings = {"index": word, **changes}
    else:
        raise SakuinError(f"there is no configuration {word!r}; there are {_known()}.")
    try:
        config = RetrievalConfig().with_changes(**settings)
    except (TypeError, ValueError) as error:
        raise SakuinError(f"configuration {name!r}: {error}.") from None
    if not at:
        return Configuration(name, config)
    if not kind_of(config.index).knob(2, 0.0):
        able = [kind for kind, known in kinds.loaded().items() if known.knob(2, 0.0)]
        raise SakuinError(
            f"{name!r}: {word} has no knob that changes what it touches; @SHARE works for {', '.join(able)}."
        )
    if share.partition(":")[0] in PRESETS or kinds.is_known(share.partition(":")[0]):
        other = configuration(share)
        if other.share or other.like:
            raise SakuinError(f"{name!r}: what it is to be like cannot be at a share itself.")
        return Configuration(name, config, like=share)
    return Configuration(name, config, _share(name, share))


def with_full(others: Iterable[Configuration]) -> list[Configuration]:
    """Full attention, and then the others; a `SakuinError` where there are none."""
    beside = [one for one in others if one.config is not None]
    if not beside:
        raise SakuinError("name at least one configuration beside full attention, which is always run.")
    return [Configuration(FULL, None), *beside]


def _known() -> str:
    return ", ".join((FULL, *PRESETS, *kinds.names()))


def _changes(name: str, word: str, text: str) -> dict[str, Any]:
    known = {field.name for field in fields(RetrievalConfig)} - {"index", "options"}
    if kinds.is_known(word):
        known |= set(kind_of(word).options)
    changes: dict[str, Any] = {}
    for piece in text.split(",") if text else ():
        key, equals, value = piece.partition("=")
        if not equals or key not in known:
            raise SakuinError(
                f"{piece!r} in the configuration {name!r} is no setting; write SETTING=VALUE with one of "
                f"{', '.join(sorted(known))}."
            )
        try:
            changes[key] = json.loads(value.lower().replace("none", "null"))
        except json.JSONDecodeError:
            changes[key] = value
    return changes


def _share(name: str, text: str) -> float:
    number = text.removesuffix("%")
    try:
        share = float(number) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise SakuinError(
            f"the share in {name!r} must be above 0 % and at most 100 %, as in @9%, or a configuration to be "
            "like, as in @balanced."
        )
    return share


# -- at a given share --------------------------------------------------------------------------------------


def calibrated(
    wanted: Configuration,
    n_tokens: int,
    measure: Callable[[RetrievalConfig], float],
    *,
    nearest: bool = False,
) -> RetrievalConfig:
    """The settings with which `wanted` touches its share of `n_tokens` offloaded tokens.

    measure : the touched share of some settings, on a few steps. nearest : take the least that the kind can
        touch where that is more than its share; else that is a `SakuinError`.
    """
    assert wanted.config is not None
    if wanted.share is None:
        return wanted.config
    knob, low, high = kind_of(wanted.kind).knob, 0.0, 1.0

    def settings(u: float) -> RetrievalConfig:
        assert wanted.config is not None
        return wanted.config.with_changes(**knob(n_tokens, u))

    least = measure(settings(low))
    if least > wanted.share * (1 + CLOSE):
        if nearest:
            return settings(low)
        raise SakuinError(
            f"{wanted.name!r} cannot be had here: {wanted.kind} touches at least {least:.1%} of {n_tokens:,} "
            "offloaded tokens; give it a larger share."
        )
    best, found = settings(low), least
    for _ in range(STEPS):
        if abs(found - wanted.share) <= CLOSE * wanted.share:
            break
        middle = (low + high) / 2
        config = settings(middle)
        share = measure(config)
        if abs(share - wanted.share) < abs(found - wanted.share):
            best, found = config, share
        if share <= wanted.share:
            low = middle
        else:
            high = middle
    return best
