"""Where a llama.cpp library is on this machine, and whether this machine can run it; nothing is loaded.

The order: the file that `SAKUIN_LLAMA_LIBRARY` names, the package `llama-cpp-python` (built for this
machine), the package `xllamacpp`. Called by `sakuin.backends.llama_cpp.library`, and by
`sakuin.backends.open` to choose a backend.
"""

from __future__ import annotations

import os
import platform
import struct
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from sakuin.errors import SakuinError
from sakuin.machine.cpu import cpu_flags
from sakuin.storage.paths import expanded, is_file, is_folder

VARIABLE = "SAKUIN_LLAMA_LIBRARY"
"""Names a llama.cpp library to use instead of an installed package's."""

INSTALL = "`pip install 'sakuin[gguf]'`"
"""How to get one."""

_MACHINES = {62: ("x86_64", "amd64"), 183: ("aarch64", "arm64")}
"""ELF's numbers of processors, and what Python calls them."""


@dataclass(frozen=True)
class Found:
    """A llama.cpp library on this machine.

    name : of the package, or the path that was named. version : of the package, or "".
    files : the shared objects to load, in order; the last one has the functions of llama.h, and those of ggml
        are in one of them.
    needs : CPU features that its package was built for, in Linux' words.
    """

    name: str
    version: str
    files: tuple[Path, ...]
    needs: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{self.name} {self.version}".strip()


def find() -> Found | None:
    """The library to use, or None where there is none. Raises `SakuinError` where `SAKUIN_LLAMA_LIBRARY`
    names something that is none."""
    named = os.environ.get(VARIABLE, "")
    if named:
        return _named(named)
    return _llama_cpp_python() or _xllamacpp()


def check(found: Found) -> None:
    """Raise `SakuinError` where this machine cannot run what was found: another processor or system, or CPU
    features that it lacks (the process would die at the first instruction)."""
    for file in found.files:
        _check_elf(found, file)
    missing = sorted(found.needs - cpu_flags()) if cpu_flags() else []
    if missing:
        raise SakuinError(
            f"{found} was built for CPUs with {', '.join(missing)}, which this one lacks; install "
            "llama-cpp-python, which is built for the machine it is installed on."
        )


def no_library() -> SakuinError:
    """What to tell a user who wants llama.cpp where there is none."""
    return SakuinError(f"there is no llama.cpp on this machine; {INSTALL} installs it.")


def _named(named: str) -> Found:
    path = expanded(named)
    if is_folder(path):
        path = path / "libllama.so"
    if not is_file(path):
        raise SakuinError(
            f"{VARIABLE} names {named}, where there is no file; name a libllama.so, or unset it to use an "
            "installed package."
        )
    return Found(named, "", _with_ggml(path))


def _with_ggml(llama: Path) -> tuple[Path, ...]:
    """`llama` and the libraries of ggml beside it, as its loader would find them."""
    beside = []
    for name in ("ggml-base", "ggml-cpu", "ggml"):
        # Wheels hold copies where a system has links, and two copies are two registries: what libllama asks
        # for is the numbered one.
        for file in (f"lib{name}.so.0", f"lib{name}.so"):
            if (llama.parent / file).is_file():
                beside.append(llama.parent / file)
                break
    return (*beside, llama)


def _llama_cpp_python() -> Found | None:
    folder = _package("llama_cpp")
    llama = folder / "lib" / "libllama.so" if folder else None
    if llama is None or not llama.is_file():
        return None
    return Found("llama-cpp-python", _version("llama-cpp-python"), _with_ggml(llama))


def _xllamacpp() -> Found | None:
    folder = _package("xllamacpp")
    modules = sorted(folder.glob("xllamacpp*.so")) if folder else []
    if not modules:
        return None
    needs = {"avx2", "fma", "f16c", "bmi2"} if platform.machine().lower() in _MACHINES[62] else set()
    return Found("xllamacpp", _version("xllamacpp"), (modules[0],), frozenset(needs))


def _package(name: str) -> Path | None:
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        return None
    places = spec.submodule_search_locations if spec else None
    return Path(next(iter(places))) if places else None


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _check_elf(found: Found, file: Path) -> None:
    head = file.open("rb").read(20)
    if head[:4] != b"\x7fELF" or head[4] != 2 or len(head) < 20:
        raise SakuinError(f"{found}: {file.name} is no 64-bit shared library of Linux; name a libllama.so.")
    (machine,) = struct.unpack_from("<H", head, 18)
    ours = platform.machine().lower()
    if machine in _MACHINES and ours not in _MACHINES[machine]:
        raise SakuinError(
            f"{found} was built for {_MACHINES[machine][0]} processors and this one is {ours}; install the "
            "package for this machine."
        )


@cache
def available() -> bool:
    """Whether a library is there; a wrong `SAKUIN_LLAMA_LIBRARY` counts, so that its error is told when it is
    loaded."""
    try:
        return find() is not None
    except SakuinError:
        return True
