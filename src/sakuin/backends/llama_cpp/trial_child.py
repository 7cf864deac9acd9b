"""The process in which a file is tried: `python -m sakuin.backends.llama_cpp.trial_child FOLDER`.

What kills it, or gives numbers that are none, happens here and not to the user. It reads what to do in the
folder's `request.json` and prints one line for each way to run the file. Started by
`sakuin.backends.llama_cpp.trial`.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sakuin.backends.llama_cpp.backend import LlamaBackend
from sakuin.backends.llama_cpp.header import Header
from sakuin.backends.llama_cpp.library import library
from sakuin.backends.llama_cpp.loaded import Loaded, Options
from sakuin.backends.llama_cpp.shape import permuted, rotary_dim, shape_of
from sakuin.backends.llama_cpp.trial_choice import FEW, Measured
from sakuin.errors import SakuinError
from sakuin.index import _native

_CHUNK, _SHORT = 512, 32
_STEPS = 6
_IN_8_BITS = {"q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q4_K", "q5_K", "q6_K"}
"""Types of weights that sakuin multiplies with few rows."""
_SLOW = 2.0
"""Seconds of a pass that is not run twice."""
_PATIENCE = {False: 2.0, True: 4.0}
"""Seconds of the long pass. Repacked weights get longer: passes of 512 gave NaN where shorter ones were never
seen to."""


@dataclass(frozen=True)
class Seen:
    """Logits by which ways are compared: `(positions, vocabulary)`, and those after the long pass."""

    logits: Tensor
    rows: int
    last: Tensor


def main(folder: Path) -> None:
    """Try the file that the folder's request names."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    request = json.loads((folder / "request.json").read_text())
    torch.set_num_threads(request["torch_threads"])
    try:
        _try(request, folder / "reference.npz", answers)
    except SakuinError as error:
        print(json.dumps({"error": str(error)}), file=answers, flush=True)


def _try(request: dict[str, Any], reference: Path, answers: Any) -> None:
    header = Header.read(request["path"])
    shape, rotary = shape_of(header), rotary_dim(header) if permuted(header) else 0
    given = request["options"]
    options = Options(**given | {"dtype": getattr(torch, given["dtype"]), "chunk": _CHUNK})
    loaded = Loaded(library(), header.path, options)
    few = FEW if _native.gemv_kernels() and _IN_8_BITS & {each.type for each in header.tensors} else 0
    for ours in (False, True):
        least, most_few = (FEW + 1, FEW) if ours else (0, 0)
        loaded.options = replace(options, least_rows=least, few_rows=most_few)
        backend = LlamaBackend(loaded, header, shape, None, rotary)
        start, waited = time.perf_counter(), _waited()
        measured, seen = measure(backend, Measured(options.repack, ours, few=(few, 0.0)))
        share = (_waited() - waited) / (time.perf_counter() - start) / options.n_threads
        measured = replace(measured, waited=max(share, 0.0))
        if reference.exists():
            measured = compare(measured, seen, _read(reference))
        elif not measured.wrong:
            np.savez(reference, logits=seen.logits, rows=seen.rows, last=seen.last)
        print(json.dumps(asdict(measured)), file=answers, flush=True)
        if measured.wrong and not ours:
            return


def measure(backend: LlamaBackend, way: Measured) -> tuple[Measured, Seen]:
    """Passes and steps of a model, timed. way : with the rows of a pass of few, or none."""
    n = backend.loaded.n_vocab
    ids = [(7919 * i + 13) % n for i in range(_CHUNK)]
    cache = backend.new_cache(None)
    start = time.perf_counter()
    logits = backend.forward(cache, ids[:_SHORT], every=True)
    first = time.perf_counter() - start
    steps = [_timed(backend, cache, ids[at : at + 1]) for at in range(_SHORT, _SHORT + _STEPS)]
    seen = torch.cat([logits[3::4], torch.stack([out for _, out in steps])])
    few = min(_timed(backend, backend.new_cache(None), ids[:FEW])[0] for _ in range(2))
    short = first
    if first < _SLOW:
        short = min(_timed(backend, backend.new_cache(None), ids[:_SHORT])[0] for _ in range(2))
    rows = _rows(_SHORT / max(short, 1e-6), _PATIENCE[way.repack])
    long, last = _timed(backend, backend.new_cache(None), ids[:rows])
    if long < _SLOW / 2:
        long = min(long, _timed(backend, backend.new_cache(None), ids[:rows])[0])
    # The first step may have been slowed by what came before it.
    decode = sorted(seconds for seconds, _ in steps[1:])[(_STEPS - 1) // 2]
    finite = bool(torch.isfinite(seen).all() and torch.isfinite(last).all())
    measured = replace(
        way,
        wrong="" if finite else "it gives logits that are no numbers",
        short=(_SHORT, short) if first < _SLOW or way.ours else (0, 0.0),
        long=(rows, long),
        decode=decode,
        few=(FEW, few) if way.few[0] else (0, 0.0),
    )
    return measured, Seen(seen, rows, last)


def compare(measured: Measured, seen: Seen, plain: Seen) -> Measured:
    """With how far its logits are from those of the plainest way."""
    if measured.wrong:
        return measured
    kl = _divergence(plain.logits, seen.logits)
    if plain.rows == seen.rows:
        kl = torch.cat([kl, _divergence(plain.last, seen.last)[None]])
    spread = _divergence(plain.logits, plain.logits.roll(1, 0)).mean()
    measured = replace(measured, kl=float(kl.mean()), spread=float(spread))
    if measured.is_far:
        measured = replace(measured, wrong=f"its logits are others (KL {measured.kl:.2g})")
    return measured


def _timed(backend: LlamaBackend, cache: Any, ids: Sequence[int]) -> tuple[float, Tensor]:
    start = time.perf_counter()
    out = backend.forward(cache, ids)
    return time.perf_counter() - start, out


def _waited() -> float:
    """Seconds that threads of this process waited for a CPU, all together; 0 where the system does not
    tell."""
    total = 0
    for task in Path("/proc/self/task").glob("*/schedstat"):
        with suppress(OSError, ValueError, IndexError):
            total += int(task.read_text().split()[1])
    return total / 1e9


def _rows(rate: float, seconds: float) -> int:
    """Rows of the long pass: a power of two."""
    rows = _CHUNK
    while rows > 2 * _SHORT and rows > rate * seconds:
        rows //= 2
    return rows


def _divergence(expected: Tensor, got: Tensor) -> Tensor:
    p, q = expected.double().log_softmax(-1), got.double().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def _read(path: Path) -> Seen:
    with np.load(path) as held:
        return Seen(torch.from_numpy(held["logits"]), int(held["rows"]), torch.from_numpy(held["last"]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
