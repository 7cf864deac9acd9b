"""sakuin as a device of the loaded llama.cpp: registered once a process, after its structs were checked.

What the device does is native (`native/ggml`). Called by `sakuin.backends.llama_cpp.loaded`.
"""

from __future__ import annotations

import ctypes

from sakuin.backends.llama_cpp.layouts import ArenaParams
from sakuin.backends.llama_cpp.library import Library, tested
from sakuin.errors import SakuinError
from sakuin.index import _native
from sakuin.machine.forks import lock

_F32 = 0
_lock = lock()
_done: list[Library] = []


def register(library: Library) -> None:
    """Make the device known to the library. Raises `SakuinError` where its structs are others."""
    with _lock:
        if _done:
            return
        _check_node(library)
        try:
            _native.ggml_register(library.addresses(), library.ops)
        except RuntimeError as error:
            raise SakuinError(f"{library.found} cannot be used: {error}; tested are {tested()}.") from error
        _done.append(library)


def _check_node(library: Library) -> None:
    """Whether a tensor that ggml's own functions made reads as it was made."""
    new = library.bind("ggml_init", ctypes.c_void_p, (ArenaParams,))
    tensor = library.bind(
        "ggml_new_tensor_4d", ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_int, *[ctypes.c_int64] * 4)
    )
    view = library.bind(
        "ggml_view_4d",
        ctypes.c_void_p,
        (ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 4, *[ctypes.c_size_t] * 4),
    )
    name = library.bind("ggml_set_name", ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_char_p))
    free = library.bind("ggml_free", None, (ctypes.c_void_p,))
    arena = new(ArenaParams(1 << 16, None, False))
    if not arena:
        raise SakuinError(f"{library.found} cannot make a tensor; tested are {tested()}.")
    try:
        whole = tensor(arena, _F32, 8, 5, 3, 2)
        part = view(arena, whole, 4, 3, 2, 1, 32, 160, 480, 64)
        name(part, b"sakuin-check")
        a, b = _native.ggml_node(whole), _native.ggml_node(part)
    finally:
        free(arena)
    same = (
        a["type"] == _F32
        and a["ne"] == (8, 5, 3, 2)
        and a["nb"] == (4, 32, 160, 480)
        and a["op"] == library.ops["NONE"]
        and b["ne"] == (4, 3, 2, 1)
        and b["nb"] == (4, 32, 160, 480)
        and b["op"] == library.ops["VIEW"]
        and b["view_src"] == whole == b["src"]
        and b["view_offs"] == 64
        and b["data"] == a["data"] + 64
        and b["name"] == "sakuin-check"
    )
    if not same:
        raise SakuinError(
            f"{library.found} (ggml {library.version}) has tensors of another form than is known here; "
            f"tested are {tested()}."
        )
