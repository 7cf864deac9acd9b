"""Wrote what lies beside it, with sakuin 0.1.0 at ff72515, before the rooms were rebuilt: a snapshot and a
library that every later sakuin must read and answer alike (test_old_snapshot.py).

    model/      a random Llama of 12,000 weights and a tokenizer of bytes; fp16 in the file, loaded as fp32
    snapshot/   what `Context.save` wrote: sink, sealed segments, tail
    library/    two contexts with a common beginning
    said.json   the question, and the tokens that followed when each was asked

Run in this folder with the sakuin that shall be kept: `python write.py`. What is there is removed first.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sakuin
from sakuin import Context, Library, RetrievalConfig
from sakuin.documents import Document

HERE = Path(__file__).parent
CONFIG = RetrievalConfig(sink=4, recent=16, segment=64, kv_dtype="fp16")
TEXT = "".join(f"The {word} fox jumps over {3 * i} dogs. " for i, word in enumerate(("quick", "slow") * 5))
FIRST, SECOND = TEXT[:152], TEXT[:140] + "Another story."
QUESTION = "Who jumps?"


@contextmanager
def tokens_seen(model: Any) -> Iterator[list[int]]:
    """The tokens that pass through `model` one at a time within: those of an answer but the last."""
    seen: list[int] = []

    def note(_: Any, __: Any, given: dict[str, Any]) -> None:
        if given["input_ids"].shape[1] == 1:
            seen.append(int(given["input_ids"]))

    hook = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()


def answer_of(context: Context) -> list[int]:
    """The tokens of the context's answer to the question."""
    context.ask(QUESTION, max_new_tokens=1)  # what is measured at the first question is measured now
    with tokens_seen(context.model) as seen:
        context.ask(QUESTION, max_new_tokens=13)
    return seen


def _write_model(seed: int) -> None:
    import torch
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(BPE({word: i for i, word in enumerate(["</s>", *alphabet])}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>").save_pretrained(HERE / "model")
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=257,
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=1024,
        initializer_range=0.35,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).half().save_pretrained(HERE / "model")


def main() -> None:
    for name in ("model", "snapshot", "library"):
        shutil.rmtree(HERE / name, ignore_errors=True)
    _write_model(seed=4)
    model, tokenizer = sakuin.load("model", dtype="fp32", device="cpu")
    context = Context.from_documents(model, tokenizer, [Document("a.txt", TEXT[:170])], CONFIG)
    context.save(HERE / "snapshot")
    library = Library(HERE / "library")
    added = {
        name: library.add(name, [Document("b.txt", text)], model, tokenizer, CONFIG)
        for name, text in (("first", FIRST), ("second", SECOND))
    }
    for name in ("locks", "unfinished"):  # empty folders, which git does not keep
        shutil.rmtree(HERE / "library" / name)
    said = {"question": QUESTION, "snapshot": answer_of(context)}
    said |= {name: answer_of(one) for name, one in added.items()}
    (HERE / "said.json").write_text(json.dumps(said, indent=1) + "\n")


if __name__ == "__main__":
    main()
