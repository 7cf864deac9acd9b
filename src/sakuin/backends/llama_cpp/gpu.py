"""The GPUs on which the loaded llama.cpp can keep weights, and which weights go there.

Attention, keys and values stay in host memory whatever lies there. Called by
`sakuin.backends.llama_cpp.load`, `footprint` and `report`.
"""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass

from sakuin.backends.llama_cpp.header import Header, Tensor
from sakuin.backends.llama_cpp.library import Library
from sakuin.backends.llama_cpp.locate import VARIABLE
from sakuin.errors import SakuinError
from sakuin.quantities import size_of

_GPU, _INTEGRATED = 1, 2
"""ggml's numbers of kinds of devices."""
_BLOCK = re.compile(r"blk\.(\d+)\.")


@dataclass(frozen=True)
class Gpu:
    """name : ggml's, such as `Vulkan0`. description : its maker's. free, total : bytes of its memory, 0 where
    it does not tell."""

    name: str
    description: str
    free: int
    total: int

    def __str__(self) -> str:
        return f"{self.name} ({self.description})"


def gpus(library: Library) -> tuple[Gpu, ...]:
    """Those with memory of their own; where there is none of these, integrated ones: as llama.cpp takes
    them."""
    found: dict[int, list[Gpu]] = {_GPU: [], _INTEGRATED: []}
    for i in range(library.ggml_backend_dev_count()):
        device = library.ggml_backend_dev_get(i)
        kind = library.ggml_backend_dev_type(device)
        if kind not in found:
            continue
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        library.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
        name, description = (
            said(device).decode("utf-8", "replace")
            for said in (library.ggml_backend_dev_name, library.ggml_backend_dev_description)
        )
        found[kind].append(Gpu(name, description, free.value, total.value))
    return tuple(found[_GPU] or found[_INTEGRATED])


def settle(name: str, asked: int, header: Header, n_layers: int, library: Library) -> int:
    """The layers that go to GPUs, -1 for all, where so many were asked for.

    Raises `SakuinError` where the library has no GPU here, or the weights do not fit on those that it has.
    """
    if asked == 0:
        return 0
    there = gpus(library)
    if not there:
        raise SakuinError(
            f"gpu_layers needs a llama.cpp with a GPU, and {library.found} has none here: it was built for "
            f"none, or the GPU's driver is missing. Name another library by {VARIABLE}, or leave gpu_layers "
            "out."
        )
    layers = -1 if asked < 0 or asked > n_layers else asked
    if all(gpu.total for gpu in there):
        _check_memory(name, layers, header, n_layers, there)
    return layers


def _check_memory(name: str, layers: int, header: Header, n_layers: int, there: tuple[Gpu, ...]) -> None:
    free = sum(gpu.free for gpu in there)
    needed = gpu_nbytes(header, n_layers, layers)
    if needed <= free:
        return
    most = n_layers + 1 if layers < 0 else layers
    fit = max(n for n in range(most) if n == 0 or gpu_nbytes(header, n_layers, n) <= free)
    would = f"{fit} of {n_layers + 1} layers would fit (gpu_layers={fit})" if fit else "leave gpu_layers out"
    raise SakuinError(
        f"{name} has {size_of(needed)} of weights in the layers that shall go to "
        f"{', '.join(map(str, there))}, where {size_of(free)} are free: {would}."
    )


def gpu_nbytes(header: Header, n_layers: int, gpu_layers: int) -> int:
    """Bytes of weights that go to GPUs with so many layers there, -1 for all."""
    if gpu_layers == 0:
        return 0
    found = sum(each.nbytes for each in header.tensors if is_on_gpu(each, n_layers, gpu_layers))
    words = header.by_name.get("token_embd.weight")
    if words is not None and "output.weight" not in header.by_name:
        found += words.nbytes  # the table is looked up here and multiplied there
    return found


def is_on_gpu(tensor: Tensor, n_layers: int, gpu_layers: int) -> bool:
    """Whether a tensor goes to a GPU. llama.cpp counts the output as one layer more, and fills GPUs from the
    last layer on; tables of words stay in host memory."""
    if gpu_layers == 0:
        return False
    first = 0 if gpu_layers < 0 else n_layers + 1 - gpu_layers
    if block := _BLOCK.match(tensor.name):
        return int(block[1]) >= first
    return tensor.name.startswith("output")
