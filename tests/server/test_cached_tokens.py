"""What usage says of tokens that were read before is true, and only for who had them read; and answers do not
depend on who asks beside."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from served import Served, serving
from stored import CONFIG, TEXT, counted, model_of

from sakuin import Context, Library
from sakuin.server.tenants.keys import Keys
from sakuin.server.tenants.tenant import Allowed

QUESTION = "Who was it that jumped over all those lazy dogs, and how many were there in line seven?"


def usage(said: dict[str, Any]) -> tuple[int, int]:
    """Tokens of the prompt, and of those that were known."""
    return said["usage"]["prompt_tokens"], said["usage"]["prompt_tokens_details"]["cached_tokens"]


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Served]:
    """One that nobody has asked yet."""
    with serving(model_of(), tmp_path / "library", name="tiny") as found:
        yield found


def read_by(served: Served, question: str, **more: Any) -> tuple[dict[str, Any], int]:
    """An answer, and how many tokens the model had to read for it."""
    with counted(served.service.backend.model) as seen:
        said = served.answer(question, **more)
    return said, sum(seen)


def test_a_prompt_that_was_asked_is_not_read_again(fresh: Served) -> None:
    first, read = read_by(fresh, QUESTION)
    n, cached = usage(first)
    assert cached == 0
    assert read >= n
    again, read_again = read_by(fresh, QUESTION)
    assert usage(again) == (n, n - 1)  # the last one is always read: its logits choose the first word
    assert read - read_again == n - 1
    assert again["choices"] == first["choices"]


def test_a_longer_conversation_goes_on_from_the_shorter_one(fresh: Served) -> None:
    first = fresh.answer(QUESTION)
    said = first["choices"][0]["message"]
    more = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "So it is."}]
    longer = [*more, {"role": "user", "content": "And then?"}]
    second, read = read_by(fresh, "", messages=longer)
    n, cached = usage(second)
    # All of the first prompt but the answer's own beginning is known, and what is counted is not read.
    assert cached >= usage(first)[0] - 1
    assert read == n - cached + second["usage"]["completion_tokens"] - 1
    assert said["role"] == "assistant"
    other, _ = read_by(fresh, "Something that begins quite otherwise, and about which nobody has ever asked.")
    assert usage(other)[1] < 32


def test_completions_and_responses_count_as_chats_do(fresh: Served) -> None:
    body = {"model": "tiny", "prompt": TEXT[:300], "max_tokens": 4}
    first, second = (fresh.post("/v1/completions", **body).json() for _ in range(2))
    assert usage(first) == (300, 0)
    assert usage(second) == (300, 299)
    assert first["choices"] == second["choices"]
    asked = {"model": "tiny", "input": QUESTION, "max_output_tokens": 4}
    one, two = (fresh.post("/v1/responses", **asked).json()["usage"] for _ in range(2))
    assert one["input_tokens_details"]["cached_tokens"] == 0
    assert two["input_tokens_details"]["cached_tokens"] == two["input_tokens"] - 1


def test_a_stream_counts_too(fresh: Served) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 4}
    more = {"stream": True, "stream_options": {"include_usage": True}}
    fresh.post("/v1/chat/completions", **body)
    streamed = fresh.post("/v1/chat/completions", **body, **more).text
    n, _ = usage(fresh.post("/v1/chat/completions", **body).json())
    assert f'"cached_tokens":{n - 1}' in streamed


def test_of_a_context_all_is_known_but_the_question(tmp_path: Path) -> None:
    context = Context.from_text(*model_of(), TEXT, CONFIG)
    Library(tmp_path).save("fox", context)
    with serving(model_of(), tmp_path, name="tiny") as served:
        by_field, read = read_by(served, QUESTION, context="fox")
        n, cached = usage(by_field)
        assert cached == len(context.reading.ids)
        assert len(TEXT) - 32 < cached < n
        assert read == n - cached + by_field["usage"]["completion_tokens"] - 1
        by_model, _ = read_by(served, QUESTION, model="tiny@fox")
        assert usage(by_model) == (n, n - 1)
        assert by_model["choices"] == by_field["choices"]


def test_a_stranger_gets_nothing_of_it(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    one, other = (keys.add(name, Allowed(), ()) for name in ("one", "other"))
    with serving(model_of(), tmp_path / "library", name="tiny", api_keys=str(keys.path)) as served:

        def asked(key: str, n: int = 1) -> list[tuple[int, int]]:
            body = {"model": "tiny", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 4}
            head = {"Authorization": f"Bearer {key}"}
            return [usage(served.post("/v1/chat/completions", headers=head, **body).json()) for _ in range(n)]

        (first,) = asked(one)
        with counted(served.service.backend.model) as seen:
            (strange,) = asked(other)
        assert strange == first == (first[0], 0)
        assert sum(seen) >= first[0]  # and it is read
        assert asked(one) == asked(other) == [(first[0], first[0] - 1)]


# -- many at once --------------------------------------------------------------------------------------------

QUESTIONS = (
    "Name a colour.",
    "What is the capital of Italy? One word.",
    "Is water wet?",
    "Count from one to ten.",
)


@pytest.mark.parametrize("kind", ["transformers", "llama.cpp"])
def test_who_asks_beside_others_is_answered_as_alone(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model = model_of() if kind == "transformers" else request.getfixturevalue("smollm2")
    # Nothing is kept, so that all read the same way; llama.cpp rounds by how many are computed, but steadily.
    with ExitStack() as stack:
        served = stack.enter_context(serving(model, tmp_path, name="m", kept_bytes=0))
        stack.enter_context(served.service.backend.steady())

        def told(i: int) -> Any:
            return served.answer(QUESTIONS[i % 4], max_tokens=4 + i, end_loops=False)["choices"]

        alone = [told(i) for i in range(8)]
        turns = served.service.scheduler.turns
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(told, range(8)))
        assert together == alone
        assert served.service.scheduler.turns - turns < turns  # they were computed together
