"""From a conversation to a request that runs: its tools and the form of its answer, its context, its prompt.

Called by the routes of chats and of responses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sakuin.context.context import Context
from sakuin.server.asking.origins import Start, of_any, of_named
from sakuin.server.asking.prompts import of_messages
from sakuin.server.asking.running import Running
from sakuin.server.asking.wanted import Grammar, Wanted
from sakuin.server.asks import audited
from sakuin.server.constraints.speech import ToolSpeech
from sakuin.server.constraints.tools import plain, told, told_format
from sakuin.server.problems import Problem
from sakuin.server.routes.answers import biased, context_of
from sakuin.server.schemas.chat import ChatRequest, Message
from sakuin.server.schemas.tools import FunctionTool, JsonObjectFormat, JsonSchemaFormat, ToolChoice
from sakuin.server.service import Service
from sakuin.server.tenants.tenant import Tenant
from sakuin.server.threads import in_thread


@dataclass(frozen=True)
class Form:
    """What an answer may be. tools : that it may call. told : what the model is told of it. grammar : that
    holds it."""

    tools: Sequence[FunctionTool] = ()
    told: str = ""
    grammar: Grammar | None = None

    def speech(self) -> ToolSpeech:
        """What parts one choice into text and calls."""
        return ToolSpeech(
            [tool.name for tool in self.tools], held=bool(self.tools) and self.grammar is not None
        )


@dataclass(frozen=True)
class Conversing:
    """A request that runs, and the form of its answer."""

    running: Running
    form: Form


async def conversing(
    service: Service, tenant: Tenant, body: ChatRequest, said_in: str = "messages"
) -> Conversing:
    """Begin to answer. Raises `Problem` where something is wrong with the request.

    said_in : the field that its messages came in.
    """
    context = await context_of(service, tenant, body.model, body.context)
    try:
        form, start, wanted = await in_thread(_prepared, service, tenant, body, context)
    except Problem as problem:
        if said_in != "messages" and (problem.param or "").partition(".")[0] == "messages":
            problem.param = said_in
        raise
    named = body.context or body.model.partition("@")[2] or None
    asked = next((one.text for one in reversed(body.messages) if one.role == "user"), "")
    audited(service, "ask", tenant, named, asked, prompt_tokens=len(start.asked.ids))
    return Conversing(Running(service.engine, tenant.name, start, wanted, tenant.allowed.priority), form)


def messages_of(messages: Sequence[Message], form: Form | None = None) -> list[dict[str, str]]:
    """As templates take them. form : whose words the model is told first."""
    said = [
        {
            "role": "system" if one.role == "developer" else one.role,
            "content": one.text,
            "tool_calls": one.tool_calls,
            "tool_call_id": one.tool_call_id,
        }
        for one in messages
    ]
    found = plain(said)
    if form is None or not form.told:
        return found
    if found and found[0]["role"] == "system":
        return [{"role": "system", "content": f"{found[0]['content']}\n\n{form.told}"}, *found[1:]]
    return [{"role": "system", "content": form.told}, *found]


def _prepared(
    service: Service, tenant: Tenant, body: ChatRequest, context: Context | None
) -> tuple[Form, Start, Wanted]:
    form = _form(service, body)
    wanted = biased(
        body,
        service.n_vocabulary,
        max_tokens=body.max_completion_tokens or body.max_tokens,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        evidence=body.wants_evidence,
        grammar=form.grammar,
    )
    messages = messages_of(body.messages, form)
    if context is not None:
        start = of_named(service.engine, tenant.name, context, messages, evidence=wanted.evidence)
        service.check_length(tenant, len(start.asked.ids))
        return form, start, wanted
    if not service.has_system:
        messages = _without_system(messages)
    asked = of_messages(service.backend, messages)
    service.check_length(tenant, len(asked.ids))
    opened = service.contexts_like(tenant, asked.ids)
    start = of_any(service.engine, tenant.name, asked, opened, evidence=wanted.evidence)
    return form, start, wanted


def _form(service: Service, body: ChatRequest) -> Form:
    tools = [tool.function for tool in body.tools or []]
    choice: ToolChoice = body.tool_choice or ("auto" if tools else "none")
    parallel = body.parallel_tool_calls is not False
    calls = service.grammars.of_tools(tools, choice, parallel=parallel)
    asked = body.response_format
    if calls is not None and isinstance(asked, JsonObjectFormat | JsonSchemaFormat):
        raise Problem(
            400,
            "response_format and tools are not there together: leave one of them out, or say "
            "tool_choice none.",
            "response_format",
        )
    if calls is not None:
        return Form(tools, told(tools, choice, parallel=parallel), calls)
    if isinstance(asked, JsonSchemaFormat):
        grammar = service.grammars.of_schema(asked.json_schema.schema_)
        return Form((), told_format(asked), grammar)
    if isinstance(asked, JsonObjectFormat):
        return Form((), told_format(asked), service.grammars.of_json())
    return Form()


def _without_system(messages: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Of a model whose template has no place for a system message: it begins the user's first one."""
    told = "\n\n".join(one["content"] for one in messages if one["role"] == "system")
    rest = [dict(one) for one in messages if one["role"] != "system"]
    if told and rest and rest[0]["role"] == "user":
        rest[0]["content"] = f"{told}\n\n{rest[0]['content']}"
    return rest or [{"role": "user", "content": told}]
