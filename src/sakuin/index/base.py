"""What every index is: one protocol for finding and attending the offloaded tokens of one sequence in one
layer.

An index holds a chain of sealed segments (`sakuin.cache.sequence`). `append` seals new tokens into it,
`attend` and `decode` run one step over it, `blocks` hands its keys and values to exact attention, `fork`
shares its segments.

A kind of index is one subclass in one file, registered by `register`; `sakuin.index.kind` has what its class
says beside this. docs/add-an-index.md goes through it step by step.

Called by `sakuin.backends.transformers.cache` and by users through `sakuin.build_index`. Nothing here knows
of models or caches.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Chain
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sakuin import kinds
from sakuin.attention.exact import static_attention, static_mass
from sakuin.attention.partial import PartialAttention, Stats, merge
from sakuin.attention.softmax import Softmax
from sakuin.config import RetrievalConfig
from sakuin.copies import CopiedByFork
from sakuin.errors import reports_memory
from sakuin.index import _native
from sakuin.index.choice import HeadShape
from sakuin.index.kind import Kind

Pair = tuple[Tensor, Tensor]
"""Keys and values."""

_TAKE_MEMORY = frozenset({"append", "attend", "crop", "decode", "replace", "restore", "search"})
"""What takes memory that grows with the tokens."""


@dataclass
class Static:
    """What a decode step attends exactly beside the index: sink tokens, recent window and the step's own
    positions.

    sink_keys, sink_values, recent_keys, recent_values : CPU tensors `(n_kv_heads, n, head_dim)`, the step's
        own t positions last. Sink and recent window stay in buffers of their own; either may be empty.
    s_aux : the model's attention sink logit per query head, fp32 `(n_query_heads,)`, or None.

    Position i of t sees all but the last t - 1 - i tokens of the recent span.
    """

    sink_keys: Tensor
    sink_values: Tensor
    recent_keys: Tensor
    recent_values: Tensor
    s_aux: Tensor | None = None


@dataclass(frozen=True)
class StoredSegment:
    """A sealed segment as a file holds it: everything that is needed to use it again, nothing to be computed.

    kind : of the index that the segment belongs to. tensors : by name, of any dtype and shape; a segment made
    of them only reads them, so that they may be mapped.
    """

    kind: str
    n_tokens: int
    tensors: dict[str, Tensor]


class Index(CopiedByFork, Kind):
    """Offloaded tokens of one sequence in one layer, searchable.

    All tensors are on the CPU; keys and values `(n_kv_heads, n_tokens, head_dim)` in bf16, fp16 or fp32, any
    strides. Queries are `(n_query_heads, t, head_dim)`; query heads of one group are neighbours, as in
    transformers.

    n_kv_heads, head_dim, group_size : of the layer; query heads of a KV head are a group.
    value_dim : dimensions of a value where they are others than a key's (`Kind.values_differ`); then
        values and outputs have them in the place of head_dim.
    """

    _instead = (
        "keep its keys and values, and build it again with sakuin.build_index; what a model has read is kept "
        "by sakuin.Context.save"
    )

    def __init_subclass__(cls) -> None:
        """In every kind, memory that runs out is a `MemoryError` with a sentence."""
        super().__init_subclass__()
        for name in _TAKE_MEMORY & vars(cls).keys():
            setattr(cls, name, reports_memory(vars(cls)[name]))

    def __init__(
        self,
        n_kv_heads: int,
        head_dim: int,
        group_size: int,
        config: RetrievalConfig,
        *,
        value_dim: int | None = None,
    ) -> None:
        self.n_kv_heads, self.head_dim, self.group_size = n_kv_heads, head_dim, group_size
        self.value_dim = head_dim if value_dim is None else value_dim
        self.config = config

    @property
    def heads(self) -> HeadShape:
        """The shape of the layer's heads."""
        return HeadShape(self.head_dim, self.group_size, self.n_kv_heads, self.value_dim)

    @property
    @abstractmethod
    def n_tokens(self) -> int:
        """Offloaded tokens in the index."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of host memory that the index holds, keys and values included."""

    @property
    def kv_bytes(self) -> int:
        """Bytes of `nbytes` that keys and values take as they are stored, scales included."""
        return sum(keys.nbytes + values.nbytes for keys, values in self.blocks())

    def offloaded_bytes(self, t: int) -> int:
        """`Stats.offloaded_bytes` of a call for t positions."""
        return 2 * t * self.n_kv_heads * self.n_tokens * (self.head_dim + self.value_dim)

    def check_query(self, q: Tensor) -> None:
        """Raise a `TypeError` or `ValueError` unless `q` is `(n_query_heads, t, head_dim)` as the index
        takes it."""
        check_array("q", q, self.n_kv_heads * self.group_size, self.head_dim)

    def seen_nothing(self, q: Tensor) -> PartialAttention:
        """What `attend` returns while the index is empty."""
        heads, t = q.shape[:2]
        shares = torch.zeros(2, self.n_kv_heads, t)
        stats = Stats(shares[0], shares[1], torch.ones(heads, t), 0, 0)
        return PartialAttention(self.no_output(q), torch.full((heads, t), -torch.inf), stats)

    def no_output(self, q: Tensor) -> Tensor:
        """Zeros of the output's shape, fp32 `(n_query_heads, t, value_dim)`."""
        return torch.zeros(*q.shape[:2], self.value_dim)

    def no_pair(self, dtype: torch.dtype = torch.float32) -> Pair:
        """Keys and values of no tokens."""
        keys = torch.empty(self.n_kv_heads, 0, self.head_dim, dtype=dtype)
        return keys, torch.empty(self.n_kv_heads, 0, self.value_dim, dtype=dtype)

    @abstractmethod
    def append(self, keys: Tensor, values: Tensor, queries: Tensor | None = None) -> None:
        """Seal `keys` `(n_kv_heads, n, head_dim)` and `values` `(n_kv_heads, n, value_dim)` as the newest
        tokens.

        `queries` `(n_query_heads, m, head_dim)` are queries of about the same positions, in order and evenly
        spread. From them the index learns what queries are like, for these segments and later ones. Without
        them it knows what it knew.
        """

    @abstractmethod
    def attend(
        self,
        q: Tensor,
        *,
        scaling: float,
        static_lse: Tensor | None = None,
        softcap: float | None = None,
        tolerance: float | None = None,
        mass: Tensor | None = None,
    ) -> PartialAttention:
        """Attention of `q` over the offloaded tokens alone.

        static_lse : fp32 `(n_query_heads, t)`, the lse of all that lies outside the index; it only sets
            shares, the result leaves it out.
        tolerance : overrides the configuration's.
        mass : fp32 `(n_kv_heads, n_tokens)` or None; the share of the whole softmax that each token received
            by its own score is added to it, summed over the group's query heads and the t positions.
        """

    def decode(
        self,
        q: Tensor,
        static: Static,
        *,
        scaling: float,
        softcap: float | None = None,
        mass: Tensor | None = None,
    ) -> PartialAttention:
        """One whole attention step on the CPU: `static` and the index, merged.

        mass : as in `attend`, but `(n_kv_heads, n_sink + n_tokens + n_recent)`: all tokens of the sequence in
            order.

        A kind that can do both at once overrides this. Here the step is put together from `attend`.
        """
        return decode_by_parts(self, q, static, scaling=scaling, softcap=softcap, mass=mass)

    def native_steps(self, sink: Pair, memory: Pair, start: int) -> _native.SketchSteps | None:
        """Steps of decoding without Python, or None where the kind has none (or not with these settings).

        sink : keys and values of the sink tokens. memory : where the unsealed tokens lie, `(n_kv_heads,
        capacity, head_dim)` of keys and values, those held from `start` on. Good until the index or the
        memory is another.
        """
        return None

    @abstractmethod
    def search(self, q: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k keys with the largest inner product for each query: scores fp32 and ids int64,
        `(n_query_heads, t, k)` each."""

    @abstractmethod
    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Keys and values of every segment, `(n_kv_heads, n, head_dim)` each. The order of tokens inside a
        block is the index's own; attention without a causal mask does not depend on it. What is stored in
        int8 comes in fp32, made for each block when it is asked for: keep no list of them."""

    @abstractmethod
    def crop(self, n_tokens: int) -> tuple[Tensor, Tensor]:
        """Keep whole segments within the first `n_tokens` tokens, drop the others, and return the keys and
        values between the kept segments' end and `n_tokens`, in order of position (maybe none)."""

    @abstractmethod
    def fork(self) -> Index:
        """A second index that shares the sealed segments; appending to one leaves the other as it is."""

    # -- for kinds that can be kept; the others refuse in a sentence -----------------------------------------

    def stored(self) -> list[StoredSegment]:
        """The sealed segments, the oldest first, as they can be stored."""
        raise self._not_stored()

    def state(self) -> dict[str, Tensor]:
        """What the index remembers beside its segments, to go on exactly as it would have."""
        raise self._not_stored()

    def restore(self, segments: Chain[StoredSegment], state: Mapping[str, Tensor] | None = None) -> None:
        """Hold `segments` instead of what there is. Without `state` go on from what the last segment knows.

        Raises `ValueError` or `TypeError` where their tensors are not what a segment is made of.
        """
        raise self._not_stored()

    def replace(self, i: int, tensors: Mapping[str, Tensor]) -> None:
        """Put the same numbers in another place: `tensors` instead of those of segment i."""
        raise self._not_stored()

    def _not_stored(self) -> NotImplementedError:
        self.check_storable()
        return NotImplementedError(
            f"{type(self).__name__} is storable, and lacks one of the methods for that"
        )


def decode_by_parts(
    index: Index,
    q: Tensor,
    static: Static,
    *,
    scaling: float,
    softcap: float | None = None,
    mass: Tensor | None = None,
) -> PartialAttention:
    """A decode step as `Index.decode`, put together from its parts, which are merged on the model's device.

    `q` and `static` lie on that device, the index and `mass` on the CPU.
    """
    spans = [(static.sink_keys, static.sink_values), (static.recent_keys, static.recent_values)]
    softmax = Softmax(scaling, softcap, static.s_aux)
    part = static_attention(q, spans, softmax)
    n_sink, n = static.sink_keys.shape[1], index.n_tokens
    inner = None if mass is None else mass[:, n_sink : n_sink + n].contiguous()
    found = index.attend(q.cpu(), scaling=scaling, static_lse=part.lse.cpu(), softcap=softcap, mass=inner)
    out = merge([part, PartialAttention(found.out.to(q.device), found.lse.to(q.device))])
    out.stats = found.stats
    if (
        out.stats is not None and out.stats.error is not None
    ):  # from its share of the index's output to the whole
        lengths = found.out.norm(dim=-1) / out.out.cpu().norm(dim=-1).clamp(min=1e-30)
        out.stats = replace(out.stats, error=out.stats.error * lengths)
    if mass is not None and inner is not None:
        mass[:, n_sink : n_sink + n] = inner
        keys = torch.cat([static.sink_keys, static.recent_keys], 1)
        shares = static_mass(q, keys, out.lse, softmax).cpu()
        mass[:, :n_sink] += shares[:, :n_sink]
        mass[:, n_sink + n :] += shares[:, n_sink:]
    return out


def new_index(
    n_kv_heads: int, head_dim: int, group_size: int, config: RetrievalConfig, value_dim: int | None = None
) -> Index:
    """An empty index of the kind that `config.index` names. value_dim : as `Index` has it."""
    asked = replace(config)  # those of a stored context were not checked with their kind
    kind: type[Index] = kinds.of(config.index)
    if value_dim is None or value_dim == head_dim:
        return kind(n_kv_heads, head_dim, group_size, asked)
    if not kind.values_differ:
        raise ValueError(
            f"an index of kind {config.index!r} takes keys and values of one head_dim, got {head_dim} and "
            f"{value_dim}; use index='sketch' or index='flat'"
        )
    return kind(n_kv_heads, head_dim, group_size, asked, value_dim=value_dim)


def check_array(name: str, x: Tensor, heads: int | None, head_dim: int | None) -> Tensor:
    """`x` if it is a CPU tensor `(heads, n, head_dim)` of a float dtype that the native core reads; else an
    error that names it."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a torch tensor, got {type(x).__name__}")
    if x.device.type != "cpu":
        raise ValueError(f"{name} must be on the CPU, got a tensor on {x.device}; call .cpu() first")
    if x.layout is not torch.strided or x.is_neg():  # the native core reads the numbers as they lie
        what = "a negative view" if x.layout is torch.strided else str(x.layout).removeprefix("torch.")
        raise ValueError(
            f"{name} must be a plain dense tensor, got {what}; call .resolve_neg() or .to_dense() first"
        )
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"{name} must be float32, bfloat16 or float16, got {x.dtype}")
    if x.dim() != 3:
        raise ValueError(
            f"{name} must have three dimensions (heads, tokens, head_dim), got shape {tuple(x.shape)}"
        )
    if heads is not None and x.shape[0] != heads:
        raise ValueError(f"{name} must have {heads} heads, got {x.shape[0]} in shape {tuple(x.shape)}")
    if head_dim is not None and x.shape[2] != head_dim:
        raise ValueError(f"{name} must have head_dim {head_dim}, got {x.shape[2]} in shape {tuple(x.shape)}")
    return x
