"""The backend of llama.cpp: passes of a GGUF model through its caches.

Weights, norms and rotary embeddings are llama.cpp's; attention, keys and values, and the products of weights
that it is faster with are sakuin's. Called through `sakuin.backends.base.Backend`.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sakuin.arguments import integer, shown
from sakuin.attention.softmax import Softmax
from sakuin.backends.base import Backend
from sakuin.backends.fingerprint import Fingerprint
from sakuin.backends.gguf_fingerprint import GgufFile
from sakuin.backends.hooks import AttentionCall, AttentionHook
from sakuin.backends.llama_cpp.cache import LlamaCache
from sakuin.backends.llama_cpp.header import Header
from sakuin.backends.llama_cpp.held_files import HeldFiles
from sakuin.backends.llama_cpp.loaded import OUTPUTS, Loaded, Options, tensor_at
from sakuin.backends.llama_cpp.shape import shares_keys
from sakuin.backends.llama_cpp.windows import Windows
from sakuin.backends.shape import ModelShape
from sakuin.cache.undo import Pass
from sakuin.cache.whole import WholeCache
from sakuin.config import RetrievalConfig
from sakuin.copies import unpicklable
from sakuin.errors import SakuinError
from sakuin.machine.forks import recursive_lock
from sakuin.machine.pages import close_holes

_STATE = "llama.cpp"
"""The name of llama.cpp's own state in a snapshot."""
_DEVICE = torch.device("cpu")
_OF_TRANSFORMERS = frozenset({"config", "generate", "generation_config", "named_parameters"})
_LONG = 512
"""Tokens of a pass after which what it has used for the moment is given back to the system."""
MOST_TOGETHER = 64
"""Sequences of one pass, at most: llama.cpp's own limit is 256."""


