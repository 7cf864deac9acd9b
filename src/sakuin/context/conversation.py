"""A conversation as a text to be read: each message a document, the chat template's tokens around it.

Called by `sakuin.context.context`.
"""

from __future__ import annotations

from collections.abc import Sequence

from sakuin.context.checks import check_characters, joined
from sakuin.documents import Document
from sakuin.prompts.reading import Reading
from sakuin.prompts.template import Prompt


def messages_read(
    prompt: Prompt, reading: Reading, messages: Sequence[dict[str, str]], window: int | None
) -> Reading:
    """`reading`, which is empty, with the tokens of `messages`. Where the last is the user's, it stays open:
    an answer, or more of it, may follow."""
    opened = messages[-1]["role"] != "user"
    following = [{"role": "user", "content": ""}] if opened else []
    check_characters(prompt.vocabulary, joined(messages), window)
    leads = prompt.opening([*messages, *following])
    for i, (message, lead) in enumerate(zip(messages, leads, strict=False)):
        document = Document(f"message {i + 1} ({message['role']})", message["content"])
        reading = reading.with_document(document).with_tokens([], [], [], reading.at, lead)
        reading = reading.grown(prompt, whole=opened or i + 1 < len(messages))
    if opened:
        reading = reading.with_tokens([], [], [], reading.at, leads[-1])
    return reading
