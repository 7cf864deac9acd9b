"""llama.cpp by itself, through sakuin's binding: what the tests of the backend compare with."""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from sakuin.backends.llama_cpp.layouts import Batch
from sakuin.backends.llama_cpp.library import library

_OFF, _ON = 0, 1
_F32, _F16 = 0, 1


class Alone:
    """A model and one sequence. `flash`: with llama.cpp's flash attention and keys in fp16, else all fp32.
    `gpu_layers`: so many on a GPU, with their keys, values and attention; -1 is all."""

    def __init__(
        self, path: Path, cells: int = 1024, flash: bool = False, chunk: int = 512, gpu_layers: int = 0
    ) -> None:
        self.library: Any = library()
        settings = self.library.llama_model_default_params()
        settings.n_gpu_layers = gpu_layers
        self.model = self.library.llama_model_load_from_file(str(path).encode(), settings)
        if not self.model:
            raise ValueError(f"{path}: {self.library.said()}")
        context = self.library.llama_context_default_params()
        context.n_ctx, context.n_batch, context.n_ubatch, context.n_outputs_max = cells, cells, chunk, 0
        context.n_threads = context.n_threads_batch = torch.get_num_threads()
        context.flash_attn_type = _ON if flash else _OFF
        context.type_k = context.type_v = _F16 if flash else _F32
        self.context = self.library.llama_init_from_model(self.model, context)
        if not self.context:
            raise ValueError(f"{path}: {self.library.said()}")
        self.vocabulary = self.library.llama_model_get_vocab(self.model)
        self.n_words = self.library.llama_vocab_n_tokens(self.vocabulary)
        self.past = 0

    def feed(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits `(1, n, words)`, fp32, of `ids` `(1, n)`, which go behind what was fed, in one pass."""
        n, tokens = ids.shape[1], ids[0].tolist()
        one = (ctypes.c_int32 * 1)(0)
        row = ctypes.POINTER(ctypes.c_int32)
        batch = Batch(
            n_tokens=n,
            token=(ctypes.c_int32 * n)(*tokens),
            pos=(ctypes.c_int32 * n)(*range(self.past, self.past + n)),
            n_seq_id=(ctypes.c_int32 * n)(*[1] * n),
            seq_id=(row * n)(*[ctypes.cast(one, row)] * n),
            logits=(ctypes.c_int8 * n)(*[1] * n),
        )
        code = self.library.llama_decode(self.context, batch)
        assert code == 0, f"llama_decode returned {code}: {self.library.said()}"
        self.past += n
        rows = [self.library.llama_get_logits_ith(self.context, i) for i in range(n)]
        return torch.from_numpy(np.stack([np.ctypeslib.as_array(r, (self.n_words,)) for r in rows]))[None]

    def encode(self, text: str, special: bool = False, begin: bool = False) -> list[int]:
        """Token ids. `special`: words such as `<|im_end|>` are one token; `begin`: as a text begins."""
        raw = text.encode()
        ids = (ctypes.c_int32 * (len(raw) + 2))()
        n = self.library.llama_tokenize(self.vocabulary, raw, len(raw), ids, len(ids), begin, special)
        assert n >= 0
        return list(ids[:n])

    def close(self) -> None:
        self.library.llama_free(self.context)
        self.library.llama_model_free(self.model)

    def __enter__(self) -> Alone:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def divergence(expected: torch.Tensor, got: torch.Tensor) -> torch.Tensor:
    """KL of the next-token distributions `(…)` of logits `(…, words)`, in nats."""
    p, q = expected.double().log_softmax(-1), got.double().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)
