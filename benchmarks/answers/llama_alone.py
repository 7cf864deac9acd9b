"""How far from the weights' own answer llama.cpp is alone, and with sakuin: beside transformers in fp32.

A text is read, then 128 tokens that follow are decoded, teacher-forced, one at a time. The truth is
transformers' full attention in fp32, on the weights of the same GGUF file made fp32. llama.cpp alone has
flash attention and keys and values in fp16, as it does best. What sakuin does is what a user gets: rows
are rounded to 8 bits in short passes here too. `full` is without an index, `balanced` with.

Run: python -m benchmarks.answers.llama_alone [--models smollm2 gemma3-270m] [--tokens 4096]
     [--domains english code]
Takes a quarter of an hour on one core. Writes a file for each model.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import sakuin
from benchmarks.common import argument_parser, command, console, show, write
from benchmarks.speed.end_to_end_parts.peer import Peer
from sakuin.backends import catalogue
from sakuin.backends.open import backend_of
from sakuin.context.generate import forced, prefill
from sakuin.evaluate.configurations import configuration
from sakuin.evaluate.paired import difference
from sakuin.evaluate.texts.domains import domain

DECODED = 128
ALONE = "llama.cpp alone"
DTYPES = ("bf16", "fp32")
CONFIGURATIONS = ("full", "balanced")


def texts(vocabulary: Any, names: list[str], tokens: int) -> dict[str, list[int]]:
    """Tokens of a text of each kind: those to read, and those to decode."""
    found = {}
    for name in names:
        ids = [*vocabulary.beginning, *vocabulary.encode(domain(name).make(8 * tokens)).ids]
        if len(ids) < tokens + DECODED:
            raise SystemExit(f"the {name} text has only {len(ids):,} tokens; take a smaller --tokens.")
        found[name] = ids[: tokens + DECODED]
    return found


def by_transformers(name: str, every: dict[str, list[int]]) -> dict[str, Tensor]:
    """Log-probabilities `(DECODED, vocabulary)` of each text: the truth."""
    backend = backend_of(*sakuin.load(name, "fp32", device="cpu", backend="transformers"))
    found = {}
    for kind, ids in every.items():
        cache = backend.new_cache(None)
        prefill(backend, cache, ids[:-DECODED])
        found[kind] = backend.forward(cache, ids[-DECODED:], every=True).float().log_softmax(-1)
    return found


def alone(file: Path, every: dict[str, list[int]]) -> Iterator[tuple[str, Tensor]]:
    """The same by llama.cpp alone."""
    with tempfile.TemporaryDirectory() as folder:
        for kind, ids in every.items():
            held = Path(folder) / f"{kind}.npy"
            np.save(held, np.array(ids, np.int32))
            peer = Peer(str(file), str(held), len(ids), "f16", repack=False)
            peer.load()
            peer.prefill(len(ids) - DECODED)
            yield kind, torch.from_numpy(peer.logits_of(DECODED)).log_softmax(-1)
            peer.close()


def ours(name: str, dtype: str, every: dict[str, list[int]]) -> Iterator[tuple[str, str, Tensor]]:
    """The same by sakuin on llama.cpp, each configuration."""
    backend = backend_of(*sakuin.load(name, dtype, backend="llama.cpp"))
    for kind, ids in every.items():
        for wanted in CONFIGURATIONS:
            cache = backend.new_cache(configuration(wanted).config)
            prefill(backend, cache, ids[:-DECODED])
            if retrieval := backend.retrieval(cache):
                retrieval.seal()
            said = torch.cat([row.float() for _, row in forced(backend, cache, ids[-DECODED:], 1)])
            yield kind, wanted, said.log_softmax(-1)


def divergence(truth: Tensor, found: Tensor) -> Tensor:
    """KL of each position, in nats."""
    p, q = truth.double(), found.double()
    return (p.exp() * (p - q)).sum(-1)


def rows(found: dict[str, dict[str, tuple[Tensor, Tensor]]]) -> list[dict[str, Any]]:
    """One for each way; of ours, by how much the divergence is above llama.cpp's own.

    found : of each way and kind of text the KL of each position, and whether the likeliest token is the same.
    """
    made = []
    for way, of_kind in found.items():
        kl = torch.cat([each[0] for each in of_kind.values()])
        above = difference(
            {
                kind: list(zip(found[ALONE][kind][0].tolist(), each[0].tolist(), strict=True))
                for kind, each in of_kind.items()
            }
        )
        made.append(
            {
                "way": way,
                "positions": len(kl),
                "kl": kl.mean().item(),
                "kl_worst": kl.max().item(),
                "top1": torch.cat([each[1] for each in of_kind.values()]).double().mean().item(),
                "above": above.mean,
                "above_low": above.low,
                "above_high": above.high,
            }
        )
    return made


def measure(name: str, tokens: int, domains: list[str]) -> list[dict[str, Any]]:
    """All ways for one model."""
    catalogue.get(name, say=console.print)
    # The vocabulary of the file; transformers is given these ids too.
    every = texts(backend_of(*sakuin.load(name, "fp32", backend="llama.cpp")).vocabulary, domains, tokens)
    truth = by_transformers(name, every)
    gc.collect()
    found: dict[str, dict[str, tuple[Tensor, Tensor]]] = {}

    def keep(way: str, kind: str, said: Tensor) -> None:
        same = said.argmax(-1) == truth[kind].argmax(-1)
        found.setdefault(way, {})[kind] = divergence(truth[kind], said), same

    for kind, said in alone(catalogue.MODELS[name].path, every):
        keep(ALONE, kind, said)
    for dtype in DTYPES:
        for kind, wanted, said in ours(name, dtype, every):
            keep(f"sakuin, {wanted}, {dtype}", kind, said)
    return rows(found)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--models", nargs="+", default=["smollm2", "gemma3-270m"])
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--domains", nargs="+", default=["english", "code"])
    chosen = parser.parse_args()
    said = command()
    for name in chosen.models:
        result = measure(name, chosen.tokens, chosen.domains)
        show(f"{name}, {chosen.tokens:,} tokens", result[0], (row.values() for row in result))
        content = {"command": said, "model": name, "tokens": chosen.tokens, "domains": chosen.domains}
        write(f"llama_alone-{name}", content | {"results": result})


if __name__ == "__main__":
    main()
