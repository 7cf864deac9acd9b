"""llama.cpp by itself, through sakuin's binding, as the benchmark drives it: nothing of sakuin computes."""

from __future__ import annotations

import ctypes
import struct
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.speed.end_to_end_parts.process import peak_bytes
from sakuin.backends.llama_cpp.layouts import Batch
from sakuin.backends.llama_cpp.library import library

CHUNK = 512
"""Tokens of one pass: `n_ubatch`."""
QUESTION = 16
KINDS = {"f16": 1, "q8_0": 8}
"""ggml's numbers of the types that keys and values are kept in."""
_FLASH_ON = 1
_CELL = struct.Struct("<iIi")
"""A cell in a saved sequence: its position, of how many sequences it is, and which."""
_HEAD = struct.Struct("<IiII")
"""What a saved sequence begins with: a mark, the sequence, streams, cells."""


class Peer:
    """The runner: a model and one sequence.

    file, ids : as of `ours.Ours`. cells : most tokens. kind : of keys and values. repack : whether llama.cpp
    keeps a second, faster form of the weights.
    """

    def __init__(
        self, file: str, ids: str, cells: int, kind: str, repack: bool, threads: int | None = None
    ) -> None:
        import torch  # as sakuin counts the cores; it computes nothing here

        self.file, self.ids, self.cells = file, np.load(ids).astype(np.int32), cells
        self.kind, self.repack, self.threads = kind, repack, threads or torch.get_num_threads()
        self.past, self.finite, self.block = 0, True, b""
        self.before = peak_bytes()

    def load(self) -> dict[str, Any]:
        """Seconds of loading, the library's included."""
        start = perf_counter()
        self.library: Any = library()
        params = self.library.llama_model_default_params()
        params.n_gpu_layers, params.use_extra_bufts = 0, self.repack
        self.model = self.library.llama_model_load_from_file(self.file.encode(), params)
        context = self.library.llama_context_default_params()
        context.n_ctx = -(-self.cells // 256) * 256
        context.n_batch = context.n_ubatch = CHUNK
        context.n_seq_max, context.kv_unified, context.swa_full = 2, True, False
        context.n_threads = context.n_threads_batch = self.threads
        context.flash_attn_type = _FLASH_ON
        context.type_k = context.type_v = KINDS[self.kind]
        if not self.model:
            raise ValueError(f"no model: {self.library.said()}")
        self.context = self.library.llama_init_from_model(self.model, context)
        if not self.context:
            raise ValueError(f"no context: {self.library.said()}")
        self.memory_ = self.library.llama_get_memory(self.context)
        vocabulary = self.library.llama_model_get_vocab(self.model)
        self.n_words = self.library.llama_vocab_n_tokens(vocabulary)
        return {"load_s": perf_counter() - start, "ggml": self.library.version}

    # -- reading and decoding --------------------------------------------------------------------------------

    def _feed(self, n: int) -> None:
        """A pass of the next n tokens of the text, which begins anew where it ends; the logits of the last
        must be numbers."""
        ids = np.take(self.ids, range(self.past, self.past + n), mode="wrap")
        one = (ctypes.c_int32 * 1)(0)
        row = ctypes.POINTER(ctypes.c_int32)
        batch = Batch(
            n_tokens=n,
            token=(ctypes.c_int32 * n)(*ids.tolist()),
            pos=(ctypes.c_int32 * n)(*range(self.past, self.past + n)),
            n_seq_id=(ctypes.c_int32 * n)(*[1] * n),
            seq_id=(row * n)(*[ctypes.cast(one, row)] * n),
            logits=(ctypes.c_int8 * n)(*[0] * (n - 1), 1),
        )
        code = self.library.llama_decode(self.context, batch)
        if code:
            raise ValueError(f"llama_decode returned {code}: {self.library.said()}")
        self.past += n
        self.logits = np.ctypeslib.as_array(
            self.library.llama_get_logits_ith(self.context, n - 1), (self.n_words,)
        )
        self.finite = self.finite and bool(np.isfinite(self.logits[:64]).all())

    def _back_to(self, n: int) -> None:
        """Forget what came behind the first n tokens."""
        self.library.llama_memory_seq_rm(self.memory_, 0, n, -1)
        self.past = n

    def _read(self, to: int) -> None:
        while self.past < to:
            self._feed(min(CHUNK, to - self.past))

    def fresh(self, n: int) -> dict[str, float]:
        """As `prefill` of a text by itself: only before another is read."""
        assert self.past == 0
        found = self.prefill(n)
        self._back_to(0)
        return found

    def prefill(self, to: int) -> dict[str, float]:
        """Read up to so many tokens: seconds."""
        start = perf_counter()
        self._read(to)
        return {"s": perf_counter() - start}

    def question(self) -> float:
        """Seconds until the first token of an answer, the text being read."""
        at, start = self.past, perf_counter()
        self._feed(QUESTION)
        int(self.logits.argmax())
        seconds = perf_counter() - start
        self._back_to(at)
        return seconds

    def decode(self, steps: int, warm: int) -> dict[str, Any]:
        """Milliseconds of each step."""
        at, times = self.past, []
        for _ in range(warm + steps):
            start = perf_counter()
            self._feed(1)
            times.append(1e3 * (perf_counter() - start))
        self._back_to(at)
        return {"ms": times[warm:]}

    def logits_of(self, steps: int) -> np.ndarray:
        """Logits `(steps, vocabulary)`, fp32, after each of the text's next tokens, one in a pass."""
        rows = []
        for _ in range(steps):
            self._feed(1)
            rows.append(self.logits.copy())
        return np.stack(rows)

    def close(self) -> None:
        """Free llama.cpp's memory."""
        self.library.llama_free(self.context)
        self.library.llama_model_free(self.model)

    def chunk_at(self, to: int) -> float:
        """Tokens a second of one pass behind so many tokens."""
        self.fill(to)
        start = perf_counter()
        self._feed(CHUNK)
        seconds = perf_counter() - start
        self._back_to(to)
        return CHUNK / seconds

    def is_finite(self) -> bool:
        """Whether all logits so far were numbers."""
        return self.finite and bool(np.isfinite(self.logits).all())

    # -- cells without computing -----------------------------------------------------------------------------

    def fill(self, to: int) -> dict[str, int]:
        """Hold so many tokens without reading them: llama.cpp is given a saved sequence of 512 cells again
        and again, each time at later positions. What it then decodes over are cells like any other; what
        they say does not matter to the time.

        Needs that 512 tokens were read, and the rest a multiple of 512. Not for models with windows.
        """
        if (to - self.past) % CHUNK or self.past < CHUNK:
            raise ValueError(f"cannot fill from {self.past} to {to} tokens by pieces of {CHUNK}")
        if not self.block:
            self.block = self._saved_block()
        while self.past < to:
            self._put_block()
        return {"held": self.held()}

    def _put_block(self) -> None:
        """Put the saved cells behind what is there: as another sequence, whose cells the first keeps."""
        block = at_positions(self.block, self.past)
        held = ctypes.create_string_buffer(block, len(block))
        if not self.library.llama_state_seq_set_data_ext(self.context, held, len(block), 1, 0):
            raise ValueError(f"llama.cpp did not take the cells: {self.library.said()}")
        self.library.llama_memory_seq_cp(self.memory_, 1, 0, -1, -1)
        self.library.llama_memory_seq_rm(self.memory_, 1, -1, -1)
        self.past += CHUNK

    def held(self) -> int:
        """Cells of the sequence, as llama.cpp itself counts them: by what saving it would take."""
        (layers,) = struct.unpack_from("<I", self.block, _HEAD.size + CHUNK * _CELL.size + 4)
        # Beside the cells: whether values are transposed, the layers, and of each layer two types and sizes.
        fixed = _HEAD.size + 8 + 2 * layers * 12
        of_a_cell = (len(self.block) - fixed) // CHUNK
        size: int = self.library.llama_state_seq_get_size_ext(self.context, 0, 0)
        return (size - fixed) // of_a_cell

    def _saved_block(self) -> bytes:
        """The first 512 cells, saved, in a sequence of their own."""
        self.library.llama_memory_seq_cp(self.memory_, 0, 1, 0, CHUNK)
        block = self._saved(1)
        self.library.llama_memory_seq_rm(self.memory_, 1, -1, -1)
        if not block:
            raise ValueError("llama.cpp cannot save a sequence")
        return block

    def _saved(self, sequence: int = 0) -> bytes:
        size = self.library.llama_state_seq_get_size_ext(self.context, sequence, 0)
        memory = ctypes.create_string_buffer(size)
        done = self.library.llama_state_seq_get_data_ext(self.context, memory, size, sequence, 0)
        return memory.raw if done == size else b""

    def memory(self) -> dict[str, int]:
        """Bytes: the process's peak, and what it had before the load."""
        return {"peak": peak_bytes(), "before": self.before}


def at_positions(block: bytes, first: int) -> bytes:
    """A saved sequence of one stream with its cells at the positions from `first` on. Raises `ValueError`
    where it is none whose cells stand in order."""
    _, sequence, streams, cells = _HEAD.unpack_from(block)
    moved, at = bytearray(block), _HEAD.size
    begin = _CELL.unpack_from(block, at)[0]
    if streams != 1 or len(block) < at + cells * _CELL.size:
        raise ValueError(f"a saved sequence of {streams} streams and {cells} cells is not known")
    for i in range(cells):
        if _CELL.unpack_from(block, at) != (begin + i, 1, sequence):
            raise ValueError(f"cell {i} of a saved sequence is {_CELL.unpack_from(block, at)}")
        _CELL.pack_into(moved, at, first + i, 1, sequence)
        at += _CELL.size
    return bytes(moved)