class LlamaBackend(Backend):
    """A GGUF model, and its vocabulary. It is its own model to the user."""

    name = "llama.cpp"

    def __init__(
        self,
        loaded: Loaded,
        header: Header,
        shape: ModelShape,
        vocabulary: Any,
        rotary: int,
        source: str = "",
    ) -> None:
        self.model, self.tokenizer, self.vocabulary = self, vocabulary, vocabulary
        self.dtype, self.device, self.source = loaded.options.dtype, _DEVICE, source
        self.loaded, self.header, self._shape = loaded, header, shape
        self._file, self._held = GgufFile(header.files), HeldFiles(header.files)
        self._turn = recursive_lock()
        self._hook: AttentionHook | None = None
        self._caches: Sequence[LlamaCache] = ()
        self._rotary, self._shares = rotary, shares_keys(header)
        self.windows = Windows(loaded)
        self._open(1)

    def __copy__(self) -> LlamaBackend:
        return self  # a model does not change

    def __deepcopy__(self, memo: dict[int, Any]) -> LlamaBackend:
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise unpicklable(self, "give its name or path, and load it there with sakuin.load")

    def __getattr__(self, name: str) -> Any:
        if name in _OF_TRANSFORMERS:
            raise AttributeError(
                f"llama.cpp runs this model, which has no {name!r} as models of transformers do: load it "
                'with backend="transformers" for that.'
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def shape(self) -> ModelShape:
        return self._shape

    def check(self) -> None:
        """Every model that this backend loads attends through a cache with an index."""

    def fingerprint(self) -> Fingerprint:
        marks, options, template = self._file.marks(), self.loaded.options, self.tokenizer.template
        rope = marks.rope.long(options.least_cells > 0)
        if options.window is not None and options.own_window:
            rope = rope.yarn(options.own_window, options.window)
        dtype = str(self.dtype).removeprefix("torch.")
        return marks.fingerprint(dtype, rope, template.text if template else "")

    def new_cache(self, config: RetrievalConfig | None) -> LlamaCache:
        return LlamaCache.new((i for i, kind in enumerate(self.shape.layers) if kind == "full"), config)

    def forward(self, cache: LlamaCache, ids: Sequence[int], *, every: bool = False) -> Tensor:
        pieces = len(_pieces(list(ids), self._most(every)))
        with self._turn, self._whole([cache], [ids], pieces) as (running, kept):
            found = self._alone(cache, ids, every, kept)
            running.whole = True
        return found

    def forward_together(
        self, caches: Sequence[LlamaCache], ids: Sequence[Sequence[int]], *, every: bool = False
    ) -> list[Tensor]:
        if len({id(cache) for cache in caches}) < len(caches):
            raise ValueError("a cache is there twice: fork it, or give it one run of tokens")
        passes, found = list(self._passes(ids, every)), []
        with self._turn:
            most = max((end - first for first, end in passes), default=0)
            if most > self.loaded.n_sequences:
                self._open(1 << (most - 1).bit_length())
            with self._whole(caches, ids, len(passes)) as (running, kept):
                for first, end in passes:
                    if end - first == 1:
                        found.append(self._alone(caches[first], ids[first], every, kept[first:end]))
                        continue
                    each = [list(run) for run in ids[first:end]]
                    found += self._pass(caches[first:end], each, every, kept[first:end])
                running.whole = True
        return found

    def groups(self, caches: Sequence[LlamaCache], ids: Sequence[Sequence[int]]) -> list[list[int]]:
        return [list(range(first, end)) for first, end in self._passes(ids, False)]

    @contextmanager
    def _whole(
        self, caches: Sequence[LlamaCache], ids: Sequence[Sequence[int]], passes: int
    ) -> Iterator[tuple[Pass, list[bytes | None]]]:
        """Within, `caches` take `ids`, in so many passes of llama.cpp: where anything fails, none has taken
        any. Yields what is whole once all is done, and the caches' states, where they were saved."""
        self._held.check()
        for cache, each in zip(caches, ids, strict=True):
            self._check_ids(each)
            cache.undo.settle()
            self._check_length(cache, len(each))
        running = Pass()
        for cache in caches:
            cache.undo.begin(running)
            cache.undo.note(cache)
        kept = [self._backup(cache, len(each), passes) for cache, each in zip(caches, ids, strict=True)]
        try:
            with torch.autocast("cpu", enabled=False) if torch.is_autocast_enabled("cpu") else nullcontext():
                yield running, kept
        finally:
            # Whatever an interrupt leaves of this is done before a cache is used again.
            for cache in caches:
                cache.undo.roll_back()

    def _alone(
        self, cache: LlamaCache, ids: Sequence[int], every: bool, kept: Sequence[bytes | None]
    ) -> Tensor:
        """Passes of one sequence: as few as take its tokens."""
        pieces = _pieces(list(ids), self._most(every))
        found = [self._pass([cache], [piece], every, kept)[0] for piece in pieces]
        return torch.cat(found) if every else found[-1]

    def _most(self, every: bool) -> int:
        """Tokens of one pass, at most."""
        return min(self.loaded.most_tokens, OUTPUTS) if every else self.loaded.most_tokens

    def _passes(self, ids: Sequence[Sequence[int]], every: bool) -> Iterator[tuple[int, int]]:
        """Ranges of caches whose tokens are one pass. llama.cpp itself would part those of models with
        recurrent layers where sequences are of several lengths."""
        most, first, tokens = self._most(every), 0, 0
        for i, each in enumerate(ids):
            full = tokens + len(each) > most or i - first >= MOST_TOGETHER
            if i > first and (full or (self.loaded.recurrent and len(each) != len(ids[first]))):
                yield first, i
                first, tokens = i, 0
            tokens += len(each)
        if first < len(ids):
            yield first, len(ids)

    def _open(self, n_sequences: int) -> None:
        """Make the context for passes of so many sequences."""
        if self.loaded.context is not None:
            self.windows.release_all()
        own = [kind == "full" for kind in self.shape.layers]
        method = weakref.WeakMethod(self._attend)  # the session must not keep this alive

        def attend(*call: Any) -> None:
            mine = method()
            assert mine is not None
            mine(*call)

        self.loaded.open(own, self._rotary, attend, n_sequences, self._shares)

    @contextmanager
    def steady(self) -> Iterator[None]:
        """llama.cpp's own products round a token's activations to 8 bits, by kernels that differ with the
        number of tokens; so all products are sakuin's, but for those of weights on a GPU."""
        before = self.loaded.options
        self._use(replace(before, least_rows=1, few_rows=0))
        try:
            yield
        finally:
            self._use(before)

    def _use(self, options: Options) -> None:
        with self._turn:
            self.loaded.options = options
            self._open(self.loaded.n_sequences)

    def _pass(
        self,
        caches: Sequence[LlamaCache],
        ids: Sequence[list[int]],
        every: bool,
        kept: Sequence[bytes | None],
    ) -> list[Tensor]:
        """One pass of llama.cpp, within `_whole`."""
        tokens = [token for each in ids for token in each]
        loaded, parts, at = self.loaded, [], 0
        positions: list[int] = []
        wanted: list[bool] = []
        for cache, each in zip(caches, ids, strict=True):
            native = self._hook is None and not self._shares
            parts.append((at, len(each), cache.native_steps(len(each)) if native else []))
            positions += range(cache.n_tokens, cache.n_tokens + len(each))
            wanted += [every] * (len(each) - 1) + [True]
            at += len(each)
        places = self.windows.prepare(caches)
        sequences = [place for place, each in zip(places, ids, strict=True) for _ in each]
        self._caches = caches
        try:
            for cache, state in zip(caches, kept, strict=True):
                cache.undo.add(self.windows, self.windows.restorer(cache, state))
            loaded.run(tokens, positions, sequences, wanted, parts)
            for cache, each in zip(caches, ids, strict=True):
                cache.took(len(each))
        finally:
            self._caches = ()
        if len(tokens) >= _LONG:
            close_holes()
        if every:
            return [
                torch.stack([loaded.logits(first + i) for i in range(count)]) for first, count, _ in parts
            ]
        if len(parts) == 1:
            first, count, _ = parts[0]
            return [loaded.logits(first + count - 1)]
        # In one piece of memory: what is taken and let go singly parts the heap.
        rows = torch.empty(len(parts), loaded.n_vocab)
        return [loaded.logits(first + n - 1, row) for row, (first, n, _) in zip(rows, parts, strict=True)]

    def _check_ids(self, ids: Sequence[int]) -> None:
        """Before anything changes: a pass that llama.cpp refuses may cost a recurrent state."""
        most = self.loaded.n_vocab
        if not len(ids):
            raise SakuinError("a pass needs at least one token, got none.")
        for token in ids:
            number = integer(token)
            if number is None:
                raise TypeError(f"tokens must be whole numbers, got {shown(token)}.")
            if not 0 <= number < most:
                raise SakuinError(f"the model has {most:,} tokens, and {number:,} is none of them.")

    def _check_length(self, cache: LlamaCache, n: int) -> None:
        most = self.loaded.options.most_tokens
        if most is not None and cache.n_tokens + n > most:
            raise SakuinError(
                f"the model's rotary embeddings (LongRoPE) are others beyond {most:,} tokens, and this "
                f"context would have {cache.n_tokens + n:,}: load the model with a `window` of more than "
                f"{most:,} tokens, and read the document with it."
            )

    def _backup(self, cache: LlamaCache, n: int, passes: int) -> bytes | None:
        """The state of windows and recurrent layers before what cannot be taken back otherwise: several
        passes, and of recurrent layers one that may take long. Of a short one it would cost more than it is
        worth."""
        if not cache.undo.keeps:
            return None
        long = self.loaded.recurrent and n > max(cache.exact_above, 1)
        return self.windows.save(cache) if long or passes > 1 or not cache.n_tokens else None

    @torch.no_grad()
    def _attend(
        self,
        part: int,
        layer: int,
        heads: int,
        kv_heads: int,
        t: int,
        head_dim: int,
        value_dim: int,
        q: int,
        keys: int,
        values: int,
        again: bool,
        scaling: float,
        softcap: float,
        sinks: int,
        out: int,
    ) -> None:
        """Attention of one sequence in one layer: what the native device does not do itself."""
        query = tensor_at(q, (heads, t, head_dim), self.dtype)
        new_keys = tensor_at(keys, (kv_heads, t, head_dim), self.dtype)
        new_values = tensor_at(values, (kv_heads, t, value_dim), self.dtype)
        s_aux = tensor_at(sinks, (heads,), torch.float32) if sinks else None
        softmax = Softmax(scaling, softcap or None, s_aux)
        # Into the graph's own memory, unless somebody looks at it: it will hold something else soon.
        result = tensor_at(out, (t, heads, value_dim), torch.float32).transpose(0, 1)
        place = result if self._hook is None else None
        found = self._caches[part].attend(layer, query, new_keys, new_values, softmax, again, place)
        if found.data_ptr() != out:
            result.copy_(found)
        if self._hook is not None:
            cache = self._caches[part]
            if cache.whole is None:
                new_keys, new_values = cache.full[layer].keys, cache.full[layer].values
            self._hook(
                AttentionCall(
                    layer,
                    query[None],
                    new_keys[None],
                    new_values[None],
                    found.transpose(0, 1)[None],
                    softmax,
                )
            )

    def chunk(self, cache: LlamaCache) -> int:
        return self.loaded.options.chunk

    def filled(
        self, config: RetrievalConfig, source: LlamaCache, queries: Mapping[int, Tensor]
    ) -> LlamaCache:
        with self._turn:
            source.undo.settle()
            self.windows.save(source)
        cache = self.new_cache(config)
        cache.fill(source, queries)
        return cache

    def attention_hook(self, hook: AttentionHook) -> AbstractContextManager[None]:
        return self._hooked(hook)

    @contextmanager
    def _hooked(self, hook: AttentionHook) -> Iterator[None]:
        before, self._hook = self._hook, hook
        try:
            yield
        finally:
            self._hook = before

    def fork(self, cache: LlamaCache, config: RetrievalConfig | None = None) -> LlamaCache:
        with self._turn:
            cache.undo.settle()
            self.windows.save(cache)
            return cache.fork(config)

    def retrieval(self, cache: LlamaCache) -> WholeCache | None:
        return cache.whole

    def nbytes(self, cache: LlamaCache) -> dict[str, int]:
        own = len(cache.window or b"")
        if cache.whole is None:
            return {"device": 0, "host": own + sum(layer.nbytes for layer in cache.full.values())}
        found = cache.whole.nbytes()
        return found | {"host": found["host"] + own}

    def window_state(self, cache: LlamaCache) -> dict[str, Tensor]:
        with self._turn:
            cache.undo.settle()
            state = self.windows.save(cache)
        return {_STATE: torch.frombuffer(bytearray(state), dtype=torch.uint8)} if state else {}

    def restore_windows(self, cache: LlamaCache, tensors: Mapping[str, Tensor], n_tokens: int) -> None:
        others = sorted(name for name in tensors if name != _STATE)
        if others or (self.windows.has_state and n_tokens and _STATE not in tensors):
            raise SakuinError(
                f"the state of the context's windows or recurrent layers ({', '.join(others[:1]) or 'none'}) "
                "is not llama.cpp's; load the model with the backend that read the context, or read the "
                "document again."
            )
        cache.n_tokens = n_tokens
        if _STATE in tensors:
            cache.window = tensors[_STATE].numpy().tobytes()


def _pieces(ids: list[int], most: int) -> list[list[int]]:
    """`ids` in as few pieces as hold at most so many, of about one length: a short one would not be exact."""
    n = max(1, -(-len(ids) // most))
    return [ids[len(ids) * i // n : len(ids) * (i + 1) // n] for i in range(n)]
