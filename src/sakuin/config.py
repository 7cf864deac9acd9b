"""Every setting of retrieval attention, validated where it enters and documented once.

`RetrievalConfig` is what a user passes to `RetrievalCache`, `Context` and `build_index`. Nothing here touches
tensors. What only a kind of index knows of its settings, its class is asked for (`sakuin.kinds`).
"""

from __future__ import annotations

import math
from dataclasses import InitVar, dataclass, field, fields, replace
from numbers import Number
from typing import Any, Literal

from sakuin import kinds
from sakuin.arguments import integer, real, shown
from sakuin.quantities import meant

KVDtype = Literal["auto", "bf16", "fp16", "fp32", "int8"]

KV_DTYPES: tuple[str, ...] = ("auto", "bf16", "fp16", "fp32", "int8")
MOST_SEGMENT = 65536
SEGMENT_PER_DIM = 64
"""`segment="auto"` is this many tokens for each of head_dim's dimensions."""


@dataclass(frozen=True)
class RetrievalConfig:
    """Settings of a `RetrievalCache` and of the indexes in it.

    Parameters
    ----------
    index
        How offloaded tokens are found: `"sketch"` (attention-aware, the default), `"flat"` (exact, reads
        everything), `"auto"` (`flat` while the context is short, `sketch` from the length on where that saves
        a fifth of a step's time; docs/indexes.md), `"ivf"` (lists by k-means), `"graph"` (links between keys
        that answer the same queries), or, for comparison only, `"topk"`, `"pages"` or `"streaming"`
        (`sakuin.index.peers`); or a kind of another package or of your own (docs/add-an-index.md).
    sink
        Tokens at the start that are always attended exactly, on the model's device.
    recent
        Least number of newest tokens that are always attended exactly, on the model's device.
    segment
        Tokens in a sealed segment, a multiple of 64; `"auto"` is 64 x head_dim.
    tolerance
        Scales the three thresholds below: 4 is coarser and faster, 0.25 finer and slower, 0 attends exactly
        to everything.
    target_error
        Largest relative error of a step's attention output that an index may estimate of itself, for any
        query head, or None. A step begins with `tolerance`; where its estimate is above the target, the
        thresholds of that KV head are lowered and it attends again, in the end exactly. `"sketch"` and
        `"auto"` only.
    kv_dtype
        How offloaded keys and values are stored; `"auto"` is the model's dtype. `"int8"` (`"sketch"`,
        `"flat"` and `"auto"` only) takes half of bf16: 8 bits a number, with a scale for each channel of a
        segment's keys and for each token's value.
    offload
        Where offloaded tokens lie: in `"memory"`, or on `"disk"`, from where only what a step retrieves is
        read; sketches and bases stay in memory. For contexts larger than memory.
    exact_above
        A forward pass of more query positions than this attends exactly (prefill); fewer go through the
        index.
    rescore_share
        In units of 1 / offloaded tokens: a token that may have a larger share of the attention than this, for
        any query head of its group, is scored again from its code. Below 4096 offloaded tokens this and the
        next two thresholds fall with the tokens, down to a quarter.
    codes_share
        The same units: above this share by its new score, a token's value is read from its code.
    exact_share
        The same units: above this share, key and value are read exactly. Beyond 8192 offloaded tokens it
        falls as 1 / sqrt(tokens) only.
    reach
        Standard deviations of its own sketch error by which a token's score is raised when judging whether it
        may be large; 0.5 + that deviation where it is more, for heads that the sketch shows badly.
    cap
        Largest share of a segment's tokens that a step scores again one by one. Where more may be large, the
        segment is read whole, in order: that is quicker, and bounds the time of a step.
    sketch_bits
        Bits per dimension of a key's sketch, which every step reads; `"auto"` is 1.25, but not more than 128
        bits a key.
    code_bits
        Bits per dimension of the code that refines a key's sketch; `"auto"` is 3 up to head_dim 64, a half
        more for each doubling beyond.
    top_k
        Tokens that each query head attends in `"topk"` and `"pages"`.
    page_size
        Tokens of a page of `"pages"`.
    newest
        Offloaded tokens, the newest, that `"streaming"` attends as if its recent window were so much longer.
    budget
        Tokens that each query head picks in `"ivf"`, to be attended exactly by its whole group: a count if an
        int, a share of the offloaded tokens if a float. Lists are picked whole, so it is a few more. In
        `"graph"` the same, but at most `ef` tokens; 1.0 attends to all.
    nprobe
        Lists that each query head picks in `"ivf"` instead of a `budget` of tokens: a count if an int, a
        share of all lists if a float, None to go by the budget.
    list_size
        Mean number of tokens in a list of `"ivf"`.
    estimate_rest
        Whether `"ivf"` and `"graph"` estimate the tokens that nobody picked, by the mean key and value of
        their list (`"ivf"`) or of 64 neighbouring tokens (`"graph"`), or drop them.
    ef
        Keys among which a walk through a `"graph"` looks for better ones: the longer, the more it finds and
        the more it reads.
    graph_degree
        Links of each key in a `"graph"`.
    options
        Settings that a kind of index has for itself, by name; its defaults for those left out. The kinds
        named above have none.
    ask_kind
        False leaves what only the kind's class can check, and the defaults of its options, to whoever makes
        an index (`sakuin.index.new_index`). For settings of stored contexts, which are listed without torch.
    """

    index: str = "sketch"
    sink: int = 128
    recent: int = 512
    segment: int | Literal["auto"] = "auto"
    tolerance: float = 1.0
    target_error: float | None = None
    kv_dtype: KVDtype = "auto"
    offload: Literal["memory", "disk"] = "memory"
    exact_above: int = 16
    rescore_share: float = 4.0
    codes_share: float = 1.25
    exact_share: float = 30.0
    reach: float = 2.5
    cap: float = 0.6
    sketch_bits: float | Literal["auto"] = "auto"
    code_bits: float | Literal["auto"] = "auto"
    top_k: int = 100
    page_size: int = 16
    newest: int = 0
    budget: int | float = 0.1
    nprobe: int | float | None = None
    list_size: int = 32
    estimate_rest: bool = True
    ef: int = 512
    graph_degree: int = 16
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    ask_kind: InitVar[bool] = field(default=True, kw_only=True)

    def __post_init__(self, ask_kind: bool) -> None:
        self._take_plain_numbers()
        # A stored context may be of a kind whose package is not installed here; it can be listed and removed.
        if not isinstance(self.index, str) or (ask_kind and not kinds.is_known(self.index)):
            _one_of("index", self.index, kinds.names())
        _one_of("kv_dtype", self.kv_dtype, KV_DTYPES)
        _one_of("offload", self.offload, ("memory", "disk"))
        check_whole("sink", self.sink, 0)
        check_whole("recent", self.recent, 1)
        check_whole("exact_above", self.exact_above, 1)
        check_whole("top_k", self.top_k, 1)
        check_whole("page_size", self.page_size, 1)
        check_whole("newest", self.newest, 0)
        check_whole("list_size", self.list_size, 1)
        check_whole("ef", self.ef, 1)
        check_whole("graph_degree", self.graph_degree, 4)
        if self.graph_degree > 128:
            raise ValueError(f"graph_degree must be at most 128, got {self.graph_degree}")
        check_count_or_share("budget", self.budget)
        if self.nprobe is not None:
            check_count_or_share("nprobe", self.nprobe)
        if not isinstance(self.estimate_rest, bool):
            raise ValueError(f"estimate_rest must be True or False, got {shown(self.estimate_rest)}")
        if not isinstance(self.segment, str) or self.segment != "auto":
            check_whole("segment", self.segment, 64)
            if self.segment % 64 or self.segment > MOST_SEGMENT:
                raise ValueError(
                    f"segment must be a multiple of 64 tokens, at most {MOST_SEGMENT}, or 'auto', got "
                    f"{self.segment}"
                )
        for name in ("tolerance", "rescore_share", "codes_share", "exact_share", "reach"):
            check_tolerance(getattr(self, name), name)
        check_between("cap", self.cap, 0.0, 1.0)
        if self.target_error is not None:
            check_between("target_error", self.target_error, 1e-6, 1.0)
        if not isinstance(self.sketch_bits, str) or self.sketch_bits != "auto":
            check_between("sketch_bits", self.sketch_bits, 0.5, 4.0)
        if not isinstance(self.code_bits, str) or self.code_bits != "auto":
            check_between("code_bits", self.code_bits, 1.0, 8.0)
        if not isinstance(self.options, dict):
            raise ValueError(f"options must be a dict of a kind's own settings, got {shown(self.options)}")
        if ask_kind and self._concerns_kind:
            kind = kinds.of(self.index)
            object.__setattr__(self, "options", kinds.completed(kind, self.options))
            kind.check(self)

    def _take_plain_numbers(self) -> None:
        """Hold NumPy's numbers as Python's own, which JSON has too."""
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Number) and not isinstance(value, int | float):
                whole = integer(value)
                plain = real(value) if whole is None else whole
                if plain is not None:
                    object.__setattr__(self, f.name, plain)

    @property
    def _concerns_kind(self) -> bool:
        """Whether there is anything here that the fields alone do not decide."""
        special = self.kv_dtype == "int8" or self.target_error is not None or bool(self.options)
        return special or self.index not in kinds.BUILT_IN

    @classmethod
    def preset(cls, name: str, **changes: Any) -> RetrievalConfig:
        """The settings behind a word: `"fast"`, `"balanced"` (the default), `"faithful"` or `"exact"`;
        `changes` override."""
        _one_of("preset", name, tuple(PRESETS))
        return cls(**{**PRESETS[name], **changes})

    def segment_tokens(self, head_dim: int) -> int:
        """Tokens in a sealed segment for keys of `head_dim` dimensions."""
        return SEGMENT_PER_DIM * head_dim if self.segment == "auto" else int(self.segment)

    def sketch_bits_for(self, head_dim: int) -> float:
        """Bits per dimension of a sketch for keys of `head_dim` dimensions."""
        if self.sketch_bits != "auto":
            return self.sketch_bits
        # The coordinates that carry the logits hardly grow in number with head_dim.
        return min(1.25, 128 / head_dim)

    def code_bits_for(self, head_dim: int) -> float:
        """Bits per dimension of a code for keys of `head_dim` dimensions."""
        if self.code_bits != "auto":
            return self.code_bits
        # The fewer bits the sketch has, the more is left to the code.
        return 3 + max(0.0, math.log2(head_dim / 64) / 2)

    def with_changes(self, **changes: Any) -> RetrievalConfig:
        """A copy with some settings changed, options of the kind of index among them by their names; unknown
        names are refused. Another kind of index begins with its own options."""
        known = {f.name for f in fields(self)}
        own = {name: changes.pop(name) for name in list(changes) if name not in known}
        index = changes.get("index", self.index)
        kept = self.options if index == self.index else {}
        if own:
            declared = kinds.of(index).options if kinds.is_known(index) else {}
            if odd := [name for name in own if name not in declared]:
                known_here = ", ".join(sorted({*known, *declared}))
                raise TypeError(f"unknown setting {odd[0]!r}; the settings are {known_here}")
            changes["options"] = {**changes.get("options", kept), **own}
        return replace(self, **{"options": kept} | changes)

    def as_dict(self) -> dict[str, Any]:
        """All settings by name, in JSON's types; `options` only where the kind of index has some."""
        every = {f.name: getattr(self, f.name) for f in fields(self)}
        return every if self.options else {name: x for name, x in every.items() if name != "options"}


