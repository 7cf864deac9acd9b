"""The table of docs/contexts.md, from what benchmarks/contexts.py wrote. Called by docs/tables.py."""

from __future__ import annotations

from typing import Any

from markdown_parts import percent, table


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.0f} MB"


def contexts(result: dict[str, Any]) -> str:
    """What was wanted of stored contexts, and what was measured."""
    found = result
    kept, grown, shared = found["kept"], found["appended"], found["shared"]
    rows = [
        [
            f"load {kept['tokens']:,} tokens in a fresh process and say the first token, no file in the page "
            "cache, against reading them again",
            "100 x faster",
            f"{kept['times_faster']:.0f} x ({kept['load_and_first_token_s']:.2f} s against "
            f"{kept['prefill_s']:.0f} s)",
        ],
        [
            "the answer then, and the tokens of the prompt that were not read again",
            "the same, all",
            f"{_same(kept['same_answer'])}, {kept['reused_tokens']:,}",
        ],
        [
            "size on disk without sliding windows, against keys and values in bf16; with `int8`",
            "1.35; 0.85",
            f"{kept['size']['share']:.2f}; {kept['size_int8']['share']:.2f}",
        ],
        [
            "16 questions at once to 4 forks",
            "as one at a time",
            f"{_same(found['at_once']['identical'])} ({found['at_once']['at_once_s']:.0f} s, one at a time "
            f"{found['at_once']['one_at_a_time_s']:.0f} s)",
        ],
        [
            f"append {grown['appended']:,} tokens to {grown['tokens']:,}: seconds, and those of reading them "
            "with nothing before; files rewritten",
            "what they cost; none",
            f"{grown['append_s']:.1f} s against {grown['alone_s']:.1f} s; {grown['rewritten_files']}",
        ],
        [
            f"add {shared['tokens'][1]:,} tokens whose first 12.8K are stored (`segment=4096`): tokens "
            "reused, seconds, bytes",
            "the rest alone",
            f"{shared['reused']:,}; {shared['add_s'][1]:.0f} s against {shared['add_s'][0]:.0f} s; "
            f"{_megabytes(shared['bytes_on_disk'][1] - shared['bytes_on_disk'][0])} against "
            f"{_megabytes(shared['bytes_on_disk'][0])}",
        ],
    ]
    short = found["short_of_memory"]
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
"""As in docs/tables.py."""
