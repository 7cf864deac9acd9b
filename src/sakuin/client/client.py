"""`Client`: a sakuin server, asked from Python. Called by users."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from sakuin import arguments
from sakuin.client.answers import Reply, reply_of, streamed
from sakuin.client.calls import Calls
from sakuin.client.contexts import Contexts


class Client:
    """A server at `base_url`, as `http://127.0.0.1:8000`; with or without `/v1`.

    api_key : where the server asks for one. timeout : seconds that it may be silent.
    contexts : what it keeps: `add`, `append`, `list`, `get`, `text`, `update`, `delete`.
    """

    def __init__(
        self, base_url: str, api_key: str | None = None, *, timeout: float = 600.0, transport: Any = None
    ) -> None:
        base = arguments.text("base_url", base_url)
        self._calls = Calls(base, api_key, timeout, transport)
        self._model: str | None = None
        self.contexts = Contexts(self._calls)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._calls.close()

    def models(self) -> list[str]:
        """What can be asked: the model, and the model with each context."""
        return [one["id"] for one in self._calls.send("GET", "/v1/models")["data"]]

    def ask(
        self,
        context: str | None,
        question: str,
        *,
        max_tokens: int | None = None,
        stream: Callable[[str], None] | None = None,
        evidence: bool = True,
        **more: Any,
    ) -> Reply:
        """Answer a question of the context of this name; of none, the model alone answers.

        stream : is given the answer piece by piece. more : fields of the request as the server takes them,
        such as temperature, seed, footnotes or refuse_unsupported.

        Raises `ServerError` where the server refuses it.
        """
        arguments.callback("stream", stream, "a piece of the answer")
        asked: dict[str, Any] = {
            "model": self._named(),
            "messages": [{"role": "user", "content": arguments.text("question", question)}],
            **({"context": arguments.text("context", context), "evidence": evidence} if context else {}),
            **({} if max_tokens is None else {"max_tokens": max_tokens}),
            **more,
        }
        if stream is None:
            return reply_of(self._calls.send("POST", "/v1/chat/completions", json=asked))
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
        return streamed(self._calls.events("POST", "/v1/chat/completions", json=asked), stream)

    def _named(self) -> str:
        """The server's model."""
        if self._model is None:
            self._model = next((name for name in self.models() if "@" not in name), "")
        return self._model
