"""A model loaded by llama.cpp and the context in which its passes run, with sakuin as their device.

llama.cpp's own store of keys and values is as small as one pass: full attention happens here. The memory that
it has for layers of full attention goes back to the system, since nobody reads or writes it. What it keeps is
the state of sliding windows and recurrent layers (`sakuin.backends.llama_cpp.windows`). Called by
`sakuin.backends.llama_cpp.backend`.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sakuin.backends.llama_cpp.device import register
from sakuin.backends.llama_cpp.library import Library
from sakuin.backends.llama_cpp.pool import own_threads
from sakuin.errors import SakuinError
from sakuin.index import _native

CHUNK = 1024
"""Tokens of one pass of prefill, at most: a weight's rows are converted once for all of them. Twice as many
read 2 % faster and take 120 MB more (0.5B, AMX)."""
_LAST = 64
"""Tokens of the last pass beyond it: so few would not be read exactly by themselves."""
_SPARE = 512
"""Cells of llama.cpp's own store beyond what a pass needs. With so many more than the windows' store has,
layers of both kinds are told apart by their number."""
_PADDED = 256
"""llama.cpp rounds the number of cells up to a multiple of it."""
_FLASH, _YARN, _F16 = 1, 2, 1
_NO_DEVICES = (ctypes.c_void_p * 1)(None)
"""A list of GPUs with nothing in it: without layers there, llama.cpp is not to take memory there either."""
OUTPUTS = 256
"""Most tokens of a pass whose logits are asked for: what llama.cpp reserves memory for."""


@dataclass(frozen=True)
class Options:
    """How a model is run.

    dtype : of keys, values and queries, and of weights in prefill: fp32 or bf16.
    n_threads : of the CPU. gpu_layers : layers whose weights lie on a GPU; -1 is all.
    repack : whether llama.cpp may keep a second, faster form of the weights. least_rows : rows from which on
        products are computed by sakuin in `dtype`; 0 is never. few_rows : of fewer rows, up to so many, it
        computes them too, with each row rounded to 8 bits, as llama.cpp does; 0 is never.
    window : to scale positions to by YaRN, from own_window.
    chunk : most tokens of a pass. least_cells : of llama.cpp's store. most_tokens : of a sequence.
    """

    dtype: torch.dtype
    n_threads: int
    gpu_layers: int = 0
    repack: bool = False
    least_rows: int = 64
    few_rows: int = 8
    window: int | None = None
    own_window: int | None = None
    chunk: int = CHUNK
    least_cells: int = 0
    most_tokens: int | None = None


@dataclass(frozen=True)
class Seen:
    """An attention node, as the device saw it while a graph was made."""

    layer: int
    cells: int
    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    max_bias: float
    softcap: float
    sinks: bool


class Loaded:
    """A model's weights, mapped, and one context."""

    def __init__(self, library: Library, path: Path, options: Options) -> None:
        register(library)
        self.library, self.options = library, options
        params = library.llama_model_default_params()
        params.n_gpu_layers = options.gpu_layers
        if options.gpu_layers == 0:
            params.devices = ctypes.addressof(_NO_DEVICES)
        params.use_extra_bufts = options.repack
        self.model = library.llama_model_load_from_file(str(path).encode(), params)
        if not self.model:
            where = " with layers on a GPU (gpu_layers)" if options.gpu_layers else ""
            raise SakuinError(f"llama.cpp cannot load {path}{where}: {library.said()}.")
        pool = own_threads(library, options.n_threads)
        self._held: dict[str, int | None] = {"context": None, "model": self.model, "pool": pool}
        weakref.finalize(self, _free, library, self._held)
        _LOADED.add(self)
        self.vocab = library.llama_model_get_vocab(self.model)
        self.n_vocab = library.llama_vocab_n_tokens(self.vocab)
        self.sliding = library.llama_model_n_swa(self.model)
        self.recurrent = bool(
            library.llama_model_is_hybrid(self.model) or library.llama_model_is_recurrent(self.model)
        )

    @property
    def most_tokens(self) -> int:
        """Most tokens of a pass: the last of a prompt takes what would be too short a pass by itself."""
        return self.options.chunk + _LAST

    @property
    def context(self) -> int | None:
        """llama.cpp's context; None while none is open."""
        return self._held["context"]

    def open(
        self,
        own: Sequence[bool],
        rotary: int,
        attend: Callable[..., None],
        n_sequences: int = 1,
        shared: bool = False,
    ) -> None:
        """Make the context, for passes of at most so many sequences; another that was open is closed.

        own : by layer, whether it attends to everything. rotary : dimensions of a head that llama.cpp turns
        in pairs and transformers in halves. shared : whether layers attend with keys of others. attend : is
        called for what is not native (`_native.GgmlSession`).
        """
        self.close()
        options = self.options
        session = _native.GgmlSession(
            dtype=str(options.dtype).removeprefix("torch."),
            own=list(own),
            rotary=rotary,
            least_rows=options.least_rows,
            few_rows=options.few_rows,
            n_threads=options.n_threads,
            shared=shared,
            attend=attend,
            multiply=_multiplier(options.dtype),
        )
        context = session.within(
            lambda: self.library.llama_init_from_model(self.model, self._params(n_sequences))
        )
        if not context:
            raise SakuinError(f"llama.cpp cannot run the model: {self.library.said()}.")
        self.session, self._held["context"], self.n_sequences = session, context, n_sequences
        self.memory = self.library.llama_get_memory(context)
        if (pool := self._held["pool"]) is not None:
            self.library.optional("llama_attach_threadpool")(context, pool, pool)
        if (stoppable := self.library.optional("llama_set_abort_callback")) is not None:
            stoppable(context, _native.ggml_abort(), None)  # Ctrl-C ends a pass

    def after_fork(self) -> None:
        """In a forked child, whose threads are the parent's: compute with the calling thread alone."""
        self.options = replace(self.options, n_threads=1)
        self._held["pool"] = None  # never freed: that would wait for its threads
        if self.context is not None:
            for name, arguments in (("llama_detach_threadpool", ()), ("llama_set_n_threads", (1, 1))):
                if (function := self.library.optional(name)) is not None:
                    function(self.context, *arguments)

    def close(self) -> None:
        """Close the context."""
        if self.context is not None:
            self.library.llama_free(self.context)
            self._held["context"] = None

    def _params(self, n_sequences: int) -> Any:
        options, params = self.options, self.library.llama_context_default_params()
        params.n_ctx = self.cells = cells_for(options, self.sliding * n_sequences)
        params.n_batch = params.n_ubatch = self.most_tokens
        params.n_seq_max = n_sequences
        params.n_outputs_max = params.n_outputs_max_per_seq = min(OUTPUTS, self.most_tokens)
        params.n_threads = params.n_threads_batch = options.n_threads
        params.flash_attn_type = _FLASH
        params.type_k = params.type_v = _F16
        # Keys, values and attention stay in host memory also where the weights around them are on a GPU.
        params.offload_kqv = options.gpu_layers == 0
        # A GPU may multiply weights that are not there too, in passes that are too short for sakuin.
        params.op_offload = options.gpu_layers != 0
        params.swa_full, params.kv_unified = False, True
        params.no_perf = True
        if options.window is not None and options.own_window:
            params.rope_scaling_type = _YARN
            params.rope_freq_scale = options.own_window / options.window
            params.yarn_ext_factor, params.yarn_orig_ctx = 1.0, options.own_window
        return params

    @property
    def seen(self) -> list[Seen]:
        """The attention nodes of the context's graphs."""
        return [Seen(*each) for each in self.session.seen]

    def run(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        sequences: Sequence[int],
        wanted: Sequence[bool],
        parts: list[tuple[int, int, list[_native.Steps | None]]],
    ) -> None:
        """One pass. Raises what a callback raised, else `SakuinError` where llama.cpp stops."""
        assert self.context is not None
        if len(tokens) > self.most_tokens:  # llama.cpp would end the process
            raise ValueError(f"a pass has at most {self.most_tokens} tokens, got {len(tokens)}")
        if sum(wanted) > min(OUTPUTS, self.most_tokens):
            raise ValueError(f"logits are given of at most {OUTPUTS} tokens of a pass, got {sum(wanted)}")
        code = self.session.run(self.context, tokens, positions, sequences, wanted, parts)
        if code:
            raise SakuinError(
                f"llama.cpp stopped a pass of {len(tokens)} tokens ({code}): {self.library.said()}."
            )

    def logits(self, row: int, into: Tensor | None = None) -> Tensor:
        """Of a row of the last pass that was wanted, fp32 `(vocabulary,)`. into : what they are copied to."""
        pointer = self.library.llama_get_logits_ith(self.context, row)
        if not pointer:
            raise SakuinError(f"llama.cpp has no logits of row {row}: {self.library.said()}.")
        there = tensor_at(ctypes.cast(pointer, ctypes.c_void_p).value or 0, (self.n_vocab,), torch.float32)
        return there.clone() if into is None else into.copy_(there)


