"""What the files of the installed torch tell without torch being loaded, which takes a second or more.

Called by `sakuin.capacity.doctor` and `sakuin.backends.llama_cpp`.
"""

from __future__ import annotations

import ctypes
import re
import sys
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

_OPENMP = re.compile(r"/(lib(?:gomp|iomp5|omp)[^/]*\.so[^/]*)$")
_VERSION = re.compile(r"^__version__ = '([^']+)'", re.MULTILINE)
_GPU = re.compile(r"^(?:cuda|hip)\b[^=\n]*= *'", re.MULTILINE)
_NODES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/nvmap", "/dev/dxg", "/dev/kfd")
"""What the drivers of GPUs that torch can use put into /dev."""


@cache
def _folder() -> Path | None:
    spec = find_spec("torch")
    return Path(spec.origin).parent if spec is not None and spec.origin else None


@cache
def _said() -> str:
    """Its file of versions; "" where there is none."""
    folder = _folder()
    try:
        return "" if folder is None else (folder / "version.py").read_text(encoding="utf-8")
    except OSError:
        return ""


def version() -> str:
    """`torch.__version__`, or what its package says where its files do not tell."""
    found = _VERSION.search(_said())
    return found[1] if found else metadata.version("torch")


def may_see_gpus() -> bool:
    """Whether torch could see a GPU: it is built for some, and a driver is there. Else it sees none."""
    built = _GPU.search(_said()) is not None or not _said()
    return built and any(Path(node).exists() for node in _NODES)


def openmp_runtimes() -> list[str]:
    """File names of the OpenMP runtimes in this process, with the one that torch brings with it; more than
    one fight over the cores. torch is loaded where it brings none, since it may use the system's."""
    brought = {file.name for file in _brought()}
    if "torch" not in sys.modules and not brought:
        import torch  # noqa: F401
    lines = Path("/proc/self/maps").read_text().splitlines()
    mapped = {found[1] for line in lines if (found := _OPENMP.search(line))}
    return sorted(mapped if "torch" in sys.modules else mapped | brought)


def load_openmp_first() -> None:
    """Have torch's OpenMP runtime in this process before another library is loaded: both then use one, with
    one team of threads."""
    if "torch" in sys.modules:
        return
    brought = _brought()
    if len(brought) != 1:
        import torch  # noqa: F401

        return
    ctypes.CDLL(str(brought[0]), mode=ctypes.RTLD_GLOBAL)


def _brought() -> list[Path]:
    folder = _folder()
    if folder is None:
        return []
    places = (folder / "lib", folder.parent / "torch.libs")
    return sorted(
        file for place in places for file in place.glob("lib*.so*") if _OPENMP.search(f"/{file.name}")
    )
