"""What sealing costs a prefill: seconds of sealing `sketch` segments against the seconds of the layer that
they belong to.

A model prefills the same text in turns with index="flat", which only copies keys and values, and with
index="sketch", whose segments a background thread seals beside the prefill and, the rest, at its end. That
thread runs alone (sakuin.machine.threads), so its CPU seconds are all that sealing takes. A layer's prefill
is timed by hooks around the decoder layer (attention, MLP, norms) in the turns with `flat`; the others would
count what the sealing thread takes from the cores. Its thread-seconds are those seconds times the threads.
`share_by_cpu` takes the calling thread's CPU seconds instead: it stays fair where other programs run beside.

    share = CPU seconds of sealing a layer / thread-seconds of that layer's prefill

Only layers with full attention count: the others have no index. Then the same runs of tokens are sealed again
with nothing beside, on as many threads as the prefill had.

Run: python -m benchmarks.speed.sealing [--models smollm2 gemma3-270m] [--lengths 8000 32000] [--turns 3]
"""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import torch

from benchmarks.common import argument_parser, command, console, load, show, write
from sakuin import RetrievalCache, RetrievalConfig
from sakuin.backends.transformers.layer import RetrievalLayer
from sakuin.cache.sealing import Job
from sakuin.evaluate import technical_english
from sakuin.index.base import new_index

LENGTHS = {"smollm2": 8000, "gemma3-270m": 32000}
CHUNK = 2048


class MeteredJob:
    """Counts the CPU seconds of the sealing thread and keeps what it was given, for as long as it is open."""

    def __enter__(self) -> MeteredJob:
        self.seconds, self.jobs = 0.0, []
        self._run = run = Job.run

        def metered(job: Job) -> None:
            self.jobs.append((job.keys, job.values, job.queries))
            start = time.thread_time()
            run(job)
            self.seconds += time.thread_time() - start

        Job.run = metered  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        Job.run = self._run  # type: ignore[method-assign]


class Layers:
    """Wall and CPU seconds (of the calling thread) in those decoder layers whose cache has an index."""

    def __init__(self, model: Any, cache: RetrievalCache) -> None:
        self.wall = self.cpu = 0.0
        self._hooks = []
        for layer, held in zip(model.get_decoder().layers, cache.layers, strict=True):
            if isinstance(held, RetrievalLayer):
                self._hooks += [
                    layer.register_forward_pre_hook(self._start),
                    layer.register_forward_hook(self._stop),
                ]

    def _start(self, *_: object) -> None:
        self._wall, self._cpu = time.perf_counter(), time.thread_time()

    def _stop(self, *_: object) -> None:
        self.wall += time.perf_counter() - self._wall
        self.cpu += time.thread_time() - self._cpu

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()


def turn(model: Any, ids: torch.Tensor, kind: str) -> tuple[dict[str, float], list[Any]]:
    """One prefill, and what was sealed in it."""
    cache = RetrievalCache(model.config, RetrievalConfig(index=kind))
    layers = Layers(model, cache)
    with MeteredJob() as metered, torch.inference_mode():
        start = time.perf_counter()
        for at in range(0, ids.shape[1], CHUNK):
            model(ids[:, at : at + CHUNK], cache=cache, logits_to_keep=1)
        passes = time.perf_counter() - start
        cache.seal()
        wall = time.perf_counter() - start
    layers.remove()
    indexed = len(cache.retrieval_layers)
    found = {
        "prefill_s": wall,
        "rest_s": wall - passes,
        "layer_s": layers.wall / indexed,
        "layer_cpu_s": layers.cpu / indexed,
        "sealing_cpu_s": metered.seconds / indexed,
    }
    return found, metered.jobs


def alone(model: Any, jobs: list[Any]) -> dict[str, float]:
    """Seconds of sealing a layer's runs of tokens again, nothing beside: on all threads and on one."""
    config = RetrievalConfig()
    n_layers = len(RetrievalCache(model.config, config).retrieval_layers)
    threads = torch.get_num_threads()
    found = {}
    for name, n in (("wall_s", threads), ("one_thread_s", 1)):
        torch.set_num_threads(n)
        times = []
        for layer in range(n_layers):
            start = time.perf_counter()
            index = None
            for keys, values, queries in jobs[layer::n_layers]:
                if index is None:
                    index = new_index(keys.shape[0], keys.shape[2], queries.shape[0] // keys.shape[0], config)
                index.append(keys, values, queries)
            times.append(time.perf_counter() - start)
        found[name] = median(times)
    torch.set_num_threads(threads)
    return found


def measure(name: str, length: int, turns: int) -> dict[str, Any]:
    model, tokenizer = load(name, "auto")
    model.set_attn_implementation("sakuin")
    ids = torch.tensor([tokenizer(technical_english(), verbose=False)["input_ids"][:length]])
    seen: dict[str, list[dict[str, float]]] = {"flat": [], "sketch": []}
    for _ in range(turns):
        for kind, rows in seen.items():
            row, jobs = turn(model, ids, kind)
            rows.append(row)
            console.print(name, kind, {k: round(v, 4) for k, v in row.items()})
    with torch.inference_mode():
        again = alone(model, jobs)
    threads = torch.get_num_threads()
    middle = {kind: {key: median(row[key] for row in rows) for key in rows[0]} for kind, rows in seen.items()}
    flat, sketch = middle["flat"], middle["sketch"]
    return {
        "model": name,
        "dtype": str(model.dtype).removeprefix("torch."),
        "tokens": ids.shape[1],
        "threads": threads,
        "layer_thread_s": flat["layer_s"] * threads,
        "sealing_cpu_s": sketch["sealing_cpu_s"],
        "share": sketch["sealing_cpu_s"] / (flat["layer_s"] * threads),
        "share_by_cpu": sketch["sealing_cpu_s"] / (flat["layer_cpu_s"] * threads),
        "alone_wall_s": again["wall_s"],
        "alone_one_thread_s": again["one_thread_s"],
        "share_alone": again["wall_s"] / flat["layer_s"],
        "prefill_flat_s": flat["prefill_s"],
        "prefill_sketch_s": sketch["prefill_s"],
        "sketch_over_flat": median(
            a["prefill_s"] / b["prefill_s"] for a, b in zip(seen["sketch"], seen["flat"], strict=True)
        ),
        "sealing_after_prefill_s": sketch["rest_s"],
    }


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--models", nargs="+", default=list(LENGTHS), choices=list(LENGTHS))
    parser.add_argument("--lengths", nargs="+", type=int, help="tokens, one for each model")
    parser.add_argument("--turns", type=int, default=3)
    chosen = parser.parse_args()
    lengths = chosen.lengths or [LENGTHS[name] for name in chosen.models]
    rows = [measure(name, length, chosen.turns) for name, length in zip(chosen.models, lengths, strict=True)]
    for row in rows:
        show(f"Sealing, {row['model']}, {row['tokens']} tokens", ["", "figure"], row.items())
    write("sealing", {"command": command(), "results": rows})


if __name__ == "__main__":
    main()
