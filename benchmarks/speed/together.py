"""What it saves to decode for many at once: clients that ask shared contexts, by the scheduler, beside the
same questions one after another.

Each client asks one of the contexts, all at the same time, for the same number of tokens. Both ways run in
turns in one process. `faster` is the tokens per second of all clients beside those of one after another;
`slowest` is the longest time of a client beside the median; `same` is the share of answers that are the same
text (llama.cpp rounds by how many are computed at once, so two tokens that are near may change places).

Run: python -m benchmarks.speed.together [--models smollm2] [--backends llama.cpp transformers] [--clients 16]
Takes four minutes on two cores.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from statistics import median
from time import perf_counter
from typing import Any

import torch

import sakuin
from benchmarks.answers.evidence import text
from benchmarks.common import argument_parser, command, console, show, write
from sakuin.backends import catalogue
from sakuin.server.scheduler import Limits, Scheduler

TOKENS = 8000 - 600
"""Of each document, about."""
QUESTIONS = ("What is this text about?", "Who wrote it, and when?", "What happens first?", "What is missing?")


def _asked(contexts: list[sakuin.Context], i: int, tokens: int) -> tuple[float, int, str]:
    """Seconds, tokens and text of the i-th client's answer."""
    start = perf_counter()
    context, question = contexts[i % len(contexts)], QUESTIONS[i // len(contexts) % len(QUESTIONS)]
    answer = context.ask(question, tokens, end_loops=False)
    return perf_counter() - start, answer.new_tokens, answer.text


def measured(
    name: str, backend: str, clients: int, documents: int, tokens: int, turns: int
) -> dict[str, Any]:
    """One model by one backend."""
    if name in catalogue.MODELS and not catalogue.MODELS[name].is_here:
        catalogue.get(name, say=console.print)
    model = sakuin.load(name, device="cpu", backend=backend)
    contexts = [
        sakuin.Context.from_text(*model, text(6 * i + 2, int(4.3 * TOKENS)).having) for i in range(documents)
    ]
    for context in contexts:
        context.ask(QUESTIONS[0], 2)
    ratios, slowest, same = [], [], []
    rates: dict[str, list[float]] = {"alone": [], "together": []}
    for _ in range(turns):
        start = perf_counter()
        alone = [_asked(contexts, i, tokens) for i in range(clients)]
        seconds = perf_counter() - start
        with (
            Scheduler(contexts[0].backend, Limits(running=clients)) as _,
            ThreadPoolExecutor(clients) as pool,
        ):
            start = perf_counter()
            together = list(pool.map(lambda i: _asked(contexts, i, tokens), range(clients)))
            seconds_together = perf_counter() - start
        rates["alone"].append(sum(n for _, n, _ in alone) / seconds)
        rates["together"].append(sum(n for _, n, _ in together) / seconds_together)
        ratios.append(rates["together"][-1] / rates["alone"][-1])
        times = [each / n for each, n, _ in together]
        slowest.append(max(times) / median(times))
        same.append(sum(a[2] == b[2] for a, b in zip(alone, together, strict=True)) / clients)
    return {
        "model": name,
        "backend": backend,
        "tokens": median(context.tokens for context in contexts),
        "clients": clients,
        "contexts": documents,
        "alone": median(rates["alone"]),
        "together": median(rates["together"]),
        "faster": median(ratios),
        "faster_least": min(ratios),
        "faster_most": max(ratios),
        "slowest": median(slowest),
        "same": median(same),
    }


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--models", nargs="+", default=["smollm2"])
    parser.add_argument("--backends", nargs="+", default=["llama.cpp", "transformers"])
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--documents", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--turns", type=int, default=3)
    chosen = parser.parse_args()
    results = [
        measured(name, backend, chosen.clients, chosen.documents, chosen.tokens, chosen.turns)
        for name in chosen.models
        for backend in chosen.backends
    ]
    show("clients at once", results[0], (result.values() for result in results))
    write("together", {"command": command(), "threads": torch.get_num_threads(), "results": results})


if __name__ == "__main__":
    main()
