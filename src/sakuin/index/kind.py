"""What a kind of index says of itself, for all others to ask: its name, sizes and settings, whether it can be
kept.

So a new kind is one class in one file. docs/add-an-index.md goes through it step by step. Called by
`sakuin.index.base`, and wherever something depends on the kind: `sakuin.cache`, `sakuin.snapshot`,
`sakuin.capacity`, `sakuin.evaluate` and the command line.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, ClassVar, TypeVar

from sakuin import kinds
from sakuin.config import RetrievalConfig
from sakuin.errors import SakuinError
from sakuin.index.choice import HeadShape
from sakuin.index.sizes import Layout, Size, size_of
from sakuin.kinds import Option


class Kind(ABC):
    """The class side of an index: nothing here is about one index and its tokens."""

    kind: str
    """The name by which `register` made it known."""
    storable: ClassVar[bool] = False
    """Whether it can be kept in snapshots and on disk: it has `stored`, `state`, `restore` and `replace`."""
    stores_int8: ClassVar[bool] = False
    """Whether it can keep keys and values with `kv_dtype="int8"`."""
    segment_settings: ClassVar[frozenset[str]] = frozenset()
    """Fields of `RetrievalConfig` that its segments follow from, beside `index`, `sink`, `kv_dtype` and
    `segment`, which every kind's do."""
    step_settings: ClassVar[frozenset[str]] = frozenset()
    """Fields of `RetrievalConfig` that its steps read; `"target_error"` is for kinds that estimate their
    error."""
    options: ClassVar[Mapping[str, Option]] = {}
    """Settings of its own, by name; `config.options` has their values."""
    rows: ClassVar[tuple[str, ...]] = ("keys", "values", "value_scale")
    """Tensors of a segment that a step reads in single rows, where it retrieves. With `offload="disk"` they
    are mapped from a file; all others stay in memory."""
    scans_rows: ClassVar[bool] = False
    """Whether each step reads those from one end to the other instead, as `flat` does."""
    offered: ClassVar[bool] = True
    """Whether the remedy for a kind that cannot be kept names it; not so for kinds that are there for
    comparison."""
    values_differ: ClassVar[bool] = False
    """Whether it takes values of another size than keys: its class is then also called with
    `value_dim=...`."""
    peer: ClassVar[bool] = False
    """Whether `sketch` is compared with it: evaluations then count what it touches in its favour, as if its
    numbers took 2 bytes."""
    free_search: ClassVar[bool] = False
    """Whether evaluations count what it attends alone, as if finding it read nothing: for a bound."""

    @classmethod
    @abstractmethod
    def layout(cls, heads: HeadShape, n_tokens: int, config: RetrievalConfig, stored: str) -> Layout:
        """The tensors of a segment of `n_tokens` tokens: those that `Index.stored` gives, or for a kind that
        cannot be kept those that it holds.

        stored : how keys and values are kept: `"bf16"`, `"fp16"`, `"fp32"` or `"int8"`. They are called
        `keys` and `values`, their scales `key_scale`, `key_zero` and `value_scale`; all else counts as index.
        """

    @classmethod
    def longest_segment(cls, head_dim: int, config: RetrievalConfig) -> int | None:
        """Most tokens of a segment; None where all tokens are one."""
        return config.segment_tokens(head_dim)

    @classmethod
    def bytes_for(cls, heads: HeadShape, n_tokens: int, config: RetrievalConfig, stored: str) -> Size:
        """What `n_tokens` tokens take in one layer, in as few segments as they fit in. stored : as in
        `layout`."""
        longest = cls.longest_segment(heads.head_dim, config) or max(n_tokens, 1)
        whole, rest = divmod(n_tokens, longest)
        size = Size()
        if whole:
            size += size_of(cls.layout(heads, longest, config, stored), cls.rows) * whole
        if rest:
            size += size_of(cls.layout(heads, rest, config, stored), cls.rows)
        return size

    @classmethod
    def chosen_for(cls, heads: HeadShape, n_tokens: int, config: RetrievalConfig, stored: str) -> type[Kind]:
        """The kind that holds so many offloaded tokens: this one, unless it chooses among others."""
        return cls

    @classmethod
    def knob(cls, n_tokens: int, u: float) -> dict[str, Any]:
        """Settings with which a step touches more or less of `n_tokens` offloaded tokens: the least at u = 0,
        the most at u = 1. All are settings that each step reads, so that nothing is built anew. Empty where
        there are no such settings.
        """
        return {}

    @classmethod
    def check(cls, config: RetrievalConfig) -> None:
        """Raise a `ValueError` where the settings are not for this kind."""
        if config.kv_dtype == "int8" and not cls.stores_int8:
            able = [name for name, kind in kinds.loaded().items() if kind.stores_int8]
            raise ValueError(
                f"kv_dtype='int8' needs an index of {', '.join(able)}, and index is {cls.kind!r}; change one "
                "of them"
            )
        if config.target_error is not None and "target_error" not in cls.step_settings:
            able = [name for name, kind in kinds.loaded().items() if "target_error" in kind.step_settings]
            others = " or ".join(map(repr, able[1:]))
            raise ValueError(
                f"target_error needs index={able[0]!r}, which estimates its error, or {others}; got "
                f"index={cls.kind!r}"
            )

    @classmethod
    def check_storable(cls) -> None:
        """Raise a `SakuinError` where the kind cannot be kept on disk."""
        if not cls.storable:
            able = [name for name, kind in kinds.loaded().items() if kind.storable and kind.offered]
            raise SakuinError(
                f"an index of kind {cls.kind!r} cannot be kept on disk; use {', '.join(able[:-1])} or "
                f"{able[-1]}."
            )

    @classmethod
    def builds(cls, config: RetrievalConfig) -> dict[str, Any]:
        """The settings of this kind that what is built follows from, by name. What steps alone read, of this
        or another kind, is left out."""
        free = {"exact_above"}.union(*(kind.step_settings for kind in kinds.loaded().values()))
        every = config.as_dict()
        given = kinds.completed(cls, config.options)
        sealed = {name: given[name] for name, option in cls.options.items() if option.sealed}
        kept = {name: x for name, x in every.items() if name not in free - cls.segment_settings}
        return kept | ({"options": sealed} if cls.options else {})


