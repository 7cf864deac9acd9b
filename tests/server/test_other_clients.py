"""Programs that speak OpenAI's API: litellm, LangChain, llm and curl, as their users call them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import BaseModel, Field
from served import Served

ROME = "What is the capital of Italy? One word."
SCHEMA = {
    "type": "object",
    "properties": {"years": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["years"],
    "additionalProperties": False,
}
BISCUIT = "Biscuit is a dog and is 7 years old. How old is it?"


class Age(BaseModel):
    """How old somebody is."""

    years: int = Field(ge=0, le=99)


# -- litellm -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def litellm() -> Any:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks GitHub
    module = pytest.importorskip("litellm")
    module.telemetry = False
    return module


@pytest.fixture
def by_litellm(served: Served) -> dict[str, Any]:
    return {"model": "openai/smollm2", "api_base": served.api, "api_key": "none", "num_retries": 0}


def test_litellm_chats(litellm: Any, by_litellm: dict[str, Any]) -> None:
    messages = [{"role": "user", "content": ROME}]
    said = litellm.completion(**by_litellm, messages=messages, max_tokens=8, temperature=0, stop=["\n\n"])
    assert "Rome" in said.choices[0].message.content
    assert said.usage.prompt_tokens > 0
    chunks = list(litellm.completion(**by_litellm, messages=messages, max_tokens=8, stream=True))
    told = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert told.rstrip() == said.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_litellm_calls_a_tool(litellm: Any, by_litellm: dict[str, Any]) -> None:
    tool = {"type": "function", "function": {"name": "tell_age", "parameters": SCHEMA}}
    said = litellm.completion(
        **by_litellm,
        messages=[{"role": "user", "content": BISCUIT}],
        tools=[tool],
        tool_choice="required",
        parallel_tool_calls=False,
        max_tokens=60,
    )
    (call,) = said.choices[0].message.tool_calls
    assert call.function.name == "tell_age"
    assert 0 <= json.loads(call.function.arguments)["years"] <= 99


def test_litellm_takes_a_form(litellm: Any, by_litellm: dict[str, Any]) -> None:
    said = litellm.completion(
        **by_litellm,
        messages=[{"role": "user", "content": BISCUIT}],
        response_format=Age,
        max_tokens=40,
    )
    assert Age.model_validate_json(said.choices[0].message.content).years == 7


def test_litellm_raises_its_own_errors(litellm: Any, by_litellm: dict[str, Any], served: Served) -> None:
    messages = [{"role": "user", "content": ROME}]
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(**{**by_litellm, "model": "openai/gpt-4o"}, messages=messages)
    with pytest.raises(litellm.BadRequestError, match="temperature"):
        litellm.completion(**by_litellm, messages=messages, temperature=-1)
    long = "word " * ((served.service.backend.shape.window or 0) + 100)
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(**by_litellm, messages=[{"role": "user", "content": long}])


# -- LangChain -----------------------------------------------------------------------------------------------


@pytest.fixture
def langchain(served: Served) -> Any:
    made = pytest.importorskip("langchain_openai")
    return made.ChatOpenAI(
        base_url=served.api,
        api_key="none",
        model="smollm2",
        temperature=0,
        max_tokens=80,
        max_retries=0,
        stream_usage=True,
    )


def test_langchain_chats(langchain: Any) -> None:
    said = langchain.invoke([("system", "You are terse."), ("human", ROME)])
    assert "Rome" in said.content
    assert said.usage_metadata["input_tokens"] > 0
    chunks = list(langchain.stream([("system", "You are terse."), ("human", ROME)]))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert whole.content.rstrip() == said.content
    assert whole.usage_metadata["output_tokens"] == said.usage_metadata["output_tokens"]
    assert all(one.content for one in langchain.batch([ROME, ROME]))


def test_langchain_calls_a_tool_and_tells_its_result(langchain: Any) -> None:
    from langchain_core.messages import HumanMessage, ToolMessage
    from langchain_core.tools import tool

    @tool
    def add(a: int, b: int) -> int:
        """The sum of two numbers."""
        return a + b

    bound = langchain.bind_tools([add], tool_choice="add")
    asked = HumanMessage("What is 3 and 4?")
    said = bound.invoke([asked])
    (call,) = said.tool_calls
    assert call["name"] == "add"
    assert {type(value) for value in call["args"].values()} == {int}
    result = ToolMessage(str(add.invoke(call["args"])), tool_call_id=call["id"])
    assert langchain.bind_tools([add], tool_choice="none").invoke([asked, said, result]).content


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_langchain_takes_a_form(langchain: Any, method: str) -> None:
    found = langchain.with_structured_output(Age, method=method).invoke(BISCUIT)
    assert isinstance(found, Age)
    if method == "json_schema":
        assert found.years == 7


def test_langchain_by_responses(served: Served) -> None:
    made = pytest.importorskip("langchain_openai")
    model = made.ChatOpenAI(
        base_url=served.api, api_key="none", model="smollm2", max_retries=0, use_responses_api=True
    )
    said = model.invoke(ROME)
    assert "Rome" in said.text


def test_langchain_raises_openai_s_errors(langchain: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="temperature"):
        langchain.invoke(ROME, temperature=-1)
    with pytest.raises(openai.NotFoundError):
        langchain.invoke(ROME, model="gpt-4o")


# -- llm -----------------------------------------------------------------------------------------------------


@pytest.fixture
def by_llm(served: Served, tmp_path: Path) -> Iterator[Any]:
    """The program `llm` with the server among its models."""
    pytest.importorskip("llm")
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: here\n  model_name: smollm2\n  api_base: {served.api}\n"
        "  supports_schema: true\n  supports_tools: true\n"
        f"- model_id: nowhere\n  model_name: gpt-4o\n  api_base: {served.api}\n",
        encoding="utf-8",
    )
    environment = {**os.environ, "LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "none"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "llm", "prompt", "--no-log", *words]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=180, input=""
        )

    return run


def test_llm_chats(by_llm: Any) -> None:
    streamed = by_llm("-m", "here", "-o", "max_tokens", "8", ROME)
    assert "Rome" in streamed.stdout, streamed.stderr
    whole = by_llm("-m", "here", "-o", "max_tokens", "8", "-o", "temperature", "0", "--no-stream", ROME)
    assert whole.stdout.strip() == streamed.stdout.strip(), whole.stderr


def test_llm_takes_a_form(by_llm: Any) -> None:
    said = by_llm("-m", "here", "--schema", json.dumps(SCHEMA), BISCUIT)
    assert 0 <= json.loads(said.stdout)["years"] <= 99, said.stderr


def test_llm_calls_tools(by_llm: Any) -> None:
    """With tools at hand, it gets an answer: words, or what a call of them leads to."""
    said = by_llm("-m", "here", "-T", "llm_version", "-o", "max_tokens", "24", "Hello!")
    assert said.returncode == 0, said.stderr
    assert said.stdout.strip()


def test_llm_tells_what_is_wrong(by_llm: Any) -> None:
    said = by_llm("-m", "nowhere", ROME)
    assert said.returncode != 0
    assert "There is no model 'gpt-4o'" in said.stderr


# -- curl ----------------------------------------------------------------------------------------------------


def test_curl_chats(served: Served) -> None:
    body = {"model": "smollm2", "messages": [{"role": "user", "content": ROME}], "max_tokens": 8}
    whole = served.curl("-f", "/v1/chat/completions", body=body)
    said = json.loads(whole.stdout)
    assert "Rome" in said["choices"][0]["message"]["content"]
    streamed = served.curl("-f", "-N", "-i", "/v1/chat/completions", body=body | {"stream": True})
    head, _, rest = streamed.stdout.partition("\n\n")
    assert "content-type: text/event-stream" in head.lower()
    lines = [line for line in rest.splitlines() if line and not line.startswith(":")]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    told = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert told.rstrip() == said["choices"][0]["message"]["content"]


def test_curl_is_told_how_far_a_long_prompt_is_read(served: Served) -> None:
    text = "".join(f"Shed number {i} holds {i * 7} boats. " for i in range(60))
    body = {"model": "smollm2", "messages": [{"role": "user", "content": text}], "max_tokens": 2}
    said = served.curl("-N", "/v1/chat/completions", body=body | {"stream": True})
    read = [line.split()[2] for line in said.stdout.splitlines() if line.startswith(": prefill ")]
    assert read
    done, total = (int(part) for part in read[-1].split("/"))
    assert done == total > 500


def test_curl_gets_a_form_and_a_tool(served: Served) -> None:
    body = {"model": "smollm2", "messages": [{"role": "user", "content": BISCUIT}], "max_tokens": 60}
    form = {"type": "json_schema", "json_schema": {"name": "age", "schema": SCHEMA}}
    said = json.loads(served.curl("/v1/chat/completions", body=body | {"response_format": form}).stdout)
    assert list(json.loads(said["choices"][0]["message"]["content"])) == ["years"]
    tool = {"type": "function", "function": {"name": "tell_age", "parameters": SCHEMA}}
    more = {"tools": [tool], "tool_choice": {"type": "function", "function": {"name": "tell_age"}}}
    said = json.loads(served.curl("/v1/chat/completions", body=body | more).stdout)
    assert said["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "tell_age"


def test_curl_sees_what_is_wrong(served: Served) -> None:
    def status(*words: str) -> tuple[int, Any]:
        said = served.curl("-w", "\n%{http_code}", *words)
        body, _, code = said.stdout.rpartition("\n")
        return int(code), json.loads(body)

    chat, sent = "/v1/chat/completions", "content-type: application/json"
    code, said = status("-H", sent, "-d", '{"model": "smollm2", ', chat)
    assert (code, said["error"]["code"]) == (400, "invalid_json")
    code, said = status("-H", sent, "-d", '{"model":"smollm2","messages":[],"temperature":NaN}', chat)
    assert code == 400
    code, said = status("-H", sent, "-d", "[1]", chat)
    assert code == 400
    code, said = status("-X", "GET", chat)
    assert code == 405
    code, said = status("/v1/nowhere")
    assert (code, said["error"]["type"]) == (404, "not_found_error")
    code, said = status("/health")
    assert (code, said["status"]) == (200, "ok")
