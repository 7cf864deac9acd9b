"""The cache layer of full attention: takes a pass's keys and values, and answers its queries through sink,
tail and index.

What a sequence holds is `sakuin.cache.sequence`' business, how attention finds its layer
`sakuin.backends.transformers.tickets`'. Layers of other kinds stay transformers' own. Made by
`sakuin.backends.transformers.cache`, called by transformers (`update` and the like) and by
`sakuin.backends.transformers.attention` (`attend`).
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from sakuin.attention.exact import attend_blocks
from sakuin.backends.transformers.tickets import NOT_PLAIN, PassState, Ticket
from sakuin.cache.sequence import QUERY_STEP, Sequence, SequenceState
from sakuin.cache.step_log import StepLog
from sakuin.dtypes import DTYPES
from sakuin.index import Index, decode_by_parts

_FILLED_AT_ONCE = 2048
"""Tokens, a multiple of `QUERY_STEP`."""


class RetrievalLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One full-attention layer of a `RetrievalCache`: a `Sequence` for each row of the batch."""

    is_sliding = False
    is_croppable = True

    def __init__(self, shared: PassState) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.shared = shared
        self.rows: list[Sequence] = []
        self.length = 0
        self.log = StepLog()
        # Per row (first position of a pass, which of its tokens are real), for the passes that had padding.
        self.padded: list[list[tuple[int, Tensor]]] = []

    # -- transformers' cache interface -----------------------------------------------------------------------

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Announce the pass's keys and values `(batch, n_kv_heads, t, head_dim)`; attention stores them right
        after."""
        shared = self.shared
        if shared.pending is not None:
            raise RuntimeError(
                'a RetrievalCache works only with attn_implementation="sakuin": the keys of the last layer '
                'never reached sakuin\'s attention. Load the model with attn_implementation="sakuin", or '
                'call model.set_attn_implementation("sakuin"); if a pass was interrupted, call '
                "cache.reset() first"
            )
        if key_states.shape != value_states.shape:
            shapes = f"; this one caches {tuple(key_states.shape)} and {tuple(value_states.shape)}"
            raise NotImplementedError(NOT_PLAIN + shapes)
        batch, _, t, _ = key_states.shape
        if self.rows and len(self.rows) != batch:
            raise ValueError(
                f"the cache holds {len(self.rows)} sequence(s), but the pass has {batch}: call "
                "cache.batch_repeat_interleave or cache.batch_select_indices first, or use a new "
                "RetrievalCache"
            )
        shared.check_rope(self.length, self.length + t)
        self.is_initialized = True
        self.length += t
        shared.pending = self
        Ticket(self, key_states, value_states)
        return key_states, value_states

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        # Masks cover the pass alone; everything before it is seen by all its real tokens.
        return query_length, self.length

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1

    @property
    def record_past(self) -> bool:
        return self.shared.record_past

    @record_past.setter
    def record_past(self, on: bool) -> None:
        self.shared.record_past = on

    def activate_past_recording(self) -> None:
        """The tokens of a pass are a draft until the next one, and are not sealed before."""
        self.shared.record_past = True

    def reset(self) -> None:
        self.rows, self.padded = [], []
        self.length = 0
        self.log = StepLog()
        self.is_initialized = False

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self._choose(beam_idx.tolist())

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._choose([row for row in range(len(self.rows)) for _ in range(repeats)])

    def batch_select_indices(self, indices: Tensor) -> None:
        self._choose(torch.arange(len(self.rows))[torch.as_tensor(indices).cpu()].tolist())

    def _choose(self, chosen: list[int]) -> None:
        if not self.rows or chosen == list(range(len(self.rows))):
            return
        taken: set[int] = set()
        rows = []
        for row in chosen:
            rows.append(self.rows[row].fork() if row in taken else self.rows[row])
            taken.add(row)
        self.rows, self.padded = rows, [list(self.padded[row]) for row in chosen]

    def crop(self, tokens_to_remove: int) -> None:
        length = self.length - abs(tokens_to_remove)
        if length == self.length:
            return
        for row, padded in zip(self.rows, self.padded, strict=True):
            padded[:] = [(start, real[: length - start]) for start, real in padded if start < length]
            row.crop(length - sum(int((~real).sum()) for _, real in padded))
        self.length = length

    def fork(self, shared: PassState) -> RetrievalLayer:
        other = RetrievalLayer(shared)
        other.rows = [row.fork(shared.sealer, shared.meter) for row in self.rows]
        other.padded = [list(padded) for padded in self.padded]
        other.length, other.is_initialized = self.length, self.is_initialized
        return other

    def fill(self, keys: Tensor, values: Tensor, queries: Tensor) -> None:
        """Hold tokens that were attended elsewhere: keys, values `(1, n_kv_heads, n, head_dim)`, queries
        `(n_query_heads, m, head_dim)` of the positions that are multiples of `QUERY_STEP`."""
        self._start(queries[None], keys, values)
        (row,) = self.rows
        for at in range(0, keys.shape[2], _FILLED_AT_ONCE):
            end = at + _FILLED_AT_ONCE
            kept = queries[:, at // QUERY_STEP : end // QUERY_STEP]
            row.append_kept(keys[0, :, at:end], values[0, :, at:end], kept)
            row.seal_full_segments()
        self.length, self.is_initialized = keys.shape[2], True

    def restore(self, like: Tensor, n_query_heads: int, index: Index, state: SequenceState) -> None:
        """Hold one sequence, as a snapshot has it; `like` is a tensor of the model's dtype and device."""
        heads, _, head_dim = state.tail[0].shape
        keys = like.new_empty(heads, 0, head_dim)
        shared = self.shared
        stored = DTYPES.get(shared.config.kv_dtype, keys.dtype)
        row = Sequence(keys, keys, n_query_heads, shared.config, stored, shared.sealer, shared.meter)
        row.restore(state, index)
        self.rows, self.padded, self.log = [row], [[]], StepLog()
        self.length, self.is_initialized = row.n_tokens, True

    # -- attention -------------------------------------------------------------------------------------------

    def attend(
        self,
        ticket: Ticket,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scaling: float,
        softcap: float | None,
        s_aux: Tensor | None,
    ) -> Tensor:
        """Store the pass's keys and values and attend: query `(batch, n_query_heads, t, head_dim)` to
        `(batch, t, n_query_heads, head_dim)`."""
        shared = self.shared
        batch, _, t, _ = query.shape
        store = not ticket.taken
        ticket.taken = True
        shared.pending = None
        if not self.rows:
            self._start(query, key, value)
        columns = shared.columns(mask, batch, t)
        if columns is not None and store:
            for padded, real in zip(self.padded, columns, strict=True):
                padded.append((self.length - t, real))
        exact = t > shared.config.exact_above
        outs = []
        for b, row in enumerate(self.rows):
            real = (
                None
                if columns is None or bool(columns[b].all())
                else columns[b].nonzero()[:, 0].to(query.device)
            )
            q, k, v = query[b], key[b], value[b]
            if real is not None:
                q, k, v = q[:, real], k[:, real], v[:, real]
            if not q.shape[1]:
                out = q
            elif exact:
                out = self._exact(ticket, store, b, row, q, k, v, scaling, softcap, s_aux)
            else:
                out = self._decode(store, b, row, q, k, v, scaling, softcap, s_aux)
            if real is not None:
                whole = torch.zeros_like(query[b])
                whole[:, real] = out
                out = whole
            outs.append(out)
        out = outs[0][None] if batch == 1 else torch.stack(outs)
        return out.transpose(1, 2)

    def _exact(
        self,
        ticket: Ticket,
        store: bool,
        b: int,
        row: Sequence,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        scaling: float,
        softcap: float | None,
        s_aux: Tensor | None,
    ) -> Tensor:
        if store:
            ticket.pasts[b] = row.past()
        past = ticket.pasts[b]
        out = attend_blocks(q, k, v, past, scaling=scaling, softcap=softcap, s_aux=s_aux)
        if store:
            row.append(k, v, q)
            row.seal_full_segments(newest=q.shape[1] if self.shared.record_past else 0)
        return out

    def _decode(
        self,
        store: bool,
        b: int,
        row: Sequence,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        scaling: float,
        softcap: float | None,
        s_aux: Tensor | None,
    ) -> Tensor:
        if store:
            row.before_decode()
            row.append(k, v, q)
        started = perf_counter()
        aux = None if s_aux is None else s_aux.float()
        tracked = None if b else self.shared.mass_of(row.n_kv_heads, row.n_tokens)
        sharp = tracked is not None and self.shared.mass_above > 0
        mass = torch.zeros_like(tracked) if tracked is not None and sharp else tracked
        if q.device.type == "cpu" and not self.shared.device_path:
            part = row.index.decode(
                q, row.static(q.shape[1], aux), scaling=scaling, softcap=softcap, mass=mass
            )
        else:
            part = decode_by_parts(
                row.index, q, row.static(q.shape[1], aux), scaling=scaling, softcap=softcap, mass=mass
            )
        if tracked is not None and mass is not None and sharp:
            tracked += mass.sub_(self.shared.mass_above * (q.shape[0] // row.n_kv_heads)).clamp_(min=0)
        self.log.add(part.stats, perf_counter() - started)
        return part.out.to(q.dtype)

    def _start(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        batch, heads = query.shape[:2]
        kv_heads = key.shape[1]
        if key.dtype not in DTYPES.values():
            raise TypeError(
                f"keys must be float32, bfloat16 or float16, got {key.dtype}: load the model in one of these"
            )
        if heads % kv_heads:
            raise ValueError(
                f"{heads} query heads cannot share {kv_heads} KV heads evenly: use another cache"
            )
        shared = self.shared
        stored = DTYPES.get(shared.config.kv_dtype, key.dtype)
        self.rows = [
            Sequence(key[b], value[b], heads, shared.config, stored, shared.sealer, shared.meter)
            for b in range(batch)
        ]
        self.padded = [[] for _ in range(batch)]