_BUILT_BY = frozenset({"index", "sink", "recent", "segment", "kv_dtype", "offload"})
"""Settings that what is built follows from, whatever the kind."""

T = TypeVar("T", bound=type[Kind])


def register(kind: str) -> Callable[[T], T]:
    """Class decorator: make `kind` a name that `RetrievalConfig.index`, `build_index` and the command line
    accept.

    The class is called with `(n_kv_heads, head_dim, group_size, config)` and makes an empty index.
    """

    def add(cls: T) -> T:
        settings = {f.name for f in fields(RetrievalConfig)}
        if odd := (cls.segment_settings | cls.step_settings) - settings:
            raise ValueError(f"{cls.__name__} names the settings {sorted(odd)}, which RetrievalConfig lacks")
        if built := cls.step_settings & _BUILT_BY:
            raise ValueError(
                f"{cls.__name__} names {sorted(built)} as settings of a step, and every index is built by "
                "them; leave them out"
            )
        if both := settings & set(cls.options):
            raise ValueError(
                f"{cls.__name__} has options {sorted(both)}, which are settings of RetrievalConfig; give "
                "them other names"
            )
        for name, option in cls.options.items():
            option.check(name, option.default)
        kinds.add(kind, cls)
        cls.kind = kind
        return cls

    return add


def kind_of(name: str) -> type[Kind]:
    """The class of the kind that is named `name`."""
    found: type[Kind] = kinds.of(name)
    return found


def differences(one: RetrievalConfig, other: RetrievalConfig) -> list[str]:
    """The settings by which two configurations build other segments; where there are none, each can go on
    with the other's."""
    if one.index != other.index:
        return ["index"]
    kind = kind_of(one.index)
    mine, theirs = kind.builds(one), kind.builds(other)
    return [name for name in mine if mine[name] != theirs[name]]


def by_ratio(n_tokens: int, u: float) -> int:
    """A number of tokens from 1 (u = 0) to `n_tokens` (u = 1), in equal ratios. For `Kind.knob`."""
    return max(1, round(math.pow(n_tokens, u)))