PRESETS: dict[str, dict[str, Any]] = {
    "fast": {"tolerance": 4.0},
    "balanced": {},
    "faithful": {"tolerance": 0.25, "exact_share": 60.0},
    "exact": {"index": "flat"},
}


def check_tolerance(value: float, name: str = "tolerance") -> float:
    """`value` if it is a finite number of at least 0; else a `ValueError` that names it."""
    number = real(value)
    if number is None or number < 0:
        raise ValueError(f"{name} must be a finite number of at least 0, got {shown(value)}")
    return number


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in allowed:
        hint = meant(value, allowed) if isinstance(value, str) else ""
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {shown(value)}{hint}")


_MOST_WHOLE = 2**31 - 1


def check_whole(name: str, value: object, least: int) -> None:
    """Raise a `ValueError` that names `value` unless it is a whole number of at least `least`."""
    number = integer(value)
    if number is None or number < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {shown(value)}")
    if number > _MOST_WHOLE:  # memory is asked for by it
        raise ValueError(f"{name} must be at most {_MOST_WHOLE}, got {shown(value)}")


def check_count_or_share(name: str, value: int | float) -> None:
    """Raise a `ValueError` that names `value` unless it is a count or a share (see `count_of`)."""
    count, share = integer(value), real(value)
    if count is None and share is not None and 0.0 < share <= 1.0:
        return
    if count is None or count < 1:
        raise ValueError(
            f"{name} must be a count (a whole number of at least 1) or a share (a float above 0 and up to "
            f"1.0), got {shown(value)}"
        )


def count_of(value: int | float, whole: int) -> int:
    """What a setting that is a count or a share comes to of `whole` things: at least 1."""
    return max(1, math.ceil(value * whole) if isinstance(value, float) else value)


def check_between(name: str, value: float, low: float, high: float) -> None:
    """Raise a `ValueError` that names `value` unless it is a number from `low` to `high`."""
    number = real(value)
    if number is None or not low <= number <= high:
        raise ValueError(f"{name} must be between {low:g} and {high:g}, got {shown(value)}")
