"""The cache of one sequence that llama.cpp runs: layers with an index, or all keys and values for full
attention, and beside them the state that llama.cpp keeps itself.

Called by `sakuin.backends.llama_cpp.backend`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from sakuin.attention.softmax import Softmax
from sakuin.cache.full import FullLayer
from sakuin.cache.layer import Arrival, LayerCache
from sakuin.cache.sequence import QUERY_STEP
from sakuin.cache.undo import GoBack, UndoLog
from sakuin.cache.whole import WholeCache
from sakuin.config import RetrievalConfig
from sakuin.copies import unpicklable
from sakuin.index import _native

_COPIED = (
    "a cache of llama.cpp cannot be copied by itself, since a part of it lies in llama.cpp: use "
    "model.fork(cache), or context.fork()"
)


@dataclass(eq=False)
class LlamaCache:
    """One sequence.

    whole : the layers that attend to everything, with an index. full : or without one, by number.
    n_tokens : read so far. window, slot, lost : what `sakuin.backends.llama_cpp.windows` keeps of it:
    llama.cpp's state as bytes, its place in llama.cpp's store, and whether the state was lost.
    """

    whole: WholeCache | None
    full: dict[int, FullLayer]
    n_tokens: int = 0
    window: bytes | None = None
    slot: int | None = None
    lost: bool = False
    _arrivals: dict[int, Arrival] = field(default_factory=dict)
    _ready: list[LayerCache] = field(default_factory=list)
    _undo: UndoLog = field(default_factory=UndoLog)

    @classmethod
    def new(cls, layers: Iterable[int], config: RetrievalConfig | None) -> LlamaCache:
        """An empty cache; config None is full attention."""
        if config is None:
            return cls(None, {number: FullLayer() for number in layers})
        return cls(WholeCache(layers, config), {})

    @property
    def undo(self) -> UndoLog:
        """How what the running pass has changed was before it."""
        return self._undo if self.whole is None else self.whole.state.undo

    @property
    def exact_above(self) -> int:
        """Passes of more tokens than this are exact."""
        return 0 if self.whole is None else self.whole.config.exact_above

    def native_steps(self, t: int) -> list[_native.Steps | None]:
        """Before a pass of t tokens: by layer the step that it can take without Python, where it can."""
        self._ready = []
        if self.whole is None or t > self.exact_above:
            return []
        steps: list[_native.Steps | None] = [None] * (1 + max(self.whole.layers, default=-1))
        for number, inner in self.whole.layers.items():
            steps[number] = inner.native_step(t)
            if steps[number] is not None:
                self._ready.append(inner)
        return steps

    def took(self, t: int) -> None:
        """A pass of t tokens was made."""
        self.n_tokens += t
        for inner in self._ready:
            inner.took(t)
        self._ready = []

    def attend(
        self,
        layer: int,
        q: Tensor,
        keys: Tensor,
        values: Tensor,
        softmax: Softmax,
        again: bool,
        out: Tensor | None = None,
    ) -> Tensor:
        """Attention of the pass's tokens in a layer, which are kept unless this comes `again`: as
        `FullLayer.attend`."""
        if self.whole is None:
            if not again:
                self.undo.note(self.full[layer])
            return self.full[layer].attend(q, keys, values, softmax, store=not again, out=out)
        inner = self.whole.layers[layer]
        if not again:
            self._arrivals[layer] = inner.announce(q.shape[1])
        return inner.attend(self._arrivals[layer], q[None], keys[None], values[None], softmax, out)[0]

    def restorer(self) -> GoBack:
        """A function that puts back how many tokens there are; layers and windows note themselves."""
        n = self.n_tokens

        def back() -> None:
            self.n_tokens, self._ready, self._arrivals = n, [], {}

        return back

    def __copy__(self) -> LlamaCache:
        raise TypeError(_COPIED)

    def __deepcopy__(self, memo: dict[int, object]) -> LlamaCache:
        raise TypeError(_COPIED)

    def __reduce_ex__(self, protocol: object) -> str:
        raise unpicklable(self, "read the text with sakuin.Context, which context.save(path) keeps")

    def fork(self, config: RetrievalConfig | None) -> LlamaCache:
        """A second cache with the same tokens; its window is a copy, which the caller has saved."""
        whole = None if self.whole is None else self.whole.fork(config)
        full = {number: layer.fork() for number, layer in self.full.items()}
        return LlamaCache(whole, full, self.n_tokens, self.window)

    def fill(self, source: LlamaCache, queries: Mapping[int, Tensor]) -> None:
        """Hold the tokens of a cache of full attention, with every `QUERY_STEP`th query of each layer."""
        assert self.whole is not None
        for number, inner in self.whole.layers.items():
            theirs, known = source.full[number], queries[number]
            if known.shape[1] != (needed := -(-len(theirs) // QUERY_STEP)):
                raise ValueError(
                    f"{len(theirs)} tokens need queries of {needed} positions (every {QUERY_STEP}th), got "
                    f"{known.shape[1]} for layer {number}"
                )
            inner.fill(theirs.keys, theirs.values, known)
        self.n_tokens, self.window = source.n_tokens, source.window
