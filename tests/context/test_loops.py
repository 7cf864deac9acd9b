"""When an answer is a loop and when it is a table: the rule, on answers that small models really gave."""

from __future__ import annotations

import re

import pytest

from sakuin.context.loops import Repetition

KEY = " The key is not only a tool but also a symbol of a community's commitment to sustainability."
VILLAGE = "They had built a beautiful and beautiful village, and "
LOOPS = {
    # smollm2, greedy
    "a sentence": (
        "The risks are:\n\n1. **Unforeseen consequences**:" + KEY * 12,
        "The risks are:\n\n1. **Unforeseen consequences**:" + KEY,
    ),
    "a phrase within a sentence": (
        "The villagers had lived there for centuries. "
        + VILLAGE
        + (VILLAGE.lower()) * 7
        + "they had built a mill.",
        "The villagers had lived there for centuries. They had built a beautiful and beautiful village, and",
    ),
    "headings without an end": ("Matrix A:\n```\n\nMatrix B:\n```\n\n" * 14, None),
    # of the same kind
    "two sentences in turn": (
        "The lease ends in March. Nobody has renewed it so far. " * 4,
        "The lease ends in March. Nobody has renewed it so far.",
    ),
    "the same item under other numbers": (
        "".join(f"{i}. The tenant pays the rent on time.\n" for i in range(1, 20)),
        "1. The tenant pays the rent on time.",
    ),
    "the same clause under other numbers": (
        "".join(
            f"{i}.1 The repair is paid by the tenant. The repair is paid by the tenant.\n"
            for i in range(1, 14)
        ),
        "1.1 The repair is paid by the tenant.",
    ),
    "a short sentence": ("I do not know. " * 9, "I do not know."),
    "one word": ("The sum of the the the the the the the the the the the the the the the the", None),
    "paragraphs": (
        "The contract with Halden ends in March.\n\n" * 5,
        "The contract with Halden ends in March.",
    ),
    "Japanese": ("契約は三月十四日に終了します。" * 5, "契約は三月十四日に終了します。"),
    "a sentence that goes on from the middle of another": (
        "So the lease ends in March. The lease of the house ends in March. "
        + "The lease of the house ends in March. " * 4,
        "So the lease ends in March. The lease of the house ends in March.",
    ),
    # smollm2 too, until its window was full
    "a quotation that never ends": ('The sentence "' * 18, None),
    "one word of it": ('He said: "So "So ' + '"So ' * 20, None),
    "brackets that never close": ("the tenant (the tenant (" + "the tenant (" * 16, None),
    "an answer that never comes": ("The answer is: " * 18, None),
    "typographic quotes": ("The sentence “" * 18, None),
    "Japanese that never ends": ("答えは「" * 18, None),
    "in quotes": ('He said: "It ends in the spring." ' * 4, 'He said: "It ends in the spring."'),
}
NO_LOOPS = {
    # smollm2, greedy
    "the units of a plant": ", ".join(f'{i}, "operational"' for i in range(1, 33)),
    "a numbered list of figures": "".join(f"{i}. {i}\n" for i in range(1, 31)),
    "rows of figures": "| Apples | Pears |\n| --- | --- |\n" + "".join(f"| {i} | 1 |\n" for i in range(28)),
    # of the same kind
    "zeros": ("0, " * 8 + "\n") * 12,
    "a table of zeros": "| 0 | 0 | 0 | 0 |\n" * 20,
    "equal cells": ", ".join(["operational"] * 40),
    "equal items": "- not in use\n" * 20,
    "equal rows": "Monday | closed | closed | no service\n" * 8,
    "records": '{"state": "open", "owner": "none"}, ' * 8,
    "answers to several questions": "1. Yes\n2. Yes\n3. Yes\n4. Yes\n5. No\n",
    "a refrain": "Row, row, row your boat, gently down the stream. " * 2,
    "said twice": "The lease ends in March. The lease ends in March. So the answer is March.",
    "a rule": "-" * 200 + "\n" * 20 + "* * * " * 40,
    "counting": ", ".join(map(str, range(1, 200))),
    "counting in lines": "".join(f"Step {i}\n" for i in range(1, 60)),
    "counting in words": "Step 1 of the plan, " + ", ".join(f"Step {i}" for i in range(2, 60)),
    "counting in running text": " ".join(f"Step {i}" for i in range(1, 60)),
    "equal items in quotes": ", ".join(['"not in use"'] * 20),
    "words in quotes": " ".join(['"none"'] * 20),
    "two columns": "not in use\tnot in use\n" * 20,
    "code": 'print("a")\n' * 20 + "x = next(x)\n" * 20 + "end\n" * 20,
    "HTML": "<p>no data</p>" * 10,
    "names and values": "Owner: none\n" * 20,
    "numbers and a unit": "".join(f"{i} mm " for i in range(40)),
    "Japanese items": "該当なし、" * 20,
    "dates": "".join(f"On day {i} the coin beside the hen was painted by the keeper.\n" for i in range(14)),
    "a poem": "Rose is a rose is a rose is a rose. She would carve on the tree.",
    "silence": "",
}


def watched(text: str, pieces: list[str]) -> tuple[int | None, str, list[str]]:
    """Where it is cut; what was heard until then; what was shown at each step."""
    repetition, heard, shown = Repetition(), "", []
    for piece in pieces:
        heard += piece
        if (cut := repetition.feed(heard)) is not None:
            return cut, heard, shown
        shown.append(heard[: repetition.shown])
    return None, heard, shown


def cut_up(text: str) -> list[list[str]]:
    """By words with their blanks, by single characters, and by pieces of five, as tokens may be."""
    return [re.findall(r"\s*\S+|\s+\Z", text), list(text), [text[i : i + 5] for i in range(0, len(text), 5)]]


@pytest.mark.parametrize(("text", "once"), LOOPS.values(), ids=LOOPS.keys())
def test_a_loop_is_noticed_and_said_once(text: str, once: str | None) -> None:
    for pieces in cut_up(text):
        cut, heard, shown = watched(text, pieces)
        assert cut is not None
        if once is not None:
            assert heard[:cut].rstrip() == once
        assert cut < 0.7 * len(text)
        # What was shown before stays as it was: nobody sees a second time what is cut.
        assert all(heard[:cut].startswith(each.rstrip()) for each in shown)


@pytest.mark.parametrize("text", NO_LOOPS.values(), ids=NO_LOOPS.keys())
def test_tables_lists_and_what_is_said_twice_are_no_loops(text: str) -> None:
    for pieces in cut_up(text):
        assert watched(text, pieces)[0] is None


def test_what_is_no_repetition_is_shown_soon() -> None:
    text = "The shed key hangs behind the blue door, and the next meeting is on the ninth of May. " * 2
    _, _, shown = watched(text, list(text))
    first = text[: len(text) // 2]
    waits = [len(text[: i + 1]) - len(each) for i, each in enumerate(shown) if i < len(first)]
    assert max(waits) <= len("the next ") + 2
