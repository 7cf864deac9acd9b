"""What a context has read: its text, the documents in it, and which token stands for which characters.

A `Reading` is a value: growing makes another one, so that questions that are being answered keep theirs. The
tokens' keys and values are the cache's business. Called by `sakuin.context.context` and `sakuin.snapshot`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from sakuin.documents import Document
from sakuin.prompts.template import Prompt, stable_length
from sakuin.prompts.vocabulary import Encoded


@dataclass(frozen=True)
class Reading:
    """Texts of documents, joined, and the tokens that are prefilled.

    body : all documents' texts, and titles between them. places : where in it each document's text begins.
    ids : the tokens, those of the template included; starts, ends : which characters of `body` each stands
        for, none (start = end) for the template's own.
    at : where in `body` the text begins that waits: what follows may still change its tokens.
    lead : tokens that come before the next words of the user; none while the user's message is open.
    exact : so many first tokens were computed by exact attention, none after a token that was not.
    """

    body: str = ""
    documents: tuple[Document, ...] = ()
    places: tuple[int, ...] = ()
    ids: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    at: int = 0
    lead: list[int] = field(default_factory=list)
    exact: int = 0

    @property
    def waiting(self) -> str:
        """The text that is not prefilled yet."""
        return self.body[self.at :]

    def with_document(self, document: Document, title: str = "") -> Reading:
        """The same with another document at the end, after its title."""
        body = self.body + title
        return replace(
            self,
            body=body + document.text,
            documents=(*self.documents, document),
            places=(*self.places, len(body)),
        )

    def with_documents(self, documents: Sequence[Document]) -> Reading:
        """The same with these documents at the end; several are told apart by their names as titles."""
        reading = self
        for document in documents:
            title = f"{document.name}:\n\n" if len(documents) > 1 else ""
            reading = reading.with_document(document, "\n\n" + title if title and reading.body else title)
        return reading

    def with_messages(self, prompt: Prompt, messages: Sequence[dict[str, str]]) -> Reading:
        """The same with these messages, each a document. The user's turn comes next, or is the last of them
        and still open."""
        reading, opened = self, messages[-1]["role"] != "user"
        following = [{"role": "user", "content": ""}] if opened else []
        leads = prompt.pieces([*messages, *following])
        for i, (message, lead) in enumerate(zip(messages, leads, strict=False)):
            document = Document(f"message {i + 1} ({message['role']})", message["content"])
            reading = reading.with_document(document).with_tokens([], [], [], reading.at, lead)
            reading = reading.grown(prompt, whole=opened or i + 1 < len(messages))
        return reading.with_tokens([], [], [], reading.at, leads[-1]) if opened else reading

    def with_more(self, text: str) -> Reading:
        """The same with `text` at the end of the last document; of one without a name where there is none."""
        if not self.documents:
            return self.with_document(Document("", text))
        last = self.documents[-1].extended(text)
        return replace(self, body=self.body + text, documents=(*self.documents[:-1], last))

    def with_tokens(
        self,
        ids: Sequence[int],
        starts: Sequence[int],
        ends: Sequence[int],
        at: int,
        lead: Sequence[int] = (),
    ) -> Reading:
        """The same with these tokens after the others, and the text prefilled up to `at`."""
        return replace(
            self,
            ids=[*self.ids, *ids],
            starts=[*self.starts, *starts],
            ends=[*self.ends, *ends],
            at=at,
            lead=list(lead),
        )

    def own_tokens(self, encoded: Encoded) -> int:
        """How many tokens of the body, `encoded`, begin within a document's text; titles are left out."""
        starts, spans = encoded.starts, zip(self.places, self.documents, strict=True)
        return sum(
            bisect_left(starts, place + len(document.text)) - bisect_left(starts, place)
            for place, document in spans
        )

    def grown(self, prompt: Prompt, whole: bool = False, encoded: Encoded | None = None) -> Reading:
        """With the tokens of the text that waits, up to where what follows cannot change them.

        whole : with the tokens of all of it. encoded : the tokens of the text that waits, where they are
        known.
        """
        text, at, lead = self.waiting, self.at, self.lead
        new = prompt.encode(text) if encoded is None else encoded
        keep = len(new.ids) if whole else stable_length(text, new)
        end = len(self.body) if keep == len(new.ids) else at + new.starts[keep]
        return self.with_tokens(
            [*lead, *new.ids[:keep]],
            [at] * len(lead) + [at + start for start in new.starts[:keep]],
            [at] * len(lead) + [at + stop for stop in new.ends[:keep]],
            end,
        )
