"""The structs that llama.cpp's functions take by value, as the versions that were tested have them.

Versions of one month differ, and nothing in a library says its structs. So a layout is believed only when the
library's own default functions return just what it expects at every place. Called by
`sakuin.backends.llama_cpp.library`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_int, _uint, _float, _bool, _pointer = (
    ctypes.c_int32,
    ctypes.c_uint32,
    ctypes.c_float,
    ctypes.c_bool,
    ctypes.c_void_p,
)
_Field = tuple[str, Any, Any]
"""Name, type and default; None where nothing is known of the default."""

_MODEL: Sequence[_Field] = (
    ("devices", _pointer, 0),
    ("tensor_buft_overrides", _pointer, 0),
    ("n_gpu_layers", _int, -1),
    ("split_mode", _int, 1),
    ("load_mode", _int, -1),
    ("lazy_mode", _int, 1),
    ("main_gpu", _int, 0),
    ("tensor_split", _pointer, 0),
    ("progress_callback", _pointer, 0),
    ("progress_callback_user_data", _pointer, 0),
    ("kv_overrides", _pointer, 0),
    ("vocab_only", _bool, False),
    ("check_tensors", _bool, False),
    ("use_extra_bufts", _bool, True),
    ("no_host", _bool, False),
    ("no_alloc", _bool, False),
    ("load_mtp", _bool, False),
)

_CONTEXT: Sequence[_Field] = (
    ("n_ctx", _uint, 512),
    ("n_batch", _uint, 2048),
    ("n_ubatch", _uint, 512),
    ("n_seq_max", _uint, 1),
    ("n_rs_seq", _uint, 0),
    ("n_outputs_max", _uint, 0),
    ("n_outputs_max_per_seq", _uint, 1),
    ("n_threads", _int, 4),
    ("n_threads_batch", _int, 4),
    ("ctx_type", _int, 0),
    ("rope_scaling_type", _int, -1),
    ("pooling_type", _int, -1),
    ("attention_type", _int, -1),
    ("flash_attn_type", _int, -1),
    ("rope_freq_base", _float, 0.0),
    ("rope_freq_scale", _float, 0.0),
    ("yarn_ext_factor", _float, -1.0),
    ("yarn_attn_factor", _float, -1.0),
    ("yarn_beta_fast", _float, -1.0),
    ("yarn_beta_slow", _float, -1.0),
    ("yarn_orig_ctx", _uint, 0),
    ("defrag_thold", _float, -1.0),
    ("cb_eval", _pointer, 0),
    ("cb_eval_user_data", _pointer, 0),
    ("type_k", _int, 1),
    ("type_v", _int, 1),
    ("abort_callback", _pointer, 0),
    ("abort_callback_data", _pointer, 0),
    ("embeddings", _bool, False),
    ("offload_kqv", _bool, True),
    ("no_perf", _bool, True),
    ("op_offload", _bool, True),
    ("swa_full", _bool, True),
    ("kv_unified", _bool, False),
    ("samplers", _pointer, 0),
    ("n_samplers", ctypes.c_size_t, 0),
    ("ctx_other", _pointer, 0),
)


def _with(fields: Sequence[_Field], after: str, *more: _Field) -> Sequence[_Field]:
    at = [name for name, _, _ in fields].index(after) + 1
    return (*fields[:at], *more, *fields[at:])


@dataclass(frozen=True)
class Layout:
    """One form of the two parameter structs, and the versions of ggml it was tested with."""

    versions: tuple[str, ...]
    model: type[ctypes.Structure]
    context: type[ctypes.Structure]
    defaults: Mapping[str, Mapping[str, Any]]

    def agrees(self, returned: Mapping[str, ctypes.Structure]) -> bool:
        """Whether `returned`, what the default functions gave as "model" and "context", is what is
        expected."""
        return all(
            (getattr(returned[struct], name) or 0) == (expected or 0)
            for struct, fields in self.defaults.items()
            for name, expected in fields.items()
            if expected is not None
        )


def _layout(versions: tuple[str, ...], model: Sequence[_Field], context: Sequence[_Field]) -> Layout:
    made = {
        struct: type(f"{struct}_params", (ctypes.Structure,), {"_fields_": [(n, t) for n, t, _ in fields]})
        for struct, fields in (("model", model), ("context", context))
    }
    defaults = {
        "model": {name: default for name, _, default in model},
        "context": {name: default for name, _, default in context},
    }
    return Layout(versions, made["model"], made["context"], defaults)


LAYOUTS = (
    _layout(("0.25.3",), _MODEL, _CONTEXT),
    _layout(("0.26.0",), _MODEL, _with(_CONTEXT, "type_v", ("moe_cache_size", ctypes.c_size_t, 0))),
)
"""The layouts that are known, with the versions that `ggml_version` names."""


class Batch(ctypes.Structure):
    """`llama_batch`: tokens of one pass, with position, sequences and whether logits are wanted."""

    _fields_ = (
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.POINTER(ctypes.c_float)),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    )


class HeaderParams(ctypes.Structure):
    """`gguf_init_params`: read a file's header alone."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


class ArenaParams(ctypes.Structure):
    """`ggml_init_params`: memory in which tensors are described."""

    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


class PoolParams(ctypes.Structure):
    """`ggml_threadpool_params`. poll : how long its threads spin before they sleep; 0 is not at all."""

    _fields_ = (
        ("cpumask", ctypes.c_bool * 512),
        ("n_threads", ctypes.c_int),
        ("prio", ctypes.c_int),
        ("poll", ctypes.c_uint32),
        ("strict_cpu", ctypes.c_bool),
        ("paused", ctypes.c_bool),
    )
