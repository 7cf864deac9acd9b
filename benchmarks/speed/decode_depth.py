"""Does decode stay flat as the context grows? Milliseconds a token of smollm2 with sakuin and with full
attention, in one run.

To each depth the same text is prefilled into a RetrievalCache (attn_implementation="sakuin") and into a
DynamicCache ("sdpa"), and then all of them take turns: a few decode steps each, so that what else the machine
does falls on all.

Run: python -m benchmarks.speed.decode_depth [--dtypes fp32 bf16]
"""

from __future__ import annotations

import statistics
from time import perf_counter
from typing import Any

import torch
from transformers import DynamicCache

from benchmarks.common import argument_parser, command, console, load, show, write
from sakuin import RetrievalCache, RetrievalConfig
from sakuin.evaluate import technical_english
from sakuin.machine.devices import resolve_dtype

DEPTHS = (512, 2048, 4096, 8000)
NAMES = ("sakuin", "sdpa")
CHUNK, STEPS, TURNS, WARM = 2048, 8, 10, 4


def steps(model: Any, cache: Any, token: torch.Tensor, name: str, n: int) -> list[float]:
    """Times of n decode steps in milliseconds."""
    model.set_attn_implementation(name)
    times = []
    for _ in range(n):
        start = perf_counter()
        model(token, cache=cache)
        times.append((perf_counter() - start) * 1e3)
    return times


def prefilled(model: Any, ids: torch.Tensor, name: str) -> Any:
    """A cache of the implementation's own kind that holds `ids`."""
    retrieval = name == "sakuin"
    cache = (
        RetrievalCache(model.config, RetrievalConfig()) if retrieval else DynamicCache(config=model.config)
    )
    model.set_attn_implementation(name)
    for at in range(0, ids.shape[1], CHUNK):
        model(ids[:, at : at + CHUNK], cache=cache, logits_to_keep=1)
    if isinstance(cache, RetrievalCache):
        cache.seal()
    return cache


def measure(model: Any, ids: torch.Tensor) -> list[dict[str, Any]]:
    """Median decode times behind each depth."""
    with torch.inference_mode():
        # The timed steps begin at about the depth: smollm2's window is 8192 tokens.
        caches = {(d, name): prefilled(model, ids[:, :d], name) for d in DEPTHS for name in NAMES}
        times: dict[tuple[int, str], list[float]] = {key: [] for key in caches}
        for _ in range(TURNS):
            for key, cache in caches.items():
                # The first steps of a turn meet caches full of the other's keys, as no user of one does.
                times[key] += steps(model, cache, ids[:, -1:], key[1], WARM + STEPS)[WARM:]
    return [
        {
            "depth": d,
            **{f"{name}_ms": statistics.median(times[d, name]) for name in NAMES},
            **{f"{name}_quartiles_ms": statistics.quantiles(times[d, name], n=4)[::2] for name in NAMES},
            "touched_share": caches[d, "sakuin"].stats()["touched_share"],
        }
        for d in DEPTHS
    ]


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--dtypes", nargs="+", choices=["fp32", "bf16"])
    chosen = parser.parse_args().dtypes
    if chosen is None:
        # bf16 only where the CPU multiplies it: elsewhere a step would take minutes.
        chosen = ["fp32", "bf16"] if resolve_dtype("auto") is torch.bfloat16 else ["fp32"]
    results = {}
    for dtype in chosen:
        model, tokenizer = load("smollm2", dtype)
        ids = torch.tensor([tokenizer(technical_english(), verbose=False)["input_ids"][: max(DEPTHS)]])
        rows = measure(model, ids)
        results[dtype] = {
            "depths": rows,
            "sakuin_8000_over_512": rows[-1]["sakuin_ms"] / rows[0]["sakuin_ms"],
            "sdpa_over_sakuin_8000": rows[-1]["sdpa_ms"] / rows[-1]["sakuin_ms"],
        }
        show(
            f"Decode, smollm2, {dtype}",
            ["depth", "sakuin ms", "sdpa ms"],
            [(r["depth"], r["sakuin_ms"], r["sdpa_ms"]) for r in rows],
        )
        console.print({k: v for k, v in results[dtype].items() if k != "depths"})
    write("decode_depth", {"command": command(), "results": results})


if __name__ == "__main__":
    main()
