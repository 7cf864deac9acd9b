"""Does the next token stay what full attention would have said? KL divergence over teacher-forced tokens of a
long text.

A real text with a planted fact is prefilled but for its last 200 tokens, which end in a question about the
fact and its answer. Each of these is decoded by itself through retrieval attention; the model's own full
attention over the whole text in one pass is the truth. Everything is fp32, where rounding does not blur the
difference.

Run: python benchmarks/fidelity.py [--models smollm2 gemma3-270m] [--preset balanced fast faithful]
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from common import console, load, show, write
from transformers import DynamicCache

from sakuin import RetrievalCache, RetrievalConfig
from sakuin.evaluate import PlantedText

LENGTHS = {"smollm2": 7200, "gemma3-270m": 16200}
DECODED = 200
CHUNK = 2048


def prefill(model: Any, ids: torch.Tensor, cache: Any) -> None:
    """All but the last tokens, in chunks: one pass would build a mask of the length squared for sliding
    layers."""
    start = ids.shape[1] - DECODED
    for at in range(0, start, CHUNK):
        model(ids[:, at : min(at + CHUNK, start)], cache=cache, logits_to_keep=1)


def full(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of the token after each of the last positions, by the model's own full attention in
    one pass."""
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        prefill(model, ids, cache)
        return model(ids[:, -DECODED:], cache=cache).logits[0].log_softmax(-1)


def retrieval(model: Any, ids: torch.Tensor, config: RetrievalConfig) -> tuple[torch.Tensor, dict[str, Any]]:
    """The same through a RetrievalCache, each of the last tokens in a decode step of its own."""
    cache = RetrievalCache(model.config, config)
    rows = []
    with torch.inference_mode():
        prefill(model, ids, cache)
        for at in range(ids.shape[1] - DECODED, ids.shape[1]):
            rows.append(model(ids[:, at : at + 1], cache=cache).logits[0, -1].log_softmax(-1))
    return torch.stack(rows), cache.stats()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(LENGTHS), choices=list(LENGTHS))
    parser.add_argument("--presets", nargs="+", default=["balanced"])
    chosen = parser.parse_args()
    results = []
    for name in chosen.models:
        model, tokenizer = load(name, "fp32")
        ids = torch.tensor([PlantedText.make(tokenizer, LENGTHS[name]).ids])
        truth = full(model, ids)
        for preset in chosen.presets:
            config = RetrievalConfig.preset(preset)
            found, stats = retrieval(model, ids, config)
            kl = (truth.exp() * (truth - found)).sum(-1)
            results.append(
                {
                    "model": name,
                    "preset": preset,
                    "context": ids.shape[1],
                    "tokens": DECODED,
                    "kl_mean": kl.mean().item(),
                    "kl_worst": kl.max().item(),
                    "top1": (truth.argmax(-1) == found.argmax(-1)).float().mean().item(),
                    "touched_share": stats["touched_share"],
                    "coverage": stats["coverage"],
                }
            )
            console.print(results[-1])
    show("Next token against full attention", results[0], [r.values() for r in results])
    write("fidelity", {"command": "python benchmarks/fidelity.py", "results": results})


if __name__ == "__main__":
    main()