_LOADED: weakref.WeakSet[Loaded] = weakref.WeakSet()


def _after_fork() -> None:
    for loaded in list(_LOADED):
        loaded.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def cells_for(options: Options, windows: int) -> int:
    """Cells of llama.cpp's own store. windows : tokens that sliding layers see, of all sequences."""
    return -(-max(options.chunk + _SPARE + windows, options.least_cells) // _PADDED) * _PADDED


def _free(library: Library, held: dict[str, int | None]) -> None:
    if held["context"] is not None:
        library.llama_free(held["context"])
    if held["pool"] is not None:
        library.optional("ggml_threadpool_free")(held["pool"])
    library.llama_model_free(held["model"])


def tensor_at(address: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """The memory at an address as a tensor, which does not keep it alive."""
    n = 1
    for size in shape:
        n *= size
    memory = (ctypes.c_char * (n * dtype.itemsize)).from_address(address)
    return torch.frombuffer(memory, dtype=dtype).view(shape)


def _multiplier(dtype: torch.dtype) -> Callable[..., None]:
    def multiply(
        rows: int, depth: int, n: int, first: int, width: int, x: int, weight: int, out: int
    ) -> None:
        left = tensor_at(x, (rows, depth), dtype)
        right = tensor_at(weight, (n, depth), dtype)
        with torch.inference_mode():
            tensor_at(out, (rows, width), torch.float32)[:, first : first + n] = torch.nn.functional.linear(
                left, right
            )

    return multiply
