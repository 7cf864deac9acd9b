"""The table of docs/server.md, from what benchmarks.speed.served wrote. Called by tables.py."""

from __future__ import annotations

from typing import Any

from markdown_parts import percent, table


def served(result: dict[str, Any]) -> str:
    """What clients of the server see, beside what was wanted."""
    of = result["results"]
    first, many, beside, peer = of["first"], of["clients"], of["beside"], of["peer"]
    ours, theirs = peer["sakuin"], peer["llama.cpp"]
    many_clients = f"{many['clients']} clients on {many['contexts']} stored contexts of 8K"
    rows = [
        [
            "question on a stored context of 8K, to the first token",
            "",
            f"{first['first_ms']:.0f} ms ({first['question_tokens']:.0f} tokens of question; a step takes "
            f"{first['step_ms']:.1f} ms)",
        ],
        [
            f"{many_clients}, tokens/s over one after another",
            "3 x",
            f"{many['faster']:.2f} x ({many['faster_least']:.2f} to {many['faster_most']:.2f}; "
            f"{many['together']:.0f} beside {many['alone']:.0f} tokens/s)",
        ],
        ["of these, the slowest over the median", "2 x at most", f"{many['slowest']:.2f} x"],
        [
            f"4 who chat while a prompt of {beside['tokens']:,} tokens is read, time of a token over before",
            "2 x at most",
            f"{beside['rise']:.2f} x (medians {beside['before_ms']:.0f} and {beside['meanwhile_ms']:.0f} ms, "
            f"the longest {beside['longest_ms'] / 1e3:.1f} s; the prompt takes {beside['prompt_s']:.0f} s)",
        ],
        [
            f"8 clients ask one document of {ours['tokens']:,} tokens, tokens/s over llama.cpp's server",
            "3 x",
            f"{peer['faster']:.0f} x ({ours['rate']:.0f} beside {theirs['rate']:.1f})",
        ],
        [
            "of these, to the first token, where it restores a saved slot",
            "10 x sooner",
            f"{peer['sooner']:.1f} x sooner ({ours['first_s']:.2f} and {theirs['first_s']:.2f} s)",
        ],
        [
            "the same, where it reads the document",
            "",
            f"{peer['sooner_than_read']:.0f} x sooner ({theirs['read_s']:.0f} s; reading takes sakuin "
            f"{ours['read_s']:.0f})",
        ],
        ["same texts together as one after another", "", percent(many["same"])],
    ]
    return table({"what": "l", "goal": "l", "measured": "l"}, rows)


TABLES = {"served": ("served", served)}
