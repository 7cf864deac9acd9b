"""One decode step of `sketch` against `flat`: one KV head for its whole query group, 128K keys, d = 64, group
of 7.

Keys, values and queries are smollm2's own over real text with a planted fact, of four layers: the keys
between sink and recent window are repeated with a jitter of a tenth of each channel's deviation until there
are 128K. A group of 7 is made of the query heads of one KV head at three neighbouring positions, once where
the model answers the question about the fact and once in running text. The static part's lse is what sink and
recent window really have, raised by as much as the index has grown.

Run: python benchmarks/sketch_step.py [--isa avx2]
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import torch
from common import PASSKEY, QUESTION, load, median_ms, show, technical_english, write

from sakuin import _native, build_index

KEYS, GROUP, LENGTH, SINK, RECENT = 131072, 7, 7600, 128, 512
LAYERS = (3, 12, 17, 26)
POSITIONS = {"retrieval": (-5, -4, -3), "running text": (-330, -329, -328)}


def capture(model: Any, ids: torch.Tensor) -> dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Queries, keys and values `(heads, n, head_dim)` of the layers, as they reach attention."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    taken = {}

    def take(module: Any, query: Any, key: Any, value: Any, mask: Any, **rest: Any) -> Any:
        if module.layer_idx in LAYERS:
            taken[module.layer_idx] = (query[0].clone(), key[0].clone(), value[0].clone())
        return sdpa_attention_forward(module, query, key, value, mask, **rest)

    AttentionInterface.register("capture", take)
    AttentionMaskInterface.register("capture", sdpa_mask)
    model.set_attn_implementation("capture")
    with torch.inference_mode():
        model(ids, logits_to_keep=1, use_cache=False)
    return taken


def longer(x: torch.Tensor) -> torch.Tensor:
    """`x` (1, n, d) repeated with jitter to KEYS tokens, in bf16."""
    times = -(-KEYS // x.shape[1])
    deviation = x.std(1, keepdim=True) * 0.1
    parts = [x + torch.randn_like(x) * deviation for _ in range(times)]
    return torch.cat(parts, 1)[:, :KEYS].bfloat16().contiguous()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--isa", default=_native.isa(), choices=_native.isas())
    isa = parser.parse_args().isa
    torch.manual_seed(0)
    model, tokenizer = load("smollm2", "fp32")
    fact, question = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in (PASSKEY, QUESTION))
    text = tokenizer(technical_english(), verbose=False)["input_ids"][: LENGTH - len(fact) - len(question)]
    at = len(text) // 3
    trace = capture(model, torch.tensor([text[:at] + fact + text[at:] + question]))
    threads, rows = torch.get_num_threads(), []
    for layer, (query, key, value) in trace.items():
        scaling, end, head = key.shape[2] ** -0.5, LENGTH - RECENT, 1
        keys, values = longer(key[head : head + 1, SINK:end]), longer(value[head : head + 1, SINK:end])
        heads = query[3 * head : 3 * head + 3]
        group = torch.cat([heads, heads, heads], 0)[:GROUP]
        index = build_index("sketch", keys, values, queries=group[:, SINK:end:4])
        for name, positions in POSITIONS.items():
            q = torch.cat([heads[:, p] for p in positions], 0)[:GROUP]
            beside = torch.cat(
                [
                    (
                        heads[:, p]
                        @ torch.cat([key[head, :SINK], key[head, end : LENGTH + p + 1]]).T
                        * scaling
                    ).logsumexp(1)
                    for p in positions
                ]
            )[:GROUP]
            q, beside = q[:, None].contiguous(), beside[:, None] + math.log(KEYS / (end - SINK))
            settings = index._settings(1.0)

            def sketch(
                q: Any = q,
                beside: Any = beside,
                settings: Any = settings,
                index: Any = index,
                scaling: float = scaling,
            ) -> Any:
                return _native.sketch_attend(
                    q, index.segments, scaling, threads, settings, static_lse=beside, isa=isa
                )

            def flat(q: Any = q, keys: Any = keys, values: Any = values, scaling: float = scaling) -> Any:
                return _native.flat_attend(q, [(keys, values)], scaling, threads, isa=isa)

            # In turns, so that what else the machine does falls on both.
            found = [(median_ms(sketch, 10), median_ms(flat, 10)) for _ in range(5)]
            sketch_ms = sorted(s[0] for s, _ in found)[2]
            flat_ms = sorted(f[0] for _, f in found)[2]
            part = index.attend(q, scaling=scaling, static_lse=beside)
            truth = flat()[0]
            share = torch.sigmoid(part.lse - beside)  # of the index in the whole
            error = ((part.out - truth).norm(dim=-1) * share).mean() / (truth.norm(dim=-1) * share).mean()
            rows.append(
                {
                    "layer": layer,
                    "queries": name,
                    "sketch_ms": sketch_ms,
                    "flat_ms": flat_ms,
                    "ratio": flat_ms / sketch_ms,
                    "touched_share": part.stats.touched_share,
                    "error_in_index": error.item(),
                }
            )
    show(
        f"One step, 128K keys, d = 64, group of 7, {isa}, {threads} threads",
        rows[0],
        [r.values() for r in rows],
    )
    ratio = sum(r["flat_ms"] for r in rows) / sum(r["sketch_ms"] for r in rows)
    print(f"flat / sketch over all: {ratio:.2f}")
    write(
        f"sketch_step-{isa}",
        {
            "command": f"python benchmarks/sketch_step.py --isa {isa}",
            "flat_over_sketch": ratio,
            "results": rows,
        },
    )


if __name__ == "__main__":
    main()
