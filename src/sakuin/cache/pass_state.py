"""What all layers of one cache share: settings, the sealing thread, whether the newest tokens are a draft.

Made by `sakuin.cache.whole`, read by its layers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sakuin.cache.sealing import Meter, Sealer
from sakuin.cache.tracked_mass import TrackedMass
from sakuin.cache.undo import UndoLog
from sakuin.config import RetrievalConfig


@dataclass
class PassState:
    """Shared by the layers of a cache.

    sealer : runs sealing in the background; forks share it. meter : what sealing took for this cache.
    draft : whether the tokens of a pass may be taken back until the next one, so that they are not sealed
        before.
    mass : the attention that tokens receive; None while nobody asks for it.
    undo : how what the running pass has changed was before it.
    """

    config: RetrievalConfig
    sealer: Sealer
    meter: Meter = field(default_factory=Meter)
    draft: bool = False
    mass: TrackedMass | None = None
    undo: UndoLog = field(default_factory=UndoLog)
