"""The table of docs/contexts.md, from what benchmarks.contexts.keeping wrote. Called by tables.py."""

from __future__ import annotations

from typing import Any

from markdown_parts import percent, table


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.0f} MB"


def contexts(result: dict[str, Any]) -> str:
    """What was wanted of stored contexts, and what was measured."""
    kept, grown, shared = result["kept"], result["appended"], result["shared"]
    at_once, short = result["at_once"], result["short_of_memory"]
    first_s, add_s = shared["add_s"]
    first_bytes, both_bytes = shared["bytes_on_disk"]
    rows = [
        [
            f"load {kept['tokens']:,} tokens and give the first token, not read them again",
            "100 x faster",
            f"{kept['times_faster']:.0f} x ({kept['load_and_first_token_s']:.2f} s, not "
            f"{kept['prefill_s']:.0f} s)",
        ],
        ["the answer of the loaded context", "the same", _same(kept["same_answer"])],
        ["tokens of its prompt that were not read again", "all", f"{kept['reused_tokens']:,}"],
        [
            "size on disk without sliding windows, over keys and values in bf16",
            "1.35",
            f"{kept['size']['share']:.2f}",
        ],
        ["the same with `int8`", "0.85", f"{kept['size_int8']['share']:.2f}"],
        [
            "16 questions at once to 4 forks",
            "as one at a time",
            f"{_same(at_once['identical'])} ({at_once['at_once_s']:.0f} s; one at a time "
            f"{at_once['one_at_a_time_s']:.0f} s)",
        ],
        [
            f"append {grown['appended']:,} tokens to {grown['tokens']:,}",
            "what they cost",
            f"{grown['append_s']:.1f} s; reading them with nothing before {grown['alone_s']:.1f} s",
        ],
        ["files that this rewrites", "none", f"{grown['rewritten_files']}"],
        [
            f"add {shared['tokens'][1]:,} tokens whose first 12.8K are stored (`segment=4096`)",
            "the rest alone",
            f"{shared['reused']:,} tokens reused; {add_s:.0f} s, the first context {first_s:.0f} s; "
            f"{_megabytes(both_bytes - first_bytes)}, the first {_megabytes(first_bytes)}",
        ],
    ]
    if short is not None:
        rows.append(
            [
                f"decode from disk where the process may hold {_megabytes(short['limit_bytes'])} of "
                f"{_megabytes(short['context_bytes'])}, once warm, against memory",
                "3 x slower",
                f"{short['slower']:.2f} x, {_same(short['same_answer'])}; held "
                f"{_megabytes(short['used_at_most'])}, "
                f"{percent(short['used_at_most'] / short['context_bytes'])}",
            ]
        )
    return table({"what": "l", "goal": "l", "measured": "l"}, rows)


def _same(is_so: bool) -> str:
    return "the same answer" if is_so else "ANOTHER ANSWER"


TABLES = {"contexts": ("contexts", contexts)}
"""As in tools/docs/tables.py."""
