"""Why an answer ended, and what of it is heard, kept and read: stop strings, loops, the window, Ctrl-C; and
the penalty for repetition. Both backends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from stored import CONFIG, TEXT, model_of

from sakuin import Context
from sakuin.context.sampling import Sampling
from sakuin.errors import SakuinError

FACTS = "The shed key hangs behind the blue door. The next meeting is on 9 May. " * 3


@pytest.fixture(scope="module", params=["smollm2", "smollm2_by_transformers"])
def context(request: pytest.FixtureRequest) -> Context:
    """A short text, read by each backend."""
    return Context.from_text(*request.getfixturevalue(request.param), FACTS)


def test_an_answer_ends_before_a_stop_string_of_which_nothing_is_shown(context: Context) -> None:
    whole = context.ask("Where does the shed key hang?", 24)
    assert (whole.ended, whole.finished) == ("stop", True)
    word = "blue"
    assert word in whole.text
    heard: list[str] = []
    cut = context.ask("Where does the shed key hang?", 24, heard.append, stop=["not there", word])
    assert (cut.ended, cut.finished) == ("stop string", True)
    assert cut.text == whole.text[: whole.text.index(word)].strip()
    assert "".join(heard) == cut.text
    assert all("b" not in piece[-1:] for piece in heard[-1:])
    assert context.ask("Where does the shed key hang?", 24, stop=word).text == cut.text


def test_a_conversation_goes_on_from_the_text_that_was_kept(context: Context) -> None:
    """An answer that was cut leaves nothing of what came after it, neither in the text nor in the cache."""
    talk, told = context.fork(), context.fork()
    cut = talk.chat("Where does the shed key hang?", 24, stop="blue")
    said = talk.turns[-1]
    assert said == ("Where does the shed key hang?", cut.text)
    # What the next question sees is what one sees who heard these words and no others.
    ids = talk._reading.ids
    fresh = told.backend.new_cache(told.config)
    told.backend.forward(fresh, ids)
    retrieval = talk.backend.retrieval(talk.cache)
    assert retrieval is not None
    assert {row.n_tokens for row in retrieval.rows()} == {len(ids)}
    after = talk.backend.forward(talk.backend.fork(talk.cache), talk._prompt.between)
    again = told.backend.forward(fresh, told._prompt.between)
    # llama.cpp rounds what it multiplies to 8 bits, in passes of any length a little differently.
    limit = 0.05 if talk.backend.name == "transformers" else 1.5
    assert float((after.float() - again.float()).abs().max()) < limit


def test_an_answer_ends_when_it_is_cancelled_and_what_was_said_stays(context: Context) -> None:
    talk, heard = context.fork(), list[str]()
    answer = talk.chat("Tell everything.", 64, heard.append, cancelled=lambda: len(heard) >= 3)
    assert (answer.ended, answer.finished) == ("interrupted", False)
    assert 3 <= answer.new_tokens < 12
    assert talk.turns[-1] == ("Tell everything.", answer.text)
    assert talk.chat("Where does the shed key hang?", 24).text
    before = talk.tokens
    nothing = talk.chat("And then?", 64, cancelled=lambda: True)
    assert (nothing.text, nothing.ended, nothing.evidence) == ("", "interrupted", [])
    assert (talk.tokens, len(talk.turns)) == (before, 2)


def test_an_answer_that_the_window_or_the_length_cuts_off_says_which() -> None:
    model, tokenizer = model_of()
    context = Context.from_text(model, tokenizer, TEXT, CONFIG)
    room = context.backend.shape.window - context.ask("Who?", 1).tokens
    assert context.ask("Who?", 2).ended == "length"
    long = Context.from_text(model, tokenizer, TEXT + "x" * (room - 8), CONFIG)
    cut = long.ask("Who?", 64, end_loops=False)
    assert (cut.ended, cut.finished) == ("window", False)
    assert cut.tokens + cut.new_tokens == context.backend.shape.window


def test_a_loop_is_ended_and_said_once(context: Context) -> None:
    """The model is made to say the same tokens again and again."""
    ids = context.backend.vocabulary.encode(" The key hangs behind the blue door.").ids
    heard: list[str] = []
    with said(context, ids * 20):
        answer = context.ask("Where?", 150, heard.append)
    assert (answer.ended, answer.finished) == ("loop", False)
    assert answer.text == "".join(heard) == "The key hangs behind the blue door."
    assert answer.new_tokens < 4 * len(ids)
    talk = context.fork()
    with said(talk, ids * 20):
        talk.chat("Where?", 150)
    assert talk.turns == [("Where?", answer.text)]
    with said(context, ids * 20):
        assert context.ask("Where?", 60, end_loops=False).ended == "length"


def test_a_penalty_is_what_llama_cpp_means_by_it() -> None:
    logits = torch.tensor([2.0, -1.0, 3.0, 0.5, 2.9])
    likeliest = Sampling().chooser()
    assert likeliest(logits, [2]) == 2
    assert Sampling(repeat_penalty=1.5).chooser()(logits, [2]) == 4
    assert Sampling(repeat_penalty=1.5).chooser(ends={2})(logits, [2]) == 2  # an end is no repetition
    assert Sampling(repeat_penalty=1.5).chooser()(logits, [2, *[1] * 64]) == 2  # longer ago
    penalized = Sampling(repeat_penalty=2.0)._penalized(logits, {0, 1})
    assert penalized.tolist() == [1.0, -2.0, 3.0, 0.5, pytest.approx(2.9)]
    assert logits[0] == 2.0


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"repeat_penalty": 0}, "repeat_penalty must be a finite number above 0"),
        ({"repeat_penalty": float("nan")}, "repeat_penalty"),
        ({"stop": ""}, "a stop string is empty"),
        ({"stop": [""]}, "a stop string is empty"),
    ],
)
def test_odd_manners_are_refused(how: dict[str, Any], said: str) -> None:
    context = Context.from_text(*model_of(), TEXT[:200], CONFIG)
    for asked in (context.ask, context.chat):
        with pytest.raises(ValueError, match=said):
            asked("Who?", **how)
    with pytest.raises(TypeError, match="stop must be"):
        context.ask("Who?", stop=7)
    assert issubclass(SakuinError, ValueError)


class said:
    """Within, whoever chooses tokens chooses these."""

    def __init__(self, _: Context, ids: list[int]) -> None:
        self._ids = ids

    def __enter__(self) -> None:
        self._before: Callable[..., Any] = Sampling.chooser
        left = iter(self._ids)
        Sampling.chooser = lambda *_: lambda *_: next(left)  # type: ignore[method-assign]

    def __exit__(self, *_: object) -> None:
        Sampling.chooser = self._before  # type: ignore[method-assign]
