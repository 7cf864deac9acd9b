"""Does decode stay flat as the context grows? Milliseconds a token of smollm2 with sakuin and with full
attention, in one run.

At each depth the same text is prefilled into a RetrievalCache (attn_implementation="sakuin") and into a
DynamicCache ("sdpa"), and then the two take turns: a few decode steps each, so that what else the machine
does falls on both.

Run: python benchmarks/decode_depth.py [--dtypes fp32 bf16]
"""

from __future__ import annotations

import argparse
import statistics
from time import perf_counter
from typing import Any

import torch
from common import console, load, show, technical_english, write
from transformers import DynamicCache

from sakuin import RetrievalCache, RetrievalConfig
from sakuin.models import resolve_dtype

DEPTHS = (512, 2048, 4096, 8000)
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


def measure(model: Any, ids: torch.Tensor, depth: int) -> dict[str, Any]:
    """Median decode times behind `depth` tokens."""
    # The timed steps end at about `depth`: smollm2's window is 8192 tokens.
    ids = ids[:, :depth]
    caches = {
        "sakuin": RetrievalCache(model.config, RetrievalConfig()),
        "sdpa": DynamicCache(config=model.config),
    }
    times: dict[str, list[float]] = {name: [] for name in caches}
    with torch.inference_mode():
        for name, cache in caches.items():
            model.set_attn_implementation(name)
            for at in range(0, depth, CHUNK):
                model(ids[:, at : at + CHUNK], cache=cache, logits_to_keep=1)
            if isinstance(cache, RetrievalCache):
                cache.seal()
        for _ in range(TURNS):
            for name, cache in caches.items():
                # The first steps of a turn meet caches full of the other's keys, as no user of one does.
                times[name] += steps(model, cache, ids[:, -1:], name, WARM + STEPS)[WARM:]
    return {
        "depth": depth,
        **{f"{name}_ms": statistics.median(t) for name, t in times.items()},
        **{f"{name}_quartiles_ms": statistics.quantiles(t, n=4)[::2] for name, t in times.items()},
        "touched_share": caches["sakuin"].stats()["touched_share"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtypes", nargs="+", choices=["fp32", "bf16"])
    chosen = parser.parse_args().dtypes
    if chosen is None:
        # bf16 only where the CPU multiplies it: elsewhere a step would take minutes.
        chosen = ["fp32", "bf16"] if resolve_dtype("auto") is torch.bfloat16 else ["fp32"]
    results = {}
    for dtype in chosen:
        model, tokenizer = load("smollm2", dtype)
        ids = torch.tensor([tokenizer(technical_english(), verbose=False)["input_ids"][: max(DEPTHS)]])
        rows = []
        for depth in DEPTHS:
            rows.append(measure(model, ids, depth))
            console.print(rows[-1])
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
    write("decode_depth", {"command": "python benchmarks/decode_depth.py", "results": results})


if __name__ == "__main__":
    main()
