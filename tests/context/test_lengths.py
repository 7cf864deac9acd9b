"""A text that is far too long is refused from its beginning: it is never made into tokens as a whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_gguf import write

from sakuin import Context, RetrievalConfig, load
from sakuin.backends.llama_cpp.vocabulary import LlamaVocabulary
from sakuin.backends.transformers import vocabulary as of_transformers
from sakuin.backends.transformers.vocabulary import TransformersVocabulary
from sakuin.context.checks import reckoned
from sakuin.errors import SakuinError
from sakuin.prompts import cuts

FLAT = RetrievalConfig(index="flat", sink=4, recent=16, segment=64)
LONG = 6_000_000
SENTENCE = "The contract ends on 31 March 2031, unless both parties agree in writing on another day. "


@pytest.fixture(scope="module", params=["transformers", "llama.cpp"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    path = write("qwen2", tmp_path_factory.mktemp("long")).gguf
    return load(path, dtype="fp32", backend=request.param, threads=1)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Characters, or bytes, of each text that a tokenizer itself was given."""
    seen: list[int] = []

    def counted(usual: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Any, text: Any, *rest: Any, **named: Any) -> Any:
            seen.append(len(text))
            return usual(self, text, *rest, **named)

        return call

    for owner, name in ((TransformersVocabulary, "_call"), (LlamaVocabulary, "_tokenize")):
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
    return seen


@pytest.mark.parametrize("text", [SENTENCE, "acgt", " ", "索引", "\n"])
def test_a_document_is_refused_by_its_beginning(loaded: tuple[Any, Any], taken: list[int], text: str) -> None:
    whole = "x" + text * (LONG // len(text))
    with pytest.raises(SakuinError, match=r"the document is about [\d,]+ tokens long and this model reads"):
        Context.from_text(*loaded, whole, FLAT)
    assert sum(taken) < 1_000_000


def test_so_is_a_question_a_message_and_what_is_appended(loaded: tuple[Any, Any], taken: list[int]) -> None:
    context, whole = Context.from_text(*loaded, SENTENCE * 9, FLAT), SENTENCE * (LONG // len(SENTENCE))
    before = context.tokens
    taken.clear()
    for call, said in (
        (context.append, "the context would be about"),
        (context.ask, "document and question are about"),
        (context.chat, "document and question are about"),
        (
            lambda text: Context.from_messages(*loaded, [{"role": "user", "content": text}], FLAT),
            "document is",
        ),
    ):
        with pytest.raises(SakuinError, match=said):
            call(whole)
    assert sum(taken) < 4_000_000
    assert context.tokens == before


def test_the_tokens_are_reckoned_nearly_right(loaded: tuple[Any, Any], long_text: str) -> None:
    vocabulary = Context(*loaded).backend.vocabulary
    text = long_text[:40_000] * 20
    tokens = 20 * len(vocabulary.encode(long_text[:40_000]).ids)
    assert reckoned(vocabulary, text, 4000) == pytest.approx(tokens, rel=0.1)
    assert reckoned(vocabulary, text, len(text) // 8) is None


def test_what_is_blank_for_the_most_part_and_fits_is_read(loaded: tuple[Any, Any]) -> None:
    """A token may stand for many characters: such a text is refused by its tokens alone."""
    vocabulary = Context(*loaded).backend.vocabulary
    assert reckoned(vocabulary, "x" * 30_000, 40_000) is None
    assert reckoned(vocabulary, "x" * 30_000, 0) is not None


def test_long_texts_are_cut_and_have_the_tokens_of_the_whole(
    long_text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tiny_vocabulary import bytes_vocabulary, pieces_vocabulary

    texts = (long_text[:20_000], "1,2,3\n4,5,6\n" * 300, "x" * 500, "日本 é 7 " * 100 + "a<|im_start|>b c")
    for tokenizer in (bytes_vocabulary().tokenizer, *(pieces_vocabulary(p).tokenizer for p in (True, False))):
        vocabulary = TransformersVocabulary(tokenizer)
        monkeypatch.setattr(of_transformers, "LONG", 1 << 60)
        whole = [vocabulary.encode(text) for text in texts]
        monkeypatch.setattr(of_transformers, "LONG", 0)
        monkeypatch.setattr(cuts, "_PART", 50)
        assert len(list(vocabulary._cuts.parts(texts[0]))) > 100
        assert [vocabulary.encode(text) for text in texts] == whole
