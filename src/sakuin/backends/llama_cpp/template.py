"""Chat templates of GGUF files, rendered as transformers renders them.

A template is a program from a stranger: it runs in Jinja's sandbox, with what transformers gives it and
nothing more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from sakuin.errors import SakuinError


class Template:
    """A model's chat template.

    text : in Jinja's language. tokens : what special tokens look like, by the names that templates know them
        by (`bos_token`, `eos_token`); those that the model lacks are left out.
    """

    def __init__(self, text: str, tokens: Mapping[str, str] | None = None) -> None:
        self.text = text
        self.tokens = dict(tokens or {})

    def render(self, messages: Sequence[Mapping[str, Any]], *, answer: bool) -> str:
        """`messages` in the template; `answer`: up to where the model's answer begins. Raises `SakuinError`
        with what the template says against them."""
        try:
            return self._compiled.render(
                messages=[dict(message) for message in messages],
                tools=None,
                documents=None,
                add_generation_prompt=answer,
                **self.tokens,
            )
        except Exception as error:  # whatever a template raises
            roles = ", ".join(str(message.get("role")) for message in messages)
            raise SakuinError(
                f"the model's chat template cannot be rendered with messages of {roles}: {error}."
            ) from error

    @cached_property
    def _compiled(self) -> jinja2.Template:
        return _environment().from_string(self.text)


def _environment() -> jinja2.Environment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "raise_exception": _refuse,
        "strftime_now": _now,
        "namespace": _Namespace,
        "dict": _Dictionary(),
    }
    return environment


class _Generation(Extension):
    """`{% generation %}` marks what the model wrote, for training; here its content is all that counts."""

    tags = {"generation"}  # noqa: RUF012  as Jinja declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(Namespace):
    """Without names that begin with an underscore, by which a template could reach Python's insides."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, rest = args[0], args[1:]
        values = dict(*rest, **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


class _Dictionary:
    """What `dict` is to a template: no class, whose attributes lead on."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        """As Python's."""
        return dict.fromkeys(*args)


def _check_name(name: Any) -> None:
    if str(name).startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace may not hold the name {name!r}")


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is; Jinja's own filter escapes it for web pages."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _refuse(message: str) -> NoReturn:
    raise jinja2.exceptions.TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)
