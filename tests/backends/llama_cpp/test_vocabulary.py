"""Vocabularies of GGUF files by llama.cpp: the tokens, places and texts that transformers' tokenizers of the
same files give."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_gguf import write
from tiny_vocabulary import bytes_vocabulary
from tokenizers import pre_tokenizers
from written import TENSORS, written

from sakuin.backends import catalogue
from sakuin.backends.llama_cpp import vocabulary
from sakuin.backends.llama_cpp.align import align
from sakuin.backends.llama_cpp.header import Header
from sakuin.backends.llama_cpp.vocabulary import LlamaVocabulary
from sakuin.backends.transformers.load import describe
from sakuin.backends.transformers.vocabulary import TransformersVocabulary
from sakuin.errors import SakuinError
from sakuin.prompts import cuts
from sakuin.prompts.cuts import Cuts, bounded
from sakuin.prompts.template import Prompt

NAMES = ("smollm2", "gemma3-270m", "llama", "mistral", "gemma2")
"""Two real vocabularies, of bytes and of pieces, and three tiny ones; `mistral` puts a blank before texts."""

TEXTS = (
    "The capital of France is Paris.",
    " The index\nis  read",
    "\n\nabc\n\n\n\td  e\t\tf",
    "",
    " ",
    "\n",
    "  \n  \n   x",
    "héllo wörld, Ünïcödé ÇA don't can't I'll WE'LL",
    "日本語😀x 東京は日本の首都である。",
    "a<|im_start|>b <s> c <eos> <bos>\n<start_of_turn>user",
    "e\u0301 ﬁ ½ \u00a0 \u200b \ufeff \u2028",
    "1250 12345678 3.14159 2031-03-31",
    "def f(x):\n    return x+1\n\n\nclass A:\n\tpass\r\n\r\n",
    "x" * 200,
    "العربية हिन्दी ไทย 한국어 Ελληνικά Русский עברית",
    "👩‍👩‍👧‍👦🏳️‍🌈🇩🇪",
    "<html><body>\n<h1>Hi</h1>\n</body></html>",
    "a\0b\x01\x7f",
    "[multimodal] <unused1> [@BOS@]",
)

Pair = tuple[LlamaVocabulary, TransformersVocabulary]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    made: dict[str, Pair] = {}
    folder = tmp_path_factory.mktemp("vocabularies")

    def pair(name: str) -> Pair:
        if name not in made:
            if name in catalogue.MODELS:
                path, tokenizer = catalogue.get(name), deepcopy(describe(name).tokenizer)
            else:
                tiny = write(name, folder)
                path, tokenizer = tiny.gguf, tiny.tokenizer
            if name == "smollm2":
                # Reading the GGUF file transformers loses that each digit is a word of its own.
                words = tokenizer.backend_tokenizer
                digits = pre_tokenizers.Digits(individual_digits=True)
                words.pre_tokenizer = pre_tokenizers.Sequence([digits, words.pre_tokenizer])
            made[name] = LlamaVocabulary.load(Header.read(path)), TransformersVocabulary(tokenizer)
        return made[name]

    return pair


@pytest.fixture(params=NAMES)
def pair(request: pytest.FixtureRequest, pairs: Callable[[str], Pair]) -> Pair:
    return pairs(request.param)


def _same(pair: Pair, text: str) -> None:
    ours, theirs = (each.encode(text) for each in pair)
    assert ours.ids == theirs.ids
    assert ours.starts == theirs.starts
    assert ours.ends == theirs.ends
    assert pair[0].decode(ours.ids) == pair[1].decode(theirs.ids) == text


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_and_places_are_those_of_transformers(pair: Pair, text: str) -> None:
    _same(pair, text)


def test_the_sign_for_a_blank_has_its_place_too(pair: Pair) -> None:
    ours, theirs = (each.encode("▁under▁score x") for each in pair)
    assert ours == theirs


def test_long_texts_have_the_tokens_of_transformers(pair: Pair, long_text: str) -> None:
    for start in range(0, 40_000, 10_000):
        _same(pair, long_text[start : start + 10_000])


@given(st.text(st.sampled_from("ab XY1 \n\t.,'\"<|>_-éß日😀\u0301\u200d"), max_size=60))
def test_odd_texts_have_the_tokens_of_transformers(pairs: Callable[[str], Pair], text: str) -> None:
    for name in NAMES:
        _same(pairs(name), text)


def test_without_the_rule_that_transformers_loses_only_digits_behind_blanks_differ(
    pairs: Callable[[str], Pair], long_text: str
) -> None:
    ours, theirs = pairs("smollm2")[0], TransformersVocabulary(describe("smollm2").tokenizer)
    plain = "".join(line for line in long_text.splitlines(keepends=True) if not line[:1].isspace())
    assert len(plain) > 10_000
    assert ours.encode(plain) == theirs.encode(plain)
    assert ours.encode("a  1").ids != theirs.encode("a  1").ids


def test_special_tokens_are_made_of_the_template_alone(pair: Pair) -> None:
    words = ("<|im_start|>", "<|im_end|>", "<bos>", "<end_of_turn>")
    text = "user\nHi\n".join(words)
    assert pair[0].special(text) == pair[1].special(text)
    made = [pair[0].special(word) for word in words]
    special = {ids[0] for ids in made if len(ids) == 1}
    assert special <= set(pair[0].special(text))
    assert special
    assert not special & set(pair[0].encode(text).ids)


def test_beginning_ends_and_template(pair: Pair) -> None:
    ours, theirs = pair
    assert ours.beginning == theirs.beginning
    assert ours.end_tokens >= theirs.end_tokens
    assert ours.has_template == theirs.has_template
    assert all(token not in ours.encode("The end. <eos>").ids for token in ours.end_tokens)


def test_the_ends_are_all_tokens_that_end_an_answer(pairs: Callable[[str], Pair]) -> None:
    smollm2 = pairs("smollm2")[0]
    assert set(smollm2.special("<|im_end|><|endoftext|>")) <= smollm2.end_tokens
    assert smollm2.special("<|im_start|>")[0] not in smollm2.end_tokens


def test_every_token_decodes_as_in_transformers(pair: Pair) -> None:
    ours, theirs = pair
    step = max(len(ours) // 5000, 1)
    differ = [i for i in range(0, len(ours), step) if ours.decode([i]) != theirs.decode([i])]
    assert all(ours.decode([i]) == "" for i in differ)  # special to llama.cpp alone
    assert len(differ) < 5


def test_half_a_character_decodes_to_a_sign_and_a_whole_one_to_itself(pairs: Callable[[str], Pair]) -> None:
    smollm2 = pairs("smollm2")[0]
    ids = smollm2.encode("😀").ids
    assert len(ids) > 1
    assert smollm2.decode(ids[:1]) == "�"
    assert smollm2.decode(ids) == "😀"


def test_prompts_are_the_same(pairs: Callable[[str], Pair]) -> None:
    for name in ("smollm2", "gemma3-270m", "llama"):
        ours, theirs = (Prompt.of(each) for each in pairs(name))
        assert (ours.head, ours.before, ours.after) == (theirs.head, theirs.before, theirs.after)
        assert ours.question("", "When does it end?") == theirs.question("", "When does it end?")
        assert ours.between == theirs.between


# -- errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "where"), [("ab\ud83d", 2), ("\udc00x", 0)])
def test_half_a_character_is_refused(pair: Pair, text: str, where: int) -> None:
    with pytest.raises(SakuinError, match=f"lone surrogate U\\+D.* at position {where}"):
        pair[0].encode(text)


def test_tokens_that_are_none(pair: Pair) -> None:
    for token in (-1, len(pair[0])):
        with pytest.raises(SakuinError, match=f"tokens, and {token} is none of them"):
            pair[0].decode([token])


def test_files_without_a_vocabulary(tmp_path: Path) -> None:
    with pytest.raises(SakuinError, match="cannot read the vocabulary"):
        LlamaVocabulary.load(Header.read(written(tmp_path / "a.gguf", tensors=TENSORS)))
    general = {"tokenizer.ggml.model": "none"}
    with pytest.raises(SakuinError, match="holds no vocabulary"):
        LlamaVocabulary.load(Header.read(written(tmp_path / "b.gguf", tensors=TENSORS, general=general)))


def test_a_base_model_renders_no_messages(pairs: Callable[[str], Pair]) -> None:
    with pytest.raises(SakuinError, match="has no chat template"):
        pairs("gemma3-270m")[0].render([{"role": "user", "content": "Hi"}], answer=True)


# -- long texts ----------------------------------------------------------------------------------------------


@pytest.fixture
def short_parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(vocabulary, "LONG", 0)
    monkeypatch.setattr(cuts, "_PART", 50)
    return iter(())


def _words(seed: int, n: int = 4000) -> str:
    rng = random.Random(seed)
    parts = [
        "index",
        "a",
        " ",
        "  ",
        "\n",
        "\n\n",
        " \n",
        "12",
        " 7",
        "日本",
        "é",
        ".",
        ", ",
        "_",
        "\t",
        "Key ",
        "e ",
    ]
    return "".join(rng.choice(parts) for _ in range(n))


def test_cuts_change_no_token(
    pair: Pair, long_text: str, short_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [long_text[:30_000], *(_words(seed) for seed in range(5)), "1,2,3\n4,5,6\n" * 300, "x" * 500]
    cut = [pair[0].encode(text) for text in texts]
    n_parts = [len(list(pair[0]._cuts.parts(text))) for text in texts]
    monkeypatch.setattr(vocabulary, "LONG", 1 << 60)
    assert n_parts[0] > 300
    assert all(n > 1 for n in n_parts[:6])
    assert [pair[0].encode(text) for text in texts] == cut


def test_no_cut_where_a_token_may_lie() -> None:
    free = Cuts.of([b"in", b" the", b"\n", b"of "], lines=True)
    assert free.no_blank_after == {"f"}
    assert "".join(free.parts("a b\n" * 20_000)) == "a b\n" * 20_000
    assert all(not part.endswith("of") for part in free.parts("of it " * 10_000))
    crossing = Cuts.of([b"the end", b"\nx", b"a b"], lines=True)
    assert (crossing.no_blank_after, crossing.no_line_before) == ({"e", "a"}, {"x"})
    assert len(list(crossing.parts("a b.\nx" * 10_000))) == 1
    assert len(list(Cuts.of([], lines=False).parts("1\n" * 50_000))) == 1
    assert len(list(Cuts.of([], lines=True).parts("1\n" * 50_000))) > 5


_ENDLESS = """
import sys
from sakuin.backends.llama_cpp.header import Header
from sakuin.backends.llama_cpp.vocabulary import LlamaVocabulary
vocabulary = LlamaVocabulary.load(Header.read(sys.argv[1]))
for text in ("acgt" * 25_000, " " * 90_000, "." * 90_000, "7" * 90_000, "日" * 90_000, "x\\n" * 90_000):
    assert vocabulary.decode(vocabulary.encode(text).ids) == text
