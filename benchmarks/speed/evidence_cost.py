"""What evidence and support cost: a short question of a stored context of 8,000 tokens, answered by
`Context.ask`, beside the same tokens decoded from a fork of the same cache by the bare loop.

Both run in turns in one process, and each pair gives one ratio; the first pair warms up. The scale of the
model is known before, as after any first question.

Run: python -m benchmarks.speed.evidence_cost [--models smollm2 gemma3-270m] [--repeats 15]
Takes a minute on two cores.
"""

from __future__ import annotations

import tempfile
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import torch

import sakuin
from benchmarks.answers.evidence import SAID, text
from benchmarks.common import argument_parser, command, console, show, write
from sakuin.backends import catalogue
from sakuin.context.generate import generate, prefill

TOKENS = 8000 - 600
"""Of the document, about: some tokens are shorter, and question and answer need room."""


def cost(name: str, repeats: int) -> dict[str, Any]:
    """Seconds of both, and how much more the whole takes than the bare loop."""
    if name in catalogue.MODELS and not catalogue.MODELS[name].is_here:
        catalogue.get(name, say=console.print)
    model = sakuin.load(name, device="cpu")
    one = text(2, int(4.3 * TOKENS))
    with tempfile.TemporaryDirectory() as folder:
        context = sakuin.Context.from_text(*model, one.having)
        context.ask(one.fact.question, 1)
        context.save(folder)
        context = sakuin.Context.load(folder, *model)
        backend, prompt, reading = context.backend, context._prompt, context._reading
        whole, bare = [], []
        for _ in range(repeats + 1):
            start = perf_counter()
            answer = context.ask(one.fact.question, SAID)
            whole.append(perf_counter() - start)
            start = perf_counter()
            cache = backend.fork(context.cache)
            ids = prompt.question(reading.waiting.rstrip(), one.fact.question, reading.lead).ids
            prefill(backend, cache, ids[:-1])
            for _ in generate(backend, cache, ids[-1], answer.new_tokens):
                pass
            bare.append(perf_counter() - start)
    more = [a / b - 1 for a, b in zip(whole[1:], bare[1:], strict=True)]
    first, _, third = quantiles(more, n=4)
    return {
        "model": name,
        "backend": backend.name,
        "tokens": context.tokens,
        "new_tokens": answer.new_tokens,
        "seconds": median(whole[1:]),
        "bare_seconds": median(bare[1:]),
        "more": median(more),
        "more_quartiles": [first, third],
    }


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--models", nargs="+", default=["smollm2", "gemma3-270m"])
    parser.add_argument("--repeats", type=int, default=15)
    chosen = parser.parse_args()
    results = [cost(name, chosen.repeats) for name in chosen.models]
    show("evidence and support", results[0], (result.values() for result in results))
    write("evidence_cost", {"command": command(), "threads": torch.get_num_threads(), "results": results})


if __name__ == "__main__":
    main()
