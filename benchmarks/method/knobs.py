"""What each setting is good for: the divergence from full attention on real text, with one of sink, recent
window, segment and thresholds changed, and with single layers left exact.

One reading of technical English serves all. `left exact` puts an exact index into some layers, which reads
all of their keys and values; what is touched then counts them.

Run: python -m benchmarks.method.knobs [--model smollm2] [--tokens 7800] [--layers "0; 0 2"]
Takes some ten minutes on two cores (SmolLM2).
"""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.common import argument_parser, command, load, show, write
from sakuin import RetrievalCache, RetrievalConfig
from sakuin.evaluate.prefilled import Prefilled
from sakuin.evaluate.texts.passages import passage
from sakuin.evaluate.texts.planted import technical_english

DECODED = 160
CHANGES: tuple[dict[str, Any], ...] = (
    {},
    {"sink": 4},
    {"sink": 32},
    {"sink": 512},
    {"recent": 64},
    {"recent": 256},
    {"recent": 1024},
    {"segment": 1024},
    {"segment": 2048},
    {"segment": 7168},
    {"rescore_share": 2.0},
    {"rescore_share": 8.0},
    {"codes_share": 0.6},
    {"codes_share": 2.5},
    {"exact_share": 15.0},
    {"exact_share": 60.0},
    {"reach": 2.0},
    {"reach": 3.0},
    {"cap": 0.15},
    {"cap": 0.3},
    {"tolerance": 0.5},
    {"tolerance": 2.0},
    # What `faithful` is made of.
    {"tolerance": 0.25},
    {"tolerance": 0.25, "sketch_bits": 1.5},
    {"tolerance": 0.25, "exact_share": 60.0},
    {"tolerance": 0.3, "exact_share": 60.0},
)


def left_exact(read: Prefilled, config: RetrievalConfig, layers: list[int]) -> RetrievalCache:
    """A cache of `config` whose `layers` read everything."""
    cache, flat = read.retrieval_cache(config), read.exact_cache(RetrievalConfig(index="flat"))
    for number in layers:
        inner = flat.whole.layers[number].fork(cache.whole.state)
        cache.whole.layers[number] = cache.layers[number].inner = inner
    return cache


def measured(
    read: Prefilled, cache: RetrievalCache, ids: tuple[int, ...], truth: torch.Tensor
) -> dict[str, Any]:
    """The divergence, and what was read as a share of the offloaded keys and values at 2 bytes a number."""
    kl = (truth.exp() * (truth - read.log_probabilities(cache, ids))).sum(-1).clamp(min=0)
    stats = cache.stats()
    # An exact layer reads fp32 here, and counts as the bf16 of use.
    shares = [
        min(layer["touched_share"], 1.0) if layer["index"] == "flat" else layer["touched_share"]
        for layer in stats["layers"]
    ]
    held = sum(row.device_bytes for layer in cache.retrieval_layers for row in layer.rows)
    return {
        "kl": float(kl.mean()),
        "kl_worst": float(kl.max()),
        "touched_share": sum(shares) / len(shares),
        "device_bytes": held,
    }


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--tokens", type=int, default=7800)
    parser.add_argument(
        "--layers", default="0; 0 2", help="sets of layers to leave exact, with ; between them"
    )
    arguments = parser.parse_args()
    model, tokenizer = load(arguments.model, "fp32")
    text = passage(tokenizer, "english", lambda n: technical_english()[:n], [arguments.tokens], DECODED)
    (stop,) = text.stops
    read = Prefilled.read(model, text.ids)
    truth, found = read.log_probabilities(read.full_cache(), stop.continuation), []
    for changes in CHANGES:
        cache = read.retrieval_cache(RetrievalConfig(**changes))
        name = ", ".join(f"{key}={value:g}" for key, value in changes.items()) or "as it is"
        found.append({"name": name, **measured(read, cache, stop.continuation, truth)})
    for layers in arguments.layers.split(";"):
        cache = left_exact(read, RetrievalConfig(), [int(number) for number in layers.split()])
        name = f"layer {layers.strip()} left exact"
        found.append({"name": name, **measured(read, cache, stop.continuation, truth)})
    show(
        f"{arguments.model}, {arguments.tokens:,} tokens of technical English, fp32",
        ("setting", "KL", "worst", "touched", "device"),
        [
            (
                r["name"],
                f"{r['kl']:.6f}",
                f"{r['kl_worst']:.4f}",
                f"{r['touched_share']:.2%}",
                f"{r['device_bytes'] / 1e6:.0f} MB",
            )
            for r in found
        ],
    )
    about = {"command": command(), "model": arguments.model, "tokens": arguments.tokens, "decoded": DECODED}
    write(f"knobs-{arguments.model}", {**about, "results": found})


if __name__ == "__main__":
    main()