print("survived")
"""


@pytest.mark.parametrize("words", ["gpt-2", "gpt-4o", "tekken", "deepseek-v3", "falcon"])
def test_words_without_end_do_not_end_the_process(tmp_path: Path, words: str) -> None:
    made = bytes_vocabulary()
    general = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": words,
        "tokenizer.ggml.tokens": made.tokens,
        "tokenizer.ggml.token_type": [int(kind) for kind in made.types],
        "tokenizer.ggml.merges": made.merges,
    }
    path = written(tmp_path / "model.gguf", general=general)
    done = subprocess.run([sys.executable, "-c", _ENDLESS, str(path)], capture_output=True, text=True)
    assert done.stdout.strip() == "survived", (done.returncode, done.stderr[-1000:])


def test_endless_words_are_cut_before_signs_where_they_have_some() -> None:
    assert list(bounded("a b " * 10_000)) == ["a b " * 10_000]
    text = "so long " + "ab+cd/" * 2_000 + " end"
    parts = list(bounded(text))
    assert "".join(parts) == text
    assert len(parts) > 2
    assert all(part[0] in "+/" for part in parts[1:])
    plain = "x" * 10_000
    assert [len(part) for part in bounded("a " + plain)] == [4002, 4000, 2000]
    assert max(map(len, bounded(" " * 9_000))) == 4000


def test_a_long_text_takes_a_time_that_grows_with_its_length(
    pairs: Callable[[str], Pair], longer_text: str
) -> None:
    text = longer_text * (1_000_000 // len(longer_text) + 1)
    made = pairs("gemma3-270m")[0].encode(text)  # a quarter of an hour where it grows with the square
    assert made.starts[-1] < made.ends[-1] == len(text)
    assert made.starts == sorted(made.starts)
    tail = len(longer_text) // 2
    assert made.ids[-20:] == pairs("gemma3-270m")[0].encode(text[-tail:]).ids[-20:]


def test_threads_share_a_vocabulary(tmp_path: Path, long_text: str) -> None:
    path = write("mistral", tmp_path).gguf
    texts = [long_text[i * 1000 : i * 1000 + 3000] for i in range(24)]
    alone = [LlamaVocabulary.load(Header.read(path)).encode(text) for text in texts]
    shared = LlamaVocabulary.load(Header.read(path))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(shared.encode, texts)) == alone


# -- texts that the tokens do not spell ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "pieces", "expected"),
    [
        ("ab cd", ["ab", " cd"], [(0, 2), (2, 5)]),
        ("ab  cd", ["ab", " cd"], [(0, 2), (4, 6)]),
        ("ab cd", [" ab", " cd"], [(0, 2), (2, 5)]),
        ("ﬁx me", ["fi", "x", " me"], [(0, 3), (3, 4), (4, 7)]),
        ("a?b", ["a", "<unk>", "b"], [(0, 1), (1, 2), (2, 3)]),
        ("AB cd", ["ab", " cd"], [(0, 2), (2, 5)]),
        ("x", ["y", "z"], [(0, 1), (0, 1)]),
        ("", [" "], [(0, 0)]),
        ("ab", ["ab", " ", "c"], [(0, 2), (2, 2), (2, 2)]),
    ],
)
def test_places_in_texts_that_were_changed(
    text: str, pieces: list[str], expected: list[tuple[int, int]]
) -> None:
    starts, ends = align(text.encode(), [piece.encode() for piece in pieces])
    assert list(zip(starts.tolist(), ends.tolist(), strict=True)) == expected


@given(st.text(st.sampled_from("ab é"), max_size=20), st.lists(st.text(st.sampled_from("ab éx"), max_size=3)))
def test_places_never_fall_and_never_lie_past_the_end(text: str, pieces: list[str]) -> None:
    raw = text.encode()
    starts, ends = align(raw, [piece.encode() for piece in pieces])
    assert starts.tolist() == sorted(starts.tolist())
    assert all(0 <= a <= b <= len(raw) for a, b in zip(starts.tolist(), ends.tolist(), strict=True))


def test_a_vocabulary_of_pieces_needs_tokens_for_bytes(tmp_path: Path) -> None:
    general: dict[str, Any] = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", "▁", "a"],
        "tokenizer.ggml.scores": [0.0] * 5,
        "tokenizer.ggml.token_type": [2, 3, 3, 1, 1],
    }
    with pytest.raises(SakuinError, match="lacks tokens for single bytes"):
        LlamaVocabulary.load(Header.read(written(tmp_path / "a.gguf", general=general)))


def test_texts_that_a_tokenizer_changes_have_places(tmp_path: Path) -> None:
    """Words are made lower case, and have no token where they are unknown."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "▁the", "▁index", "▁of", "▁a", "▁book", "s"]
    general: dict[str, Any] = {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 2, 3, 3] + [1] * 6,
        "tokenizer.ggml.unknown_token_id": 1,
    }
    found = LlamaVocabulary.load(Header.read(written(tmp_path / "a.gguf", general=general)))
    text = "the index of 日本 books"
    made = found.encode(text)
    assert [tokens[token] for token in made.ids][:3] == ["▁the", "▁index", "▁of"]
    assert [text[a:b].strip() for a, b in zip(made.starts, made.ends, strict=True)][:3] == [
        "the",
        "index",
        "of",
    ]
    assert text[made.starts[-2] : made.ends[-1]].strip() == "books"
    assert made.starts == sorted(made.starts)
    assert max(made.ends) <= len(text)
