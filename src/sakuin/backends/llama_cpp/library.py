"""llama.cpp's shared library, loaded and bound: its functions by name, and the forms of its structs.

One library a process. torch's OpenMP runtime is loaded before it, so that both use one with one team of
threads. Whoever calls it is in this folder.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

from sakuin.backends.llama_cpp import locate
from sakuin.backends.llama_cpp.functions import FUNCTIONS, NATIVE, OPTIONAL
from sakuin.backends.llama_cpp.layouts import LAYOUTS, Layout
from sakuin.errors import SakuinError
from sakuin.index import _native
from sakuin.machine import torch_files
from sakuin.machine.forks import lock

OPS = frozenset(
    {"NONE", "RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE", "FLASH_ATTN_EXT", "SET_ROWS", "MUL_MAT", "MUL_MAT_ID"}
)
"""The operations that the native device knows."""
_MOST_OPS = 90
"""No version that was tested has fewer."""


class Library:
    """A loaded llama.cpp. Functions are attributes by their C names.

    found : which one it is. version : ggml's. layout : of the parameter structs.
    """

    def __init__(self, found: locate.Found) -> None:
        locate.check(found)
        self.found = found
        torch_files.load_openmp_first()
        self._handles = [_load(found, file) for file in found.files]
        self.version = self.bind("ggml_version", ctypes.c_char_p, ())().decode()
        self.layout = self._choose_layout()
        for name, (result, arguments) in FUNCTIONS.items():
            setattr(self, name, self.bind(name, result, arguments))
        self._bind_structs()
        self.ops = self._find_ops()
        logger = _native.ggml_logger()
        self.llama_log_set(logger, None)
        self.ggml_log_set(logger, None)
        self.llama_backend_init()

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"llama.cpp's {name} is not bound")

    def addresses(self) -> dict[str, int]:
        """Where the functions lie that the native device calls."""
        found = {name: ctypes.cast(self._symbol(name), ctypes.c_void_p).value for name in NATIVE}
        return {name: address or 0 for name, address in found.items()}

    def said(self, otherwise: str = "it gave no reason") -> str:
        """The last error that the library logged in this thread, once, as the end of a sentence."""
        line = _native.ggml_said().decode("utf-8", "replace") or otherwise
        return line.strip().rstrip(".")

    # -- binding ---------------------------------------------------------------------------------------------

    def _find(self, name: str) -> Any:
        for handle in reversed(self._handles):
            try:
                return getattr(handle, name)
            except AttributeError:
                continue
        return None

    def _symbol(self, name: str) -> Any:
        function = self._find(name)
        if function is None:
            raise SakuinError(
                f"{self.found} has no function {name}, so it is no llama.cpp that sakuin can use; tested are "
                f"{tested()}."
            )
        return function

    def bind(self, name: str, result: Any, arguments: tuple[Any, ...]) -> Any:
        function = self._symbol(name)
        function.restype, function.argtypes = result, list(arguments)
        return function

    def optional(self, name: str) -> Any:
        """A function of `OPTIONAL`, which not every library has; None where this one lacks it."""
        return self.bind(name, *OPTIONAL[name]) if self._find(name) is not None else None

    def _choose_layout(self) -> Layout:
        """The layout with which the library's own defaults are what they should be: the one of its version,
        where that is known."""
        known = sorted(LAYOUTS, key=lambda layout: self.version not in layout.versions)
        for layout in known:
            if self.version in layout.versions and layout.agrees(self._defaults(layout)):
                return layout
        raise SakuinError(
            f"{self.found} has ggml {self.version}, whose structs are not known here; tested are {tested()}."
        )

    def _defaults(self, layout: Layout) -> Mapping[str, ctypes.Structure]:
        return {
            "model": self.bind("llama_model_default_params", layout.model, ())(),
            "context": self.bind("llama_context_default_params", layout.context, ())(),
        }

    def _bind_structs(self) -> None:
        pointer, layout = ctypes.c_void_p, self.layout
        for name, result, arguments in (
            ("llama_model_default_params", layout.model, ()),
            ("llama_context_default_params", layout.context, ()),
            ("llama_model_load_from_file", pointer, (ctypes.c_char_p, layout.model)),
            ("llama_init_from_model", pointer, (pointer, layout.context)),
        ):
            setattr(self, name, self.bind(name, result, arguments))

    def _find_ops(self) -> dict[str, int]:
        """The numbers of the operations that the device knows. The table of names does not tell its end:
        nobody reads past the last that is looked for."""
        found: dict[str, int] = {}
        for number in range(_MOST_OPS):
            name = self.ggml_op_name(number).decode()
            if name in OPS:
                found[name] = number
            if len(found) == len(OPS):
                return found
        raise SakuinError(
            f"{self.found} lacks the operations {', '.join(sorted(OPS - set(found)))}; tested are {tested()}."
        )


def _load(found: locate.Found, file: Any) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(file), mode=ctypes.RTLD_GLOBAL if len(found.files) > 1 else ctypes.RTLD_LOCAL)
    except OSError as error:
        raise SakuinError(
            f"{found} cannot be loaded: {str(error).strip()}. Another package may suit this system: "
            f"{locate.INSTALL}, or llama-cpp-python, which is built on it."
        ) from error


def tested() -> str:
    """The versions of ggml that sakuin was tested with, in words."""
    versions = [version for layout in LAYOUTS for version in layout.versions]
    return f"xllamacpp 2026.10, llama-cpp-python 0.3.36 (ggml {' and '.join(versions)})"


_lock = lock()
_loaded: list[Library] = []


def library() -> Library:
    """The library of this process, loaded at the first call. Raises `SakuinError` where there is none that
    can be used."""
    with _lock:
        if not _loaded:
            found = locate.find()
            if found is None:
                raise locate.no_library()
            _loaded.append(Library(found))
        return _loaded[0]
