"""Chat templates of GGUF files: the text that transformers makes of them, and what a template may not do."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tiny import CHAT_TEMPLATE
from tiny_gguf import write
from tiny_vocabulary import TEMPLATE, bytes_vocabulary

from sakuin.backends import catalogue
from sakuin.backends.llama_cpp.description import describe
from sakuin.backends.llama_cpp.header import Header
from sakuin.backends.llama_cpp.template import Template
from sakuin.backends.llama_cpp.vocabulary import LlamaVocabulary
from sakuin.backends.transformers.load import describe as describe_by_transformers
from sakuin.errors import SakuinError

CHAT = [
    {"role": "system", "content": 'Be brief <&> "kind".'},
    {"role": "user", "content": "When does it end?\n"},
    {"role": "assistant", "content": "On 31 March — 日本."},
    {"role": "user", "content": "  And who\nsigns?"},
]

TEMPLATES = {
    "tests": CHAT_TEMPLATE,
    "tiny": TEMPLATE,
    "blocks": """\
{% for m in messages %}
  {% if m.role == 'user' %}
U: {{ m.content | trim }}
  {% endif %}
{% endfor %}
end""",
    "tokens": "{{ bos_token }}{{ messages[0]['content'] }}{{ eos_token }}{{ unk_token }}|{{ nothing }}",
    "loops": "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}{{ m.content }}"
    "{% if loop.index > 2 %}{% break %}{% endif %}{% endfor %}",
    "json": "{{ messages | tojson }}{{ messages[0] | tojson(indent=2) }}"
    "{{ {'b': 1, 'a': 'é'} | tojson(sort_keys=true) }}",
    "namespace": "{% set ns = namespace(n=0) %}"
    "{% for m in messages %}{% set ns.n = ns.n + m.content | length %}{% endfor %}"
    "{{ ns.n }}{{ dict(a=1).items() | list }}{{ dict.fromkeys(['x'], 2) }}",
    "generation": "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}{% endgeneration %}{% endif %}{% endfor %}",
    "absent": "{{ tools is none }}{{ documents is none }}{% if tools %}tools{% endif %}"
    "{{ enable_thinking is defined }}",
    "date": "{{ strftime_now('%Y') }}",
    "answer": "{{ messages[0].content }}{% if add_generation_prompt %}<go>{% endif %}",
    "macro": "{%- macro show(m) %}[{{ m.role }}]{% endmacro -%}"
    "{% for m in messages %}{{ show(m) }}{% endfor %}",
}


@pytest.mark.parametrize("answer", [False, True])
@pytest.mark.parametrize("name", TEMPLATES)
def test_the_text_is_that_of_transformers(name: str, answer: bool) -> None:
    tokenizer = bytes_vocabulary().tokenizer
    tokens = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    ours = Template(TEMPLATES[name], tokens).render(CHAT, answer=answer)
    theirs = tokenizer.apply_chat_template(
        CHAT, chat_template=TEMPLATES[name], tokenize=False, add_generation_prompt=answer
    )
    assert ours == theirs
    if name == "date":
        assert ours == str(datetime.now().year)


@pytest.mark.parametrize("messages", [CHAT, CHAT[1:], CHAT[1:2]])
@pytest.mark.parametrize("answer", [False, True])
def test_a_real_file_renders_as_in_transformers(messages: list[dict[str, str]], answer: bool) -> None:
    vocabulary = LlamaVocabulary.load(Header.read(catalogue.get("smollm2")))
    tokenizer = describe_by_transformers("smollm2").tokenizer
    theirs = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer)
    assert vocabulary.render(messages, answer=answer) == theirs


def test_a_template_knows_the_special_tokens_of_its_file(tmp_path: Path) -> None:
    vocabulary = LlamaVocabulary.load(Header.read(write("mistral", tmp_path).gguf))
    assert vocabulary.template is not None
    assert vocabulary.template.tokens == {"bos_token": "<s>", "eos_token": "<|im_end|>"}


# -- errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{{ raise_exception('roles must take turns') }}", "roles must take turns"),
        ("{% for m in messages %}", "Unexpected end of template"),
        ("{{ messages[0].content + 1 }}", "can only concatenate str"),
        ("{{ messages.append(1) }}", "append"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.__class__ }}{{ messages.__class__.x }}", "unsafe"),
        ("{% set ns = namespace(__init__=1) %}", "underscore|may not hold"),
        ("{% set ns = namespace() %}{% set ns._x = 1 %}", "may not hold"),
        ("{{ range(10000000) | list }}", "Range too big"),
        ("{% include 'x' %}", "no loader"),
    ],
)
def test_what_a_template_may_not_do_is_said_in_a_sentence(text: str, reason: str) -> None:
    with pytest.raises(SakuinError, match=reason) as error:
        Template(text).render(CHAT[:2], answer=True)
    assert str(error.value).startswith(
        "the model's chat template cannot be rendered with messages of system, user: "
    )


# -- descriptions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(catalogue.MODELS))
def test_a_description_is_that_of_transformers_without_the_weights(name: str) -> None:
    catalogue.get(name)
    ours, theirs = describe(name), describe_by_transformers(name)
    assert (ours.name, ours.n_weights) == (theirs.name, theirs.n_weights)
    assert {**vars(ours.shape), "family": ""} == {**vars(theirs.shape), "family": ""}
    assert ours.tokenizer is ours.vocabulary
    assert ours.vocabulary.encode("The index of a book.") == theirs.vocabulary.encode("The index of a book.")


def test_what_is_no_gguf_file_is_not_described(tmp_path: Path) -> None:
    with pytest.raises(SakuinError, match=r"is no GGUF file, which the backend llama\.cpp reads"):
        describe("some/model")
    path = tmp_path / "model.gguf"
    path.write_bytes(b"no model")
    with pytest.raises(SakuinError, match="not a GGUF file"):
        describe(path)


def test_a_vocabulary_outlives_its_description(tmp_path: Path) -> None:
    path = write("llama", tmp_path).gguf
    kept: Any = describe(path).vocabulary
    for _ in range(20):
        describe(path).vocabulary.encode("x")
    assert kept.decode(kept.encode("The index").ids) == "The index"
