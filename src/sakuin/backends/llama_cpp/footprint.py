"""How much memory a GGUF file takes when it is loaded, from its header alone: said before, not found out by
being killed.

Weights are mapped: they lie in the system's file cache once, and what is not used for long can be dropped
and read again. So a file that is larger than the memory can be loaded, but what every token reads must fit,
or each token reads it from the disk: that is refused. Of experts each token reads a few, and a file whose
experts do not all fit is run, with a warning. Called by `sakuin.backends.llama_cpp.load`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from sakuin.backends.llama_cpp.gpu import is_on_gpu
from sakuin.backends.llama_cpp.header import Header, Tensor
from sakuin.backends.llama_cpp.loaded import OUTPUTS, Options, cells_for
from sakuin.backends.shape import ModelShape
from sakuin.errors import SakuinError
from sakuin.machine.memory import Available, available
from sakuin.quantities import size_of

_log = logging.getLogger("sakuin")
_FIXED = 128 << 20
"""Bytes of buffers that are as large for every model: pieces of weights that are converted, torch's own."""


@dataclass(frozen=True)
class Footprint:
    """Bytes of memory.

    weights : of all that is mapped. always : of what every token reads. buffers : llama.cpp's store for one
    pass, and what a pass computes in.
    """

    weights: int
    always: int
    buffers: int


def footprint(header: Header, shape: ModelShape, options: Options) -> Footprint:
    """What a file takes in host memory with these options."""
    n_layers = len(shape.layers)
    here = (each for each in header.tensors if not is_on_gpu(each, n_layers, options.gpu_layers))
    weights = sum(tensor.nbytes for tensor in here)
    always = always_read(header, n_layers, options.gpu_layers)
    attending = len(shape.layers) - shape.layers.count("recurrent") - shape.layers.count("none")
    both = shape.head_dim + shape.value_dim
    store = attending * cells_for(options, shape.sliding_window) * shape.n_kv_heads * both * 2
    wide = 6 * shape.hidden + 3 * shape.intermediate + 2 * shape.n_query_heads * both
    logits = min(OUTPUTS, options.chunk) * shape.vocabulary
    return Footprint(weights, always, store + 4 * (options.chunk * wide + logits) + _FIXED)


def always_read(header: Header, n_layers: int, gpu_layers: int = 0) -> int:
    """Bytes of weights in host memory that every token reads."""
    return sum(
        tensor.nbytes
        for tensor in header.tensors
        if _is_always_read(header, tensor, gpu_layers != 0) and not is_on_gpu(tensor, n_layers, gpu_layers)
    )


def check(name: str, need: Footprint, have: Available | None = None) -> None:
    """Raise `SakuinError` where what every token reads does not fit; warn where all of it does not."""
    have = have or available()
    if need.always + need.buffers > have.bytes:
        raise SakuinError(
            f"{name} needs about {size_of(need.always + need.buffers)} of memory ({size_of(need.always)} "
            f"for weights, {size_of(need.buffers)} to compute in), and {size_of(have.bytes)} {have.bound}; "
            "take a smaller model or one with fewer bits, or give it more memory."
        )
    if need.weights + need.buffers > have.bytes:
        _log.warning(
            "%s has %s of weights, and %s %s: experts will be read from the disk again and again, slowly",
            name,
            size_of(need.weights),
            size_of(have.bytes),
            have.bound,
        )


def _is_always_read(header: Header, tensor: Tensor, output_elsewhere: bool) -> bool:
    """Whether every token reads all of a tensor: not of experts, nor of tables with a row for each word,
    unless the table is the output too and is not multiplied on a GPU."""
    if "_exps" in tensor.name or tensor.name == "per_layer_token_embd.weight":
        return False
    if tensor.name != "token_embd.weight":
        return True
    return "output.weight" not in header.by_name and not output_elsewhere
