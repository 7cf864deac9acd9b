"""How a command loads its model: what the options mean together, who runs it, and what is said of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sakuin.cli.show import notes, tell
from sakuin.errors import SakuinError

if TYPE_CHECKING:
    import torch

    from sakuin.backends.base import Description
    from sakuin.backends.open import Choice


@dataclass(frozen=True)
class Loading:
    """What `--dtype`, `--device`, `--window`, `--backend`, `--gpu-layers` and `--threads` say."""

    dtype: str = "auto"
    device: str = "auto"
    window: int | None = None
    backend: str = "auto"
    gpu_layers: str = "0"
    threads: int | None = None

    @property
    def layers(self) -> int | str:
        """`--gpu-layers` as `sakuin.load` takes it."""
        if self.gpu_layers != "all" and not (self.gpu_layers.isascii() and self.gpu_layers.isdecimal()):
            raise SakuinError(f"--gpu-layers must be a number of layers or all, got {self.gpu_layers!r}.")
        return "all" if self.gpu_layers == "all" else int(self.gpu_layers)

    def choose(self, name: str) -> Choice:
        """Who runs the model, before anything of it is read; a `SakuinError` where the options do not fit."""
        from sakuin.backends.open import choose

        if self.threads is not None and self.threads < 1:
            raise SakuinError(f"--threads must be at least 1, got {self.threads}.")
        return choose(name, self.backend, self.device, self.dtype, self.layers, self.threads)

    def place(self, chosen: Choice) -> tuple[torch.device, torch.dtype]:
        """Where attention runs, and the dtype of what it sees."""
        from sakuin.machine.devices import resolve_device, resolve_dtype

        device = "cpu" if chosen.backend == "llama.cpp" and self.device == "auto" else self.device
        place = resolve_device(device)
        return place, resolve_dtype(self.dtype, place)

    def describe(self, name: str, chosen: Choice) -> Description:
        """The model before its weights are read."""
        from sakuin.backends.open import describe

        quiet(chosen)
        return describe(name, self.window, chosen.backend)

    def load(self, name: str, described: Description | None = None) -> tuple[Any, Any]:
        """The model and its tokenizer; who runs it is said. described : where it is described already, window
        included."""
        from sakuin.backends.open import load

        chosen = self.choose(name)
        with notes.status(f"loading {name}"), trials_told():
            quiet(chosen)
            what, window = (name, self.window) if described is None else (described, None)
            loaded = load(what, self.dtype, self.device, window, chosen.backend, self.layers, self.threads)
        say(name, chosen)
        return loaded


class _Teller(logging.Handler):
    """Prints what is logged: as progress to whoever looks on, warnings to everybody."""

    def emit(self, record: logging.LogRecord) -> None:
        if notes.is_terminal or record.levelno >= logging.WARNING:
            tell(record.getMessage())


@contextmanager
def trials_told() -> Iterator[None]:
    """Within, what is measured at the first load of a file is told: it takes seconds."""
    log, teller = logging.getLogger("sakuin.trial"), _Teller(logging.INFO)
    before = log.level
    log.addHandler(teller)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(before)
        log.removeHandler(teller)


def say(name: str, chosen: Choice) -> None:
    """Tell who runs a model, and why: as progress, to whoever looks on."""
    if notes.is_terminal:
        tell(f"{name} is run by {chosen.backend} ({chosen.why})")


def quiet(chosen: Choice) -> None:
    """Progress bars and remarks of the libraries would run through ours."""
    from sakuin.backends.open import quiet

    quiet(chosen.backend)
