"""Contexts as they are sent over HTTP: what makes one, and what is said of one."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sakuin.server.problems import ErrorBody

_CHARACTERS = 1 << 26

Name = Annotated[
    str,
    Field(
        min_length=1,
        max_length=100,
        description="What to call it: letters, digits, '.', '-', '+', '_', beginning with a letter or digit.",
    ),
]
Text = Annotated[str, Field(min_length=1, max_length=_CHARACTERS, description="The document's text.")]
Seconds = Annotated[
    float,
    Field(ge=1, le=3.1536e10, allow_inf_nan=False, description="Seconds from now after which it is gone."),
]
Wait = Annotated[bool, Field(description="Answer only when all is read.")]
Encoding = Annotated[
    str,
    Field(
        min_length=1,
        max_length=40,
        description="Of plain text and HTML: any that Python knows, or auto, which guesses. UTF-8 else.",
    ),
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ContextForm(_Strict):
    """What a context is to be; files come beside it."""

    name: Name | None = None
    text: Text | None = None
    system: Annotated[str, Field(max_length=1 << 20)] | None = Field(
        None, description="What the model is told before everything else. It belongs to the context."
    )
    pinned: bool = Field(False, description="Never let it give way to others where a quota is reached.")
    keep_for: Seconds | None = None
    encoding: Encoding | None = None
    wait: Wait = False


class ContextNew(ContextForm):
    """A context of a text."""

    text: Text


class AppendForm(_Strict):
    """What comes to a context; files come beside it."""

    text: Text | None = Field(None, description="It goes on with the last document.")
    replace: bool = Field(
        False, description="Let a file that was changed take the place of what the context holds of it."
    )
    encoding: Encoding | None = None
    wait: Wait = False


class AppendNew(AppendForm):
    """A text that comes to a context."""

    text: Text


class ContextChange(_Strict):
    """What is to be other than it is; what is left out stays."""

    name: Name | None = None
    pinned: bool | None = None
    keep_for: Seconds | None = Field(None, description="null keeps it for ever.")


class DocumentObject(BaseModel):
    """A document of a context. notes : what the file holds that is not in its text, and what was guessed."""

    name: str
    characters: int
    pages: int | None = None
    notes: list[str] = []


class ContextObject(BaseModel):
    """A context.

    askable : whether it can be asked now; one to which something is appended can be, as it was before.
    tokens : as far as that is known. tokens_done : of them that are read. progress : from 0 to 1. bytes : of
    its files. created, used, kept_until : seconds since 1970. shared : it is somebody else's, and can only be
    asked and seen. error : why reading failed. documents : left out in a list.
    """

    id: str
    object: Literal["context"] = "context"
    status: Literal["queued", "reading", "ready", "failed"]
    askable: bool
    progress: float
    tokens: int
    tokens_done: int
    bytes: int = 0
    model: str = ""
    created: float
    used: float | None = None
    pinned: bool = False
    kept_until: float | None = None
    shared: bool = False
    system: str | None = None
    error: ErrorBody | None = None
    documents: list[DocumentObject] | None = None


class ContextList(BaseModel):
    """All contexts of a tenant."""

    object: Literal["list"] = "list"
    data: list[ContextObject]


class ContextDeleted(BaseModel):
    """A context that is gone."""

    id: str
    object: Literal["context.deleted"] = "context.deleted"
    deleted: bool = True


class MarkObject(BaseModel):
    """From the character at `start` on, this page (counted from 1) and this heading apply."""

    start: int
    page: int | None = None
    heading: str | None = None


class TextOfDocument(BaseModel):
    """A document as it was read. Offsets count characters (Unicode code points) of `text`."""

    name: str
    text: str
    marks: list[MarkObject]
    notes: list[str]
    offset: int = 0
    lines_before: int = 0


class TextObject(BaseModel):
    """The documents of a context as they were read."""

    id: str
    object: Literal["context.text"] = "context.text"
    documents: list[TextOfDocument]


def body_of(form: type[BaseModel], new: type[BaseModel]) -> dict[str, Any]:
    """What a route that takes JSON or files says of its body."""
    files = form.model_json_schema()
    files["properties"] |= {
        "files": {
            "type": "array",
            "maxItems": 1000,
            "items": {"type": "string", "format": "binary"},
            "description": "Documents of any kind that can be read; the field may be called file too.",
        }
    }
    content = {
        "application/json": {"schema": new.model_json_schema()},
        "multipart/form-data": {"schema": files},
    }
    return {"requestBody": {"required": True, "content": content}}
