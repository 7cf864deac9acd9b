"""What a context has read: its text, the documents in it, and which token stands for which characters.

A `Reading` is a value: growing makes another one, so that questions that are being answered keep theirs. The
tokens' keys and values are the cache's business. Called by `sakuin.context.context` and `sakuin.snapshot`.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from sakuin.documents import Document
from sakuin.errors import SakuinError
from sakuin.prompts.holding import common_length, told_apart
from sakuin.prompts.template import Prompt, stable_length
from sakuin.prompts.vocabulary import Encoded

_TALK = 6
"""So many tokens in a row that stand for no character of the text are a talk's: of one letter there are at
most three."""
_MESSAGE = re.compile(r"message \d+ \(.*\)")
"""What the messages of `Context.from_messages` are named."""


@dataclass(frozen=True)
class Reading:
    """Texts of documents, joined, and the tokens that are prefilled.

    body : all documents' texts, and titles between them. places : where in it each document's text begins.
    ids : the tokens, those of the template included; starts, ends : which characters of `body` each stands
        for, none (start = end) for the template's own.
    at : where in `body` the text begins that waits: what follows may still change its tokens.
    lead : tokens that come before the next words of the user; none while the user's message is open.
    exact : so many first tokens were computed by exact attention, none after a token that was not.
    system : what the model was told before everything else, or "".
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
    system: str = ""

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
        """The same with these documents at the end; several are told apart by their names as titles. A file
        that is named twice is there once."""
        reading, apart = self, told_apart(documents)
        for document in apart:
            title = f"{document.name}:\n\n" if len(apart) > 1 else ""
            reading = reading.with_document(document, "\n\n" + title if title and reading.body else title)
        return reading

    def holding(self, documents: Sequence[Document], prompt: Prompt) -> Reading:
        """The same with these documents in the place of its own: what stays as it is keeps its tokens, up to
        where the text differs; the rest waits.

        Raises `SakuinError` where a conversation would lose the text that it was about.
        """
        same = next(
            (i for i, pair in enumerate(zip(self.documents, documents, strict=False)) if not _is_one(*pair)),
            min(len(self.documents), len(documents)),
        )
        pieces, places, length = [], [], 0
        for i, document in enumerate(documents):
            title = f"{document.name}:\n\n" if document.name and len(documents) > 1 else ""
            gap = self._gap(i) if i < same else f"\n\n{title}" if i else title
            pieces += [gap, document.text]
            places.append(length + len(gap))
            length += len(gap) + len(document.text)
        body = "".join(pieces)
        cut = common_length(self.body, body)
        kept = replace(self, body=body, documents=tuple(documents), places=tuple(places))
        if cut == len(self.body) or (cut >= self.at and not self.lead):
            return kept
        n, at = self._stable(cut)
        self._check_no_talk(n)
        lead = [] if n else list(prompt.head)
        if n and self.starts[n - 1] == self.ends[n - 1]:  # a talk stands there, and the user's next turn
            between = prompt.between
            if self.ids[n - len(between) : n] == between:
                n, lead = n - len(between), list(between)
        ids, starts, ends = self.ids[:n], self.starts[:n], self.ends[:n]
        exact = min(self.exact, n)
        return replace(kept, ids=ids, starts=starts, ends=ends, at=at, lead=lead, exact=exact)

    def _gap(self, i: int) -> str:
        """What stands in the text before the i-th document."""
        end = self.places[i - 1] + len(self.documents[i - 1].text) if i else 0
        return self.body[end : self.places[i]]

    def _stable(self, cut: int) -> tuple[int, int]:
        """How many first tokens stay whatever comes after the first `cut` characters, and where in the text
        the next begins; none where not even all of the template's do."""
        head = next((i for i, (a, b) in enumerate(zip(self.starts, self.ends, strict=True)) if a < b), 0)
        within = bisect_right(self.ends, cut)
        if within > head and self.starts[within - 1] == self.ends[within - 1]:  # the template's own
            return within, cut
        known = Encoded(self.ids[:within], self.starts[:within], self.ends[:within])
        n = stable_length(self.body[:cut], known)
        return (n, self.starts[n]) if n > head else (0, 0)

    def _check_no_talk(self, n: int) -> None:
        """Refuse to let go of all but the first n tokens where the others hold a conversation."""
        widths = [end - start for start, end in zip(self.starts, self.ends, strict=True)]
        first = next((i for i, width in enumerate(widths) if width), len(widths))
        row = longest = 0
        for width in widths[max(n, first) :]:
            row = 0 if width else row + 1
            longest = max(longest, row)
        messages = any(one.path is None and _MESSAGE.fullmatch(one.name) for one in self.documents)
        if longest >= _TALK or messages or (self.lead and self.ids):
            raise SakuinError(
                "the context holds a conversation, which was about its documents as they are, so none can be "
                "replaced or removed under it; add the documents as a new context."
            )

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


def _is_one(old: Document, new: Document) -> bool:
    """Whether a document takes the place of another: the same one, whatever it says now."""
    return old.offset == new.offset and (
        old.name == new.name or (old.path == new.path and old.path is not None)
    )
