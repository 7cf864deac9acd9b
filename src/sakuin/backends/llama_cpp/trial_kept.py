"""What trials found, kept in the user's cache folder: one file for each model, library and machine."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sakuin.backends.llama_cpp import locate
from sakuin.backends.llama_cpp.trial_choice import MOST, Measured, Setting
from sakuin.errors import SakuinError
from sakuin.index import _native
from sakuin.machine import torch_files
from sakuin.machine.cpu import cpu_flags, cpu_name, usable_cpus
from sakuin.storage import folders
from sakuin.storage.locks import locked
from sakuin.storage.small_files import read_json
from sakuin.storage.whole_files import write_whole
from sakuin.version import __version__

if TYPE_CHECKING:
    from sakuin.backends.llama_cpp.header import Header
    from sakuin.backends.llama_cpp.library import Library
    from sakuin.backends.llama_cpp.loaded import Options

_CALM, _TRIES = 0.1, 3
"""On a machine that others keep busier than this, it is measured again at the next load, at most so often."""


@dataclass(frozen=True)
class Trial:
    """about : of which file, library and machine. setting : what was chosen. measured : all that was tried.
    tries : how often it was measured, of which this was the calmest time."""

    about: Mapping[str, Any]
    setting: Setting
    measured: tuple[Measured, ...]
    tries: int = 1

    @property
    def busy(self) -> float:
        """Share of the time in which others had the CPU."""
        return max((each.waited for each in self.measured), default=0.0)

    @property
    def is_final(self) -> bool:
        """Whether it is not measured again: it was calm, or has not been so for some times."""
        return self.busy < _CALM or self.tries >= _TRIES

    @property
    def path(self) -> str:
        """The file of the model."""
        return str(self.about["files"][0][0])


def kept() -> list[Trial]:
    """All trials of this machine that are kept, the latest first. Reads files, nothing else."""
    machine = _machine()
    found = (_read(path) for path in sorted(_folder().glob("*.json"), key=_written, reverse=True))
    return [trial for trial in found if trial is not None and trial.about.get("machine") == machine]


def reports(model: str | os.PathLike[str] | None = None) -> tuple[list[dict[str, Any]], int]:
    """`kept`, for people to read: those that the next load may take, of `model` alone where one is given, and
    how many others there are, which were measured of what is another file or version now.

    Each has `model` (a path), `library`, `dtype`, `threads`, `gpu_layers`, the setting that was chosen
    (`repack`; `least_rows`: sakuin computes products of so many rows and more, 0 none; `few_rows`: and those
    of at most so many, in 8 bits), `busy` (share of the time in which others had the CPU), and `ways`: each
    with `repack`, `ours` (products by sakuin), `prefill` in passes of 1,024 and `decode` in tokens/s, `kl`
    against the plainest way, and `wrong`: why it is not used, or "".
    """
    library, every = _library(), kept()
    of_it = [trial for trial in every if model is None or trial.path == str(Path(model).resolve())]
    current = [trial for trial in of_it if _is_current(trial.about, library)]
    told = [
        {
            "model": trial.path,
            **{name: trial.about.get(name) for name in ("library", "dtype", "gpu_layers")},
            "threads": (trial.about.get("threads") or [None])[0],
            **asdict(trial.setting),
            "busy": trial.busy,
            "ways": [_way(each) for each in trial.measured],
        }
        for trial in current
    ]
    return told, len(of_it) - len(current)


def _library() -> dict[str, Any]:
    """What trials with the library that is here say of it; nothing where there is none."""
    try:
        found = locate.find()
        if found is None:
            return {}
        return {"library": str(found), "library_files": [_state(path) for path in found.files]}
    except (OSError, SakuinError):
        return {}


def _is_current(about: Mapping[str, Any], library: Mapping[str, Any]) -> bool:
    """Whether a trial is of what is here now: this sakuin and torch, that library, and the files as they
    are."""
    now = {"sakuin": __version__, "torch": torch_files.version(), **library}
    try:
        same = all(_state(Path(path)) == [path, *state] for path, *state in about["files"])
    except (OSError, TypeError, ValueError, LookupError):
        return False
    return bool(library) and same and all(about.get(name) == value for name, value in now.items())


def _way(each: Measured) -> dict[str, Any]:
    rates = {} if each.wrong else {"prefill": each.prefill_rate, "decode": each.decode_rate}
    return {"repack": each.repack, "ours": each.ours, "wrong": each.wrong, "kl": each.kl, **rates}


def key(header: Header, options: Options, library: Library) -> dict[str, Any]:
    """All that a trial depends on."""
    import torch

    return {
        "sakuin": __version__,
        "native": _state(Path(_native.__file__)),  # whose products it measured
        "torch": torch.__version__,
        "files": [_state(path) for path in header.files],
        "library": str(library.found),
        "ggml": library.version,
        "library_files": [_state(path) for path in library.found.files],
        "machine": _machine(),
        "dtype": str(options.dtype).removeprefix("torch."),
        "threads": [options.n_threads, torch.get_num_threads()],
        "gpu_layers": options.gpu_layers,
    }


def find(about: Mapping[str, Any]) -> Trial | None:
    """The trial that is kept of just this; None where there is none, or it cannot be read."""
    trial = _read(_file(about))
    return trial if trial is not None and trial.about == about else None


def keep(trial: Trial) -> None:
    """Keep it. A cache folder that cannot be written costs time at the next load, no more."""
    with suppress(OSError, SakuinError):
        folders.make_folder(_folder())
        write_whole(_file(trial.about), json.dumps(asdict(trial), indent=1).encode())


@contextmanager
def in_turn() -> Iterator[None]:
    """Within, no other process tries a file: two at once would measure each other."""
    with ExitStack() as stack:
        with suppress(OSError, SakuinError):
            folders.make_folder(_folder())
            stack.enter_context(locked(_folder() / "lock"))
        yield


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _folder() -> Path:
    return folders.cache_folder() / "llama.cpp"


def _file(about: Mapping[str, Any]) -> Path:
    name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:24]
    return _folder() / f"{name}.json"


def _read(path: Path) -> Trial | None:
    try:
        held = read_json(path)
        measured = tuple(Measured.read(each) for each in held["measured"])
        trial = Trial(dict(held["about"]), Setting(**held["setting"]), measured, int(held["tries"]))
        _ = trial.path, trial.busy, [each.prefill_rate for each in measured]
        setting = trial.setting
        rows = setting.least_rows, setting.few_rows
        usable = isinstance(setting.repack, bool) and all(type(n) is int and 0 <= n <= MOST for n in rows)
    except (OSError, ValueError, TypeError, LookupError, AttributeError, OverflowError):
        return None
    return trial if usable else None


def _state(path: Path) -> list[Any]:
    stat = os.stat(path)
    return [str(path.resolve()), stat.st_size, stat.st_mtime_ns]


def _machine() -> dict[str, Any]:
    flags = hashlib.sha256(" ".join(sorted(cpu_flags())).encode()).hexdigest()[:16]
    return {"cpu": cpu_name(), "flags": flags, "cpus": usable_cpus()}
