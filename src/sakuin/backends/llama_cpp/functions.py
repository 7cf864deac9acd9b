"""llama.cpp's C functions that sakuin calls, with the types of what they take and return.

Those that take the parameter structs are bound by `sakuin.backends.llama_cpp.library`, which knows the
layout.
"""

from __future__ import annotations

import ctypes
from typing import Any

from sakuin.backends.llama_cpp.layouts import Batch, HeaderParams, PoolParams

_p, _s, _i, _u, _z, _b = (
    ctypes.c_void_p,
    ctypes.c_char_p,
    ctypes.c_int32,
    ctypes.c_uint32,
    ctypes.c_size_t,
    ctypes.c_bool,
)
_ints = ctypes.POINTER(ctypes.c_int32)

FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    # ggml
    "ggml_version": (_s, ()),
    "ggml_op_name": (_s, (_i,)),
    "ggml_log_set": (None, (_p, _p)),
    "ggml_type_name": (_s, (_i,)),
    # its devices
    "ggml_backend_dev_count": (_z, ()),
    "ggml_backend_dev_get": (_p, (_z,)),
    "ggml_backend_dev_type": (_i, (_p,)),
    "ggml_backend_dev_name": (_s, (_p,)),
    "ggml_backend_dev_description": (_s, (_p,)),
    "ggml_backend_dev_memory": (None, (_p, ctypes.POINTER(_z), ctypes.POINTER(_z))),
    # the header of a file
    "gguf_init_from_file": (_p, (_s, HeaderParams)),
    "gguf_free": (None, (_p,)),
    "gguf_get_n_kv": (ctypes.c_int64, (_p,)),
    "gguf_find_key": (ctypes.c_int64, (_p, _s)),
    "gguf_get_key": (_s, (_p, ctypes.c_int64)),
    "gguf_get_kv_type": (_i, (_p, ctypes.c_int64)),
    "gguf_get_arr_type": (_i, (_p, ctypes.c_int64)),
    "gguf_get_arr_n": (_z, (_p, ctypes.c_int64)),
    "gguf_get_arr_data": (_p, (_p, ctypes.c_int64)),
    "gguf_get_arr_str": (_s, (_p, ctypes.c_int64, _z)),
    "gguf_get_val_data": (_p, (_p, ctypes.c_int64)),
    "gguf_get_val_str": (_s, (_p, ctypes.c_int64)),
    "gguf_get_n_tensors": (ctypes.c_int64, (_p,)),
    "gguf_get_tensor_name": (_s, (_p, ctypes.c_int64)),
    "gguf_get_tensor_type": (_i, (_p, ctypes.c_int64)),
    "gguf_get_tensor_ne": (ctypes.POINTER(ctypes.c_int64), (_p, ctypes.c_int64)),
    "gguf_get_tensor_size": (_z, (_p, ctypes.c_int64)),
    "gguf_get_tensor_offset": (_z, (_p, ctypes.c_int64)),
    "gguf_get_data_offset": (_z, (_p,)),
    # the model
    "llama_backend_init": (None, ()),
    "llama_log_set": (None, (_p, _p)),
    "llama_model_free": (None, (_p,)),
    "llama_model_get_vocab": (_p, (_p,)),
    "llama_model_n_layer": (_i, (_p,)),
    "llama_model_n_swa": (_i, (_p,)),
    "llama_model_is_recurrent": (_b, (_p,)),
    "llama_model_is_hybrid": (_b, (_p,)),
    "llama_model_rope_type": (_i, (_p,)),
    "llama_model_n_params": (ctypes.c_uint64, (_p,)),
    # a context and its memory
    "llama_free": (None, (_p,)),
    "llama_get_memory": (_p, (_p,)),
    "llama_memory_clear": (None, (_p, _b)),
    "llama_memory_seq_rm": (_b, (_p, _i, _i, _i)),
    "llama_memory_seq_cp": (None, (_p, _i, _i, _i, _i)),
    "llama_state_seq_get_size_ext": (_z, (_p, _i, _u)),
    "llama_state_seq_get_data_ext": (_z, (_p, _p, _z, _i, _u)),
    "llama_state_seq_set_data_ext": (_z, (_p, _p, _z, _i, _u)),
    "llama_decode": (_i, (_p, Batch)),
    "llama_get_logits_ith": (ctypes.POINTER(ctypes.c_float), (_p, _i)),
    # the vocabulary
    "llama_vocab_n_tokens": (_i, (_p,)),
    "llama_vocab_type": (_i, (_p,)),
    "llama_vocab_bos": (_i, (_p,)),
    "llama_vocab_eos": (_i, (_p,)),
    "llama_vocab_get_add_bos": (_b, (_p,)),
    "llama_vocab_is_eog": (_b, (_p, _i)),
    "llama_vocab_get_text": (_s, (_p, _i)),
    "llama_vocab_get_attr": (_i, (_p, _i)),
    "llama_tokenize": (_i, (_p, _s, _i, _ints, _i, _b, _b)),
    "llama_token_to_piece": (_i, (_p, _i, _s, _i, _i, _b)),
}
"""By name: what it returns, and what it takes."""

OPTIONAL: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "ggml_cpu_has_amx_int8": (_i, ()),
    "ggml_threadpool_params_init": (None, (ctypes.POINTER(PoolParams), _i)),
    "ggml_threadpool_new": (_p, (ctypes.POINTER(PoolParams),)),
    "ggml_threadpool_free": (None, (_p,)),
    "llama_attach_threadpool": (None, (_p, _p, _p)),
    "llama_detach_threadpool": (None, (_p,)),
    "llama_set_abort_callback": (None, (_p, _p, _p)),
    "llama_set_n_threads": (None, (_p, _i, _i)),
}
"""Those that some libraries lack, and that sakuin can do without: as `FUNCTIONS`."""

NATIVE = (
    "ggml_backend_register",
    "ggml_backend_reg_get",
    "ggml_backend_cpu_buffer_type",
    "ggml_backend_cpu_buffer_from_ptr",
    "ggml_backend_buft_is_host",
    "ggml_backend_buffer_get_type",
    "ggml_graph_n_nodes",
    "ggml_graph_node",
    "ggml_backend_get_device",
    "ggml_backend_dev_backend_reg",
    "ggml_get_type_traits",
    "llama_decode",
)
"""Those that the native device calls; it is given their addresses."""
