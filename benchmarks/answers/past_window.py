"""A model past its trained window, by YaRN: does retrieval attention still say what full attention
says there, and does full attention itself still work?

A long real text with a code planted at each of ten depths is read once. Then 200 tokens of the text that
follow are decoded, teacher-forced, and each code is asked for, in each configuration. The truth for the KL
divergence is the same model's full attention at the same length; whether that is any good shows in its own
log-likelihood and in the codes that it finds. `--plain` reads the same text with full attention and without
YaRN, to see what YaRN is good for.

Run: python -m benchmarks.answers.past_window [--model smollm2] [--window 16384]
     [--configurations balanced] [--plain]
"""

from __future__ import annotations

import random
import time
from typing import Any

import torch

import sakuin
from benchmarks.common import argument_parser, command, console, load, write
from sakuin.backends.open import backend_of, vocabulary_of
from sakuin.context.generate import generate
from sakuin.evaluate.configurations import FULL, Configuration, configurations
from sakuin.evaluate.prefilled import Prefilled, touched_share
from sakuin.evaluate.texts.planted import technical_english
from sakuin.prompts.template import Prompt

DECODED = 200
SAID = 12
THINGS = (
    *("north pump", "boiler", "east gate", "archive", "server room"),
    *("loading dock", "greenhouse", "water tower", "museum shop", "chapel"),
)


def planted(tokenizer: Any, length: int) -> tuple[list[int], list[int], dict[str, str]]:
    """Tokens of a text with the codes in it, the tokens that follow, and the codes by what they belong to."""
    prompt = Prompt.of(vocabulary_of(tokenizer))
    codes = {thing: str(random.Random(thing).randrange(10_000, 100_000)) for thing in THINGS}
    facts = [prompt.encode(f"\n\nThe access code of the {t} is {c}.\n\n").ids for t, c in codes.items()]
    running = prompt.encode(technical_english()).ids
    room = length - sum(map(len, facts)) - len(prompt.head) - DECODED - 100
    ids, at = list(prompt.head), 0
    for number, fact in enumerate(facts):
        until = int((number + 0.5) / len(facts) * room)
        ids += running[at:until] + fact
        at = until
    ids += running[at:room]
    return ids, running[room : room + DECODED], codes


def said(model: Any, tokenizer: Any, read: Prefilled, one: Configuration, last: int) -> str:
    tokens = generate(backend_of(model, tokenizer), read.cache(one), last, SAID)
    return str(tokenizer.decode([token.id for token in tokens]))


def measure(name: str, window: int | None, length: int, wanted: list[Configuration]) -> list[dict[str, Any]]:
    """One row for each configuration; `window` None is the model as it is."""
    if window is None:
        model, tokenizer = load(name, "fp32")
    else:
        model, tokenizer = sakuin.load(name, "fp32", window=window, backend="transformers")
    ids, following, codes = planted(tokenizer, length)
    started = time.perf_counter()
    read = Prefilled.read(model, ids)
    console.print(
        f"{name}, window {window}: {len(ids):,} tokens read in {time.perf_counter() - started:.0f} s"
    )
    rows, truth = [], torch.zeros(0)
    for one in wanted:
        cache = read.cache(one)
        found = read.log_probabilities(cache, following)
        if one.name == FULL:
            truth = found
        kl = (truth.exp() * (truth - found)).sum(-1)
        nll = -found[:-1].gather(1, torch.tensor(following[1:])[:, None]).mean().item()
        rows.append(
            {
                "model": name,
                "window": window,
                "tokens": len(ids),
                "configuration": one.name,
                "decoded": DECODED,
                "nll": nll,
                "kl_mean": kl.mean().item(),
                "kl_worst": kl.max().item(),
                "top1": (truth.argmax(-1) == found.argmax(-1)).float().mean().item(),
                "touched_share": None if one.config is None else touched_share(read.retrieval(cache)),
                "codes": len(codes),
                "found": [],
            }
        )
    prompt = Prompt.of(vocabulary_of(tokenizer))
    for thing, code in codes.items():
        question = f"\n\nQuestion: What is the access code of the {thing}?\n"
        asked = prompt.encode(f"{question}Answer: The access code of the {thing} is").ids
        before = read.extend(asked[:-1])
        for one, row in zip(wanted, rows, strict=True):
            row["found"].append(code in said(model, tokenizer, before, one, asked[-1]))
    for row in rows:
        console.print({**row, "found": f"{sum(row['found'])} of {row['codes']}"})
    return rows


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--window", type=int, default=16384)
    parser.add_argument("--configurations", nargs="+", default=["balanced"])
    parser.add_argument("--plain", action="store_true")
    chosen = parser.parse_args()
    wanted = configurations([FULL, *chosen.configurations])
    name = f"past_window-{chosen.model}-{chosen.window}"
    if chosen.plain:
        rows, name = measure(chosen.model, None, chosen.window, wanted[:1]), f"{name}-plain"
    else:
        rows = measure(chosen.model, chosen.window, chosen.window, wanted)
    write(name, {"command": command(), "results": rows})


if __name__ == "__main__":
    main()
