"""One short paragraph for each result that a page opens with, from the JSON files that the benchmarks wrote.

A page names one between the marks `<!-- finding NAME: begin -->` and `end`; figures.py puts it there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import fmean
from typing import Any

Row = dict[str, Any]


def decode(result: Row) -> str:
    depths = {dtype: found["depths"] for dtype, found in result["results"].items()}
    first, last = depths["bf16"][0], depths["bf16"][-1]
    fp32 = depths["fp32"][-1]
    ours, full = (last[name] / first[name] for name in ("sakuin_ms", "sdpa_ms"))
    m = result["machine"]
    return f"""
        With {last["depth"]:,} tokens of context a new token takes {last["sakuin_ms"]:.0f} ms with sakuin and
        {last["sdpa_ms"]:.0f} ms with full attention (bf16; in fp32 {fp32["sakuin_ms"]:.0f} and
        {fp32["sdpa_ms"]:.0f} ms). From {first["depth"]} tokens to {last["depth"]:,} sakuin becomes
        {ours:.1f} times as slow, full attention {full:.1f} times. SmolLM2-135M, both in one run, on
        {m["threads"]} threads of an {m["cpu"]} ({m["isa"]}); full attention is transformers' own `sdpa`."""


def contexts(result: Row) -> str:
    kept, m = result["kept"], result["machine"]
    answer = "the same answer" if kept["same_answer"] else "ANOTHER ANSWER"
    return f"""
        Gemma 3 270M took {kept["prefill_s"]:.0f} s to read {kept["tokens"]:,} tokens. Loaded from disk in a
        fresh process, the same context gave the first token of its answer after
        {kept["load_and_first_token_s"]:.1f} s, and {answer} ({result["dtype"]}, {m["threads"]} threads of an
        {m["cpu"]})."""


def fidelity(*results: Row) -> str:
    found = [
        (int(length), row)
        for result in results
        for length, rows in result["by_length"].items()
        for row in rows
        if row["configuration"] == "balanced"
    ]
    rows = [row for _, row in found]
    lost, retrieved = (sum(row[name] for row in rows) for name in ("lost", "retrieved"))
    kl = _span((row["kl"] for row in rows), ".5f")
    same = _span((100 * row["top1"] for row in rows), ".1f")
    touched = _span((100 * row["touched_share"] for row in rows), ".1f")
    return f"""
        Seven kinds of text were read, at {_span((length for length, _ in found), ",")} tokens. The
        distribution of the next token differs from that of full attention by a KL divergence of {kl} nats on
        average, and by {max(row["kl_worst"] for row in rows):.4f} at the worst token. The likeliest token is
        the same in {same} % of cases. Full attention has {retrieved} tokens of the answers to questions about
        planted facts right; {lost or "none"} of them {"are" if lost > 1 else "is"} lost. A step reads
        {touched} % of the offloaded keys and values, its index included, counted at 2 bytes a number.
        SmolLM2-135M and Gemma 3 270M, fp32."""


def gguf(*results: Row) -> str:
    found = [
        (int(length), row)
        for result in results
        for length, rows in result["by_length"].items()
        for row in rows
        if row["configuration"] == "balanced"
    ]
    rows = [row for _, row in found]
    lost, retrieved = (sum(row[name] for row in rows) for name in ("lost", "retrieved"))
    return f"""
        GGUF files of the same models, run by llama.cpp, read {_span((length for length, _ in found), ",")}
        tokens. The KL divergence from exact attention is {_span((row["kl"] for row in rows), ".5f")} nats on
        average, and {max(row["kl_worst"] for row in rows):.4f} at the worst token. Of {retrieved} tokens that
        can only be known from far back, {lost or "none"} {"are" if lost > 1 else "is"} lost."""


def ruler(*results: Row) -> str:
    rows = [
        row
        for result in results
        for row in result["rows"]
        if row["task"] is None and row["length"] is not None and row["configuration"] == "balanced"
    ]
    differences = _span((row["loss"]["mean"] for row in rows), "+.1f")
    samples = _span((row["loss"]["pairs"] for row in rows), "d")
    return f"""
        RULER is the public test of thirteen tasks on long texts. The mean score of sakuin, of 100, differs
        from that of full attention by {differences} points, at {len(rows)} pairs of a model and a length from
        {_span((row["length"] for row in rows), ",")} tokens. Each pair has {samples} samples; few samples
        tell little. Models as small as these two score only {_span((row["full"] for row in rows), ".0f")}
        with full attention."""


def step(*results: Row) -> str:
    best = min(results, key=lambda result: fmean(row["sketch_ms"] for row in result["results"]))
    flat, sketch = (fmean(row[f"{name}_ms"] for row in best["results"]) for name in ("flat", "sketch"))
    ratios = _span((result["flat_over_sketch"] for result in results), ".1f")
    return f"""
        One attention step over 128K keys takes {sketch:.2f} ms with the index, and {flat:.2f} ms with our own
        exact kernel, which reads everything. By the kind of CPU the index is {ratios} times as fast. The goal
        was 2 times. The data had left the CPU's caches, as it has in a model of many layers."""


def end_to_end(*results: Row) -> str:
    """Of each kind of machine the longest text that the largest model read, and the longest that it holds."""
    return " ".join(_end_to_end(result) for result in results)


def _end_to_end(result: Row) -> str:
    name = next((model for model in ("0.5b", "gemma3-270m", "smollm2") if model in result["models"]), "")
    by: dict[int, dict[str, Row]] = {}
    for row in result["models"].get(name, {"rows": []})["rows"]:
        by.setdefault(row["nominal"], {})[row["way"]] = row
    both = {n: (ways["sakuin"], ways["llama.cpp"]) for n, ways in by.items() if len(ways) > 1}
    read = [n for n, rows in both.items() if all("first_answer_s" in row for row in rows)]
    if not read:
        return ""
    ours, theirs = both[max(read)]
    step, slow = both[max(both)]
    m = result["machine"]
    title = {
        "0.5b": "a model of 0.5B with random weights",
        "gemma3-270m": "Gemma 3 270M",
        "smollm2": "SmolLM2-135M",
    }[name]
    return f"""
        {m["cpu"]} ({result["kind"]}, {m["threads"]} threads), {title}: the first answer to a document of
        {ours["tokens"]:,} tokens that it has never seen comes after {ours["first_answer_s"]:.0f} s, and with
        llama.cpp alone after {theirs["first_answer_s"]:,.0f} s. Behind {step["tokens"]:,} tokens a new token
        takes {step["decode_ms"]:.0f} ms, and with llama.cpp alone {slow["decode_ms"]:,.0f} ms."""


def _span(values: Iterable[float], form: str) -> str:
    """The least and the largest of `values`."""
    found = sorted(values)
    least, most = (f"{value:{form}}" for value in (found[0], found[-1]))
    return least if least == most else f"{least} to {most}"


FINDINGS: dict[str, tuple[str, Callable[..., str]]] = {
    "decode": ("decode_depth", decode),
    "contexts": ("contexts", contexts),
    "fidelity": ("evaluation-fidelity-*", fidelity),
    "gguf": ("evaluation-llama-fidelity-*", gguf),
    "ruler": ("evaluation-ruler-*", ruler),
    "step": ("sketch_step-*", step),
    "end-to-end": ("end_to_end-*", end_to_end),
}
"""Names of findings to the benchmark's files and what says it of their contents; lines are wrapped later."""
