"""Two small real vocabularies, each as a tokenizer of transformers and as the metadata of a GGUF file, so
that text works from end to end with both backends.

`bytes_vocabulary` is a byte-level BPE as of GPT-2, `pieces_vocabulary` one of SentencePiece's kind as of
Llama 2 and Gemma, with bytes for what it has no piece for. Both are trained on the text below and are the
same each time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from gguf import TokenType
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

SIZE = 384
"""Words of each vocabulary."""

TEXT = """\
The index of a book is read before the book is. You do not open every page of a long report to answer one
question: you look the word up, and the index says where it stands. A library does the same with its shelves,
a court with its files, and a language model can do the same with the tokens that it has read. The keys of the
old tokens are the words of such an index, and the query of the new token is the question.
In the first year the company paid 1,250 for the house and 300 for the land; in the second year it paid 1,400
and 320. The tenant shall return the keys on the day that the contract ends, unless both parties agree in
writing on another day. The contract ends on 31 March 2031. What is not written in the contract is not agreed.
def search(keys, query, count):
    scores = [sum(k * q for k, q in zip(key, query)) for key in keys]
    return sorted(range(len(keys)), key=lambda i: -scores[i])[:count]
"""

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_CHAT = ["<|im_start|>", "<|im_end|>"]


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer, and the same in GGUF's terms."""

    tokenizer: PreTrainedTokenizerFast
    model: str
    tokens: list[str]
    types: list[TokenType]
    scores: list[float] | None = None
    merges: list[str] | None = None
    space_prefix: bool = False
    adds_bos: bool = False

    def write(self, writer: Any, splits: str = "") -> None:
        """Put the vocabulary into the metadata of `writer` (a `GGUFWriter`). splits : llama.cpp's name of how
        texts are split into words; that of the tokenizer where it is empty."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(splits or ("gpt-2" if self.model == "gpt2" else "default"))
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.scores is not None:
            writer.add_token_scores(self.scores)
        if self.merges is not None:
            writer.add_token_merges(self.merges)
        writer.add_bos_token_id(self.tokenizer.bos_token_id)
        writer.add_eos_token_id(self.tokenizer.eos_token_id)
        writer.add_add_bos_token(self.adds_bos)
        writer.add_add_eos_token(False)
        writer.add_add_space_prefix(self.space_prefix)
        writer.add_chat_template(TEMPLATE)


@cache
def bytes_vocabulary() -> Vocabulary:
    """Byte-level BPE: `<|endoftext|>` is token 0, the words of the chat template are 1 and 2."""
    special = ["<|endoftext|>", *_CHAT]
    backend = Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator([TEXT], _trainer(SIZE, special, sorted(pre_tokenizers.ByteLevel.alphabet())))
    tokenizer = _fast(backend, "<|endoftext|>", special)
    tokens = _in_order(backend.get_vocab())
    types = [TokenType.CONTROL if token in special else TokenType.NORMAL for token in tokens]
    return Vocabulary(tokenizer, "gpt2", tokens, types, merges=_merges(backend))


@cache
def pieces_vocabulary(space_prefix: bool) -> Vocabulary:
    """Pieces with scores: `<unk>`, `<s>`, `</s>`, the template's words, 256 bytes, characters, pieces.

    `space_prefix`: whether a space goes before a text (Llama 2) or not (Gemma). A text begins with `<s>`.
    """
    special = ["<unk>", "<s>", "</s>", *_CHAT]
    fixed = [*special, *(f"<0x{byte:02X}>" for byte in range(256))]
    trained = Tokenizer(BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    trained.train_from_iterator([TEXT.replace("\n", " ")], _trainer(SIZE - len(fixed), [], []))
    pieces = _in_order(trained.get_vocab())
    tokens = [*fixed, *pieces]
    ids = {token: i for i, token in enumerate(tokens)}
    backend = Tokenizer(BPE(ids, _splits(pieces), unk_token="<unk>", byte_fallback=True, fuse_unk=False))
    prefix = [normalizers.Prepend("▁")] if space_prefix else []
    backend.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", "▁")])
    undo = [decoders.Strip(" ", 1, 0)] if space_prefix else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *undo]
    )
    backend.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", ids["<s>"])])
    tokenizer = _fast(backend, "<s>", special)
    kinds = {"<unk>": TokenType.UNKNOWN, **dict.fromkeys(special[1:], TokenType.CONTROL)}
    types = [kinds.get(t, TokenType.BYTE if t in fixed else TokenType.NORMAL) for t in tokens]
    scores = [0.0] * len(fixed) + [-float(rank) for rank in range(len(pieces))]
    return Vocabulary(
        tokenizer, "llama", tokens, types, scores=scores, space_prefix=space_prefix, adds_bos=True
    )


def _trainer(size: int, special: list[str], alphabet: list[str]) -> BpeTrainer:
    words = {"special_tokens": special, "initial_alphabet": alphabet}
    return BpeTrainer(vocab_size=size, min_frequency=1, show_progress=False, **words)


def _fast(backend: Tokenizer, bos: str, special: list[str]) -> PreTrainedTokenizerFast:
    """Wrap `backend`; a turn ends with `<|im_end|>`, as `Vocabulary.write` says too."""
    backend.add_special_tokens(special)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos, eos_token="<|im_end|>")
    tokenizer.chat_template = TEMPLATE
    assert len(tokenizer) == SIZE
    return tokenizer


def _in_order(vocabulary: dict[str, int]) -> list[str]:
    return sorted(vocabulary, key=vocabulary.__getitem__)


def _merges(backend: Tokenizer) -> list[str]:
    return [" ".join(pair) for pair in json.loads(backend.to_str())["model"]["merges"]]


def _splits(pieces: list[str]) -> list[tuple[str, str]]:
    """What SentencePiece merges: any two neighbours that make a piece, the piece of the best score first."""
    known = {piece: rank for rank, piece in enumerate(pieces)}
    return [
        (piece[:cut], piece[cut:])
        for piece in pieces
        for cut in range(1, len(piece))
        if piece[:cut] in known and piece[cut:] in known
    ]
