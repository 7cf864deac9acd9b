"""Contexts that talk, fork and are asked from many threads at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from stored import CONFIG, MORE, QUESTION, TEXT, counted, model_of, read, said
from tiny import byte_tokenizer

from sakuin import Context
from sakuin.errors import SakuinError

FLAT = CONFIG.with_changes(index="flat")


def rendered(context: Context) -> str:
    """The text of all tokens that the context holds."""
    return str(context.tokenizer.decode(context._reading.ids))


def test_a_conversation_has_the_tokens_of_the_template() -> None:
    model, tokenizer = model_of()
    context = Context.from_text(model, tokenizer, TEXT, FLAT)
    messages = [{"role": "user", "content": f"{TEXT.rstrip()}\n\nWho?"}]
    for question in ("Who?", "And why?", "Really?"):
        if question != "Who?":
            messages.append({"role": "user", "content": question})
        answer = context.chat(question, max_new_tokens=6)
        start = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert rendered(context).startswith(start)
        if len(messages) == 1:  # later on, an answer's bytes need not be characters
            assert answer.tokens == len(tokenizer(start, add_special_tokens=False).input_ids)
        messages.append({"role": "assistant", "content": rendered(context).removeprefix(start)})


def test_each_turn_reads_only_what_is_new() -> None:
    model, _ = model_of()
    context = read()
    context.chat(QUESTION, max_new_tokens=4)
    with counted(model) as passes:
        answer = context.chat("And then?", max_new_tokens=4)
    assert answer.reused_tokens > 1500
    # Steps but the first feed one token of the answer each; its last is fed to stay.
    assert sum(passes) == answer.tokens - answer.reused_tokens + answer.new_tokens
    assert context.cache.get_seq_length() == context.tokens


def test_messages_are_read_as_if_they_had_been_said() -> None:
    model, tokenizer = model_of()
    messages = [
        {"role": "user", "content": TEXT},
        {"role": "assistant", "content": "I see."},
        {"role": "user", "content": [{"type": "text", "text": "Who jumps?"}]},
    ]
    context = Context.from_messages(model, tokenizer, messages, FLAT)
    answer = context.chat(max_new_tokens=6)
    flat = [*messages[:2], {"role": "user", "content": "Who jumps?"}]
    whole = tokenizer.apply_chat_template(flat, tokenize=False, add_generation_prompt=True)
    assert rendered(context).startswith(whole)
    assert answer.evidence[0].file.startswith("message ")
    with pytest.raises(SakuinError, match="no message to answer"):
        context.chat()
    open_end = Context.from_messages(model, tokenizer, messages[:2], FLAT)
    assert open_end.chat("Who jumps?", max_new_tokens=6).text == answer.text
    for odd, why in (
        ([], "no messages"),
        ([{"role": "user"}], "message 1 must have"),
        ([{"content": 3}], "3"),
    ):
        with pytest.raises(SakuinError, match=why):
            Context.from_messages(model, tokenizer, odd)
    with pytest.raises(SakuinError, match="no chat template"):
        Context.from_messages(model, byte_tokenizer(chat=False), messages)


def test_a_base_model_talks_in_questions_and_answers() -> None:
    model, _ = model_of()
    context = Context.from_text(model, byte_tokenizer(chat=False), TEXT, FLAT)
    context.chat("Who?", max_new_tokens=5)
    context.chat("Why?", max_new_tokens=5)
    text = rendered(context).removeprefix(TEXT.rstrip())
    assert text.startswith("\n\nQuestion: Who?\nAnswer:")
    assert "\n\nQuestion: Why?\nAnswer:" in text


def test_text_appended_after_a_turn_begins_the_next_message() -> None:
    context = read(config=FLAT)
    context.chat("Who?", max_new_tokens=4)
    context.append(MORE)
    context.chat("Why?", max_new_tokens=4)
    text = rendered(context)
    assert f"</s><user>{MORE.rstrip()}\n\nWhy?</s><assistant>" in text
    assert context.documents[-1].text == TEXT + MORE


def test_forks_go_their_own_ways() -> None:
    context = read()
    before = said(context)
    fork = context.fork()
    fork.append(MORE)
    fork.chat("Who?", max_new_tokens=4)
    assert said(context) == before
    assert context.tokens < fork.tokens
    assert context.documents[0].text == TEXT
    other = context.fork()
    other.append(MORE)
    other.chat("Who?", max_new_tokens=4)
    assert said(other) == said(fork)


@pytest.mark.parametrize("kind", ["sketch", "full"])
def test_questions_at_once_are_answered_as_one_at_a_time(kind: str) -> None:
    config: Any = "full" if kind == "full" else CONFIG
    context = Context.from_text(*model_of(), TEXT, config)
    questions = [f"What does line {i} say?" for i in range(16)]
    alone = [said(context, question) for question in questions]
    forks = [context.fork() for _ in range(4)]
    with ThreadPoolExecutor(16) as pool:
        at_once = list(pool.map(lambda i: said(forks[i % 4], questions[i]), range(16)))
    assert at_once == alone


def test_asking_goes_on_while_the_context_grows() -> None:
    context = read()
    before = said(context)
    grown = context.fork()
    grown.append(MORE)
    after = said(grown)
    seen = []
    with ThreadPoolExecutor(1) as pool:
        growing = pool.submit(context.append, MORE)
        while not growing.done():
            seen.append(said(context))
        growing.result()
    assert all(answer in (before, after) for answer in seen)
    assert said(context) == after


def test_an_append_that_fails_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    context = read()
    before = said(context), context.tokens, context.documents

    def fail(done: int, total: int, phase: str) -> None:
        if done:
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        context.append(MORE, fail)
    assert (said(context), context.tokens, context.documents) == before
