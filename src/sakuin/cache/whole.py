"""All full-attention layers of a sequence, or a batch of them: what holds for all at once.

A backend feeds the layers; this is what everybody else sees: sealing, forks, statistics, sizes, mass.
Layers of other kinds (sliding windows, recurrent states) are the backend's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor

from sakuin.cache.layer import LayerCache
from sakuin.cache.offload import bytes_on_disk
from sakuin.cache.pass_state import PassState
from sakuin.cache.sealing import Sealer
from sakuin.cache.sequence import TokenSequence
from sakuin.cache.step_log import summarize
from sakuin.cache.token_buffer import freeze
from sakuin.cache.tracked_mass import TrackedMass
from sakuin.config import RetrievalConfig
from sakuin.index.kind import differences
from sakuin.machine.frozen import Copies


class WholeCache:
    """The layers of a model that have an index, by their number in the model."""

    def __init__(self, numbers: Iterable[int], config: RetrievalConfig) -> None:
        self.state = PassState(config, Sealer())
        chosen = tuple(numbers)
        self.layers = {n: LayerCache(self.state, i / len(chosen)) for i, n in enumerate(chosen)}

    @property
    def config(self) -> RetrievalConfig:
        """The settings of all layers."""
        return self.state.config

    @property
    def head_dim(self) -> int:
        """Dimensions of a head; 0 while there are no tokens."""
        return next((row.head_dim for row in self.rows()), 0)

    def rows(self) -> Iterator[TokenSequence]:
        """Every sequence of every layer."""
        for layer in self.layers.values():
            yield from layer.rows

    def reset(self) -> None:
        """Forget all tokens and statistics."""
        for layer in self.layers.values():
            layer.reset()
        if self.state.mass is not None:
            self.state.mass.reset()
        self.state.undo.forget()

    def let_fail(self, on: bool = True) -> None:
        """Who holds this cache throws it away when a pass fails: nothing is kept to take passes back, which
        would hold memory. Or (not `on`) who holds it goes on with it."""
        self.state.undo.keeps = not on

    def crop_mass(self) -> None:
        """Let go of the mass of tokens that the layers no longer hold."""
        rows = next(iter(self.layers.values())).rows
        if self.state.mass is not None and rows:
            self.state.mass.crop(rows[0].n_tokens)

    def flush(self) -> None:
        """Wait until all that was given to be sealed is indexed; an error there is raised here."""
        for row in self.rows():
            row.flush()

    def seal(self) -> None:
        """Seal all that lies outside the recent window, and wait: after a document, before its questions."""
        with self.state.undo.at_once(self.layers.values()):
            for row in self.rows():
                row.start_sealing_rest()
            self.flush()

    def sealed_end(self) -> int:
        """Tokens up to the end of what is sealed, or on its way; 0 where nothing is."""
        self.flush()
        return max((row.sealed_end for row in self.rows()), default=0)

    def fork(self, config: RetrievalConfig | None = None) -> WholeCache:
        """A second cache with the same tokens: it shares the segments, and counts its statistics anew.

        config : other settings for the fork. They must build the same segments: only settings that each step
            reads may differ.
        """
        config = self.config if config is None else _like(self.config, config)
        other = WholeCache((), config)
        other.state.sealer = self.state.sealer
        self.flush()
        freeze([row.tail for row in self.rows()])
        copies: Copies = {}
        other.layers = {number: layer.fork(other.state, copies) for number, layer in self.layers.items()}
        if config != self.config:
            for row in other.rows():
                row.use(config)
        return other

    # -- measurements ----------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """What the decode steps spent, means over the steps.

        `index`: the kind of index that holds the offloaded tokens, which `"auto"` has chosen (where sequences
        or layers differ, all kinds, with commas); `steps`: passes of one token or a few; `exact`, `codes`:
        shares of the offloaded tokens attended so; `coverage`: share of the softmax mass in the static part
        or attended exactly or from codes; `error`: the index's own estimate, or None; `touched_bytes` of a
        token over all layers; `touched_share` of the offloaded keys and values at 2 bytes a number; `seconds`
        of a step over all layers; `layers`: a list of the same, with each one's `layer`.
        """
        layers = list(self.layers.values())
        whole = self._kind(layers) | summarize([layer.log for layer in layers])
        whole["layers"] = [
            {"layer": number, **self._kind([layer]), **summarize([layer.log])}
            for number, layer in self.layers.items()
        ]
        return whole

    def _kind(self, layers: list[LayerCache]) -> dict[str, Any]:
        kinds = {row.index.kind for layer in layers for row in layer.rows}
        return {"index": ", ".join(sorted(kinds)) or self.config.index}

    def nbytes(self) -> dict[str, int]:
        """Bytes of keys, values and indexes: on the model's `device` (with what is kept for growth), on the
        `host`, and with `offload="disk"` what of them lies on `disk`."""
        device = host = 0
        indexes, files = {}, {}
        for row in self.rows():
            device += row.device_bytes
            host += row.host_bytes
            indexes[id(row.index)] = row.index.nbytes
            files[id(row.index)] = bytes_on_disk(row.index)
        disk = sum(files.values())
        found = {"device": device, "host": host + sum(indexes.values()) - disk}
        return found | {"disk": disk} if self.config.offload == "disk" else found

    @property
    def index_seconds(self) -> float:
        """Seconds that building indexes took so far, on whichever thread."""
        return self.state.meter.seconds

    def track_mass(self, on: bool = True, above: float = 0.0) -> None:
        """From now on add up the attention that each token of the first sequence receives in decode steps (or
        stop). above : as in `TrackedMass`."""
        if not on:
            self.state.mass = None
        elif self.state.mass is None:
            self.state.mass = TrackedMass(above)
        else:
            self.state.mass.above = above

    def mass(self) -> Tensor:
        """Attention mass of each token, summed over layers, decode steps and the query heads of a group, fp32
        `(n_kv_heads, n_tokens)`; of each step and layer only what `track_mass` counts."""
        return self._tracked().sums.clone()

    def take_mass(self, n_tokens: int | None = None) -> tuple[Tensor, Tensor]:
        """What was added since the last call, as `TrackedMass.take` gives it."""
        return self._tracked().take(n_tokens)

    def _tracked(self) -> TrackedMass:
        if self.state.mass is None:
            raise RuntimeError("attention mass is not tracked: call cache.track_mass(True) before decoding")
        return self.state.mass


def _like(config: RetrievalConfig, other: RetrievalConfig) -> RetrievalConfig:
    """`other`, if what it builds is what `config` builds."""
    for name in differences(config, other):
        before, now = getattr(config, name), getattr(other, name)
        raise ValueError(
            f"a fork cannot change {name} from {before!r} to {now!r}, with which other segments would be "
            "built: prefill a new RetrievalCache"
        )
    return other
