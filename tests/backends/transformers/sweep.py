"""Every causal type of the installed transformers, told to attend through sakuin: what becomes of it.

`python tests/backends/transformers/sweep.py [TYPE...]` prints a JSON object a line and type: `others`, where
it differs from a model that was told nothing, under caches that are not sakuin's (`[]`: nowhere);
`retrieval`, `agrees`, `refused` or what went wrong through a `RetrievalCache` with the exact index, beside
eager attention and transformers' own cache; `why`, in words. Each type is tried in a process of its own, with
a limit of time.
"""

from __future__ import annotations

import copy
import inspect
import json
import os
import re
import select
import signal
import sys
import textwrap
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from tiny_types import NOT_MADE, TYPES, VOCABULARY, tiny_config, tiny_model  # noqa: E402
from transformers import DynamicCache  # noqa: E402
from transformers.utils import logging  # noqa: E402

from sakuin import RetrievalCache, RetrievalConfig  # noqa: E402

FLAT = RetrievalConfig(index="flat", sink=4, recent=16, segment=64)
PROMPT, CHUNK, STEPS, PADDING = 120, 50, 40, 30
CLOSE = 1e-3
"""Of the largest logit."""
SECONDS = 300
"""For one type; most take two."""


def ids_of(n: int, batch: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.randint(3, VOCABULARY, (batch, n), generator=torch.Generator().manual_seed(seed))


def keyword(model: Any) -> str:
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def own_cache(model: Any) -> Any:
    return DynamicCache(config=model.config.get_text_config(decoder=True))


@torch.no_grad()
def in_chunks(model: Any, cache: Any, steps: int) -> torch.Tensor:
    """Logits of a prompt in chunks, then of tokens one by one."""
    ids = ids_of(PROMPT + steps)
    parts = [*ids[:, :PROMPT].split(CHUNK, 1), *ids[:, PROMPT:].split(1, 1)]
    return torch.cat([model(part, **{keyword(model): cache}, use_cache=True).logits for part in parts], 1)


def padded() -> tuple[torch.Tensor, torch.Tensor]:
    """Two rows of which the second begins with padding."""
    ids, mask = ids_of(PROMPT, batch=2, seed=1), torch.ones(2, PROMPT, dtype=torch.long)
    ids[1, :PADDING], mask[1, :PADDING] = 0, 0
    return ids, mask


def generated(model: Any, n: int, **options: Any) -> torch.Tensor:
    """The sequences of `generate`, and the logits of its steps where it gives them."""
    ids, mask = padded()
    options = {"do_sample": False, "max_new_tokens": n, "pad_token_id": 0, "eos_token_id": None, **options}
    if options.pop("one", False):
        ids, mask = ids[:1], mask[:1]
    found = model.generate(
        ids, attention_mask=mask, return_dict_in_generate=True, output_logits=True, **options
    )
    return torch.cat([found.sequences.flatten().float(), *(logits.flatten() for logits in found.logits)])


OTHERS: dict[str, Callable[[Any], torch.Tensor]] = {
    "without a cache": lambda model: model(ids_of(PROMPT), use_cache=False).logits,
    "padded, without a cache": lambda model: (
        model(padded()[0], attention_mask=padded()[1], use_cache=False).logits
    ),
    "chunks and steps": lambda model: in_chunks(model, own_cache(model), 4),
    "generate, padded": lambda model: generated(model, 4),
    "generate, beams": lambda model: generated(model, 4, num_beams=2),
    "generate, static": lambda model: generated(model, 4, cache_implementation="static"),
    "generate, two logits": lambda model: generated(model, 2, logits_to_keep=2),
}


def tried(run: Callable[[Any], torch.Tensor], model: Any) -> torch.Tensor | Exception:
    """What a run gives, or what it raises. The seed is for attention that draws its hashes (reformer)."""
    torch.manual_seed(0)
    try:
        with torch.no_grad():
            return run(model)
    except Exception as error:
        return error


def near(a: torch.Tensor, b: torch.Tensor, share: float) -> bool:
    if a.shape != b.shape:
        return False
    a, b = a.float().nan_to_num(), b.float().nan_to_num()
    return bool((a - b).abs().max() <= share * max(1.0, float(b.abs().max())))


def others(own: Any, ours: Any) -> Iterator[str]:
    """Where a model told "sakuin" differs from the same one told nothing, with caches that are not ours."""
    for name, run in OTHERS.items():
        expected, got = tried(run, own), tried(run, ours)
        if isinstance(expected, Exception):
            if type(got) is not type(expected):
                yield f"{name}: {said(got)} instead of {said(expected)}"
        elif isinstance(got, Exception):
            yield f"{name}: {said(got)}"
        elif not near(got, expected, 1e-5):
            yield f"{name}: {got.shape}, off by {float(got.abs().max() - expected.abs().max())} and more"


def said(what: Any) -> str:
    return f"{type(what).__name__}: {what}"[:300] if isinstance(what, Exception) else "a result"


def by_sakuin(error: Exception) -> bool:
    """Whether it is a refusal: a sentence of ours."""
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    return isinstance(error, ValueError | NotImplementedError | RuntimeError) and "sakuin" in last


def retrieval(reference: Any, ours: Any, steps: int = STEPS) -> tuple[str, str]:
    """What becomes of the model with a RetrievalCache: in a word, and the reason or what differs."""

    def fresh() -> RetrievalCache:
        return RetrievalCache(ours.config, FLAT)

    try:
        cache = fresh()
    except ValueError as error:
        return ("refused" if by_sakuin(error) else "raw"), str(error)
    except Exception as error:
        return "raw", said(error)
    expected = tried(lambda model: in_chunks(model, own_cache(model), steps), reference)
    got = tried(lambda model: in_chunks(model, cache, steps), ours)
    if isinstance(got, Exception):
        return ("refused late" if by_sakuin(got) else "raw"), f"{said(got)} (reference: {said(expected)})"
    if isinstance(expected, Exception):
        return "raw", f"the reference fails: {said(expected)}"
    if not near(got, expected, CLOSE):
        return "wrong", f"chunks and steps: off by {float((got - expected).abs().max())}"
    if cache.get_seq_length() != PROMPT + steps:
        return "ignored", f"the cache holds {cache.get_seq_length()} tokens"
    if not cache.retrieval_layers[0].rows or not cache.retrieval_layers[0].rows[0].index.n_tokens:
        return "ignored", "nothing is indexed"
    for name, n, options in (
        ("padded", steps // 3, {}),
        ("beams", steps // 3, {"num_beams": 3}),
        ("chunked prefill", 4, {"prefill_chunk_size": CHUNK}),
    ):
        cache = fresh()
        expected = tried(lambda model, n=n, options=options: generated(model, n, **options), reference)
        got = tried(
            lambda model, n=n, options=options, cache=cache: generated(model, n, cache=cache, **options),
            ours,
        )
        if isinstance(expected, Exception) and isinstance(got, Exception):
            continue
        if isinstance(got, Exception):
            return ("refused late" if by_sakuin(got) else "raw"), f"{name}: {said(got)}"
        if isinstance(expected, Exception):
            continue
        if not near(got, expected, CLOSE):
            return "wrong", f"{name}: off by {float((got - expected).abs().max())}"
        if cache.get_seq_length() != PROMPT + n - 1:
            return "ignored", f"{name}: the cache holds {cache.get_seq_length()} tokens"
    return "agrees", ""


def outcome(model_type: str) -> dict[str, Any]:
    """What becomes of a type."""
    try:
        config = tiny_config(model_type)
        own = tiny_model(copy.deepcopy(config))
        tried(OTHERS["without a cache"], own)
    except Exception:
        return {
            "type": model_type,
            "others": [],
            "retrieval": "not made",
            "why": traceback.format_exc()[-600:],
        }
    first = tried(OTHERS["without a cache"], own)
    if isinstance(first, Exception):
        return {"type": model_type, "others": [], "retrieval": "not made", "why": said(first)}
    try:
        ours = tiny_model(copy.deepcopy(config), "sakuin")
    except Exception as error:
        return {"type": model_type, "others": [said(error)], "retrieval": "raw", "why": said(error)}
    ours.load_state_dict(own.state_dict())
    try:
        reference = tiny_model(copy.deepcopy(config), "eager")
        reference.load_state_dict(own.state_dict())
    except Exception:
        reference = own
    different = list(others(own, ours))
    word, why = retrieval(reference, ours)
    nan = not bool(torch.isfinite(first).all())
    return {
        "type": model_type,
        "others": different,
        "retrieval": word,
        "why": why,
        **({"nan": True} if nan else {}),
    }


def apart(model_type: str) -> dict[str, Any]:
    """`outcome` in a process of its own, which is ended when it takes too long."""
    read, write = os.pipe()
    sys.stdout.flush()
    if not (child := os.fork()):
        os.close(read)
        with os.fdopen(write, "w") as pipe:
            json.dump(outcome(model_type), pipe)
        os._exit(0)
    os.close(write)
    text, end = b"", time.monotonic() + SECONDS
    with os.fdopen(read, "rb") as pipe:
        while time.monotonic() < end:
            if not select.select([pipe], [], [], 1.0)[0]:
                continue
            part = os.read(pipe.fileno(), 65536)
            if not part:
                break
            text += part
        else:
            os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not text:
        return {
            "type": model_type,
            "others": [],
            "retrieval": "raw",
            "why": f"the process ended with {status}",
        }
    found: dict[str, Any] = json.loads(text)
    return found


PAGE = Path(__file__).parents[3] / "docs" / "models.md"
_INTRODUCTION = """# Models of transformers

<!-- Written by `python tests/backends/transformers/sweep.py --write`; `make test-slow` checks it. -->

This page has every type of causal model of transformers {version}, and what becomes of it with a
`RetrievalCache`. Each was tried as a tiny model with random weights: a prompt in chunks, 40 steps, a padded
batch and beams, beside eager attention and transformers' own cache. **agrees**: with the exact index `flat`
the logits are those of eager attention. **refused**: `RetrievalCache(model.config)` raises a sentence with
the reason, which the number leads to.

With any other cache, or none, every one of them is the same with `attn_implementation="sakuin"` as without.

| type | with a `RetrievalCache` |
|---|---|
"""


def page(outcomes: list[dict[str, Any]]) -> str:
    """docs/models.md."""
    rows, reasons = {name: f"not tried: {why}" for name, why in NOT_MADE.items()}, []
    for each in sorted(outcomes, key=lambda each: each["type"]):
        rows[each["type"]] = each["retrieval"]
        if each["why"]:
            why = re.sub(r"^'[\w.-]+'", "a type", each["why"].split(": ")[0], count=1)
            if why not in reasons:
                reasons.append(why)
            rows[each["type"]] += f" ({reasons.index(why) + 1})"
    table = "".join(f"| `{name}` | {rows[name]} |\n" for name in sorted(rows))
    listed = "".join(
        textwrap.fill(f"{i}. {why}.", 118, subsequent_indent="   ") + "\n" for i, why in enumerate(reasons, 1)
    )
    return _INTRODUCTION.format(version=transformers.__version__) + table + "\nThe reasons:\n\n" + listed


def main(names: list[str]) -> None:
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    outcome("llama")  # what all need is imported once, before the processes part
    found = []
    for name in [each for each in names if each != "--write"] or [
        each for each in TYPES if each not in NOT_MADE
    ]:
        found.append(apart(name))
        print(json.dumps(found[-1]), flush=True)
    if "--write" in names:
        PAGE.write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
