"""Headers of GGUF files under fire: whatever a header says, the file works or is refused in a sentence, and
the process lives. llama.cpp ends it by an assertion where a header contradicts itself."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import headers_under_fire
import pytest
from forged import LONG
from forged_gguf import ARRAY, STRING, Parsed, Value, parsed
from tiny_gguf import write

from sakuin.backends.llama_cpp import locate
from sakuin.backends.llama_cpp.header import Header
from sakuin.errors import SakuinError
from sakuin.machine.children import environment, python

pytestmark = pytest.mark.skipif(not locate.available(), reason="there is no llama.cpp here")

CASES = 3000 if LONG else 16
ARCHITECTURES = ("llama", "gemma3", "mixtral", "gpt-oss", "falcon-h1", "jamba")
"""Of both kinds of vocabulary, dense, with windows, with experts, with recurrent layers."""


@pytest.mark.timeout(3600)  # of the long form
def test_whatever_a_header_says_the_process_lives(tmp_path: Path) -> None:
    folders = (Path(__file__).parent, Path(__file__).parents[2])
    done = subprocess.run(
        python(headers_under_fire.__file__, str(tmp_path), "0", str(CASES), *ARCHITECTURES[: 2 + 4 * LONG]),
        env=environment(*folders, GGML_NO_BACKTRACE="1", SAKUIN_LLAMA_TRIAL="off"),
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 1, "\n".join([*lines, done.stderr[-2000:]])
    assert "refused" in lines[0]
    assert "works" in lines[0]


_TOKENS, _TYPES = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"
THE = "Ġthe".encode()

Change = Callable[[Parsed], None]


def token(at: int, word: bytes) -> Change:
    return lambda file: file["tokenizer.ggml.tokens"].value.__setitem__(at, word)


def cut(key: str, n: int) -> Change:
    return lambda file: file[key].value.__delitem__(slice(n, None))


def stated(key: str, value: object, kind: int = 4) -> Change:
    return lambda file: file.set(key, Value(kind, value))


def merged(word: bytes) -> Change:
    return lambda file: file["tokenizer.ggml.merges"].value.__setitem__(5, word)


def one_more(file: Parsed) -> None:
    """A token that the embedding has no row for."""
    file[_TOKENS].value.append(b"quite new")
    file[_TYPES].value.append(1)


@pytest.mark.parametrize(
    ("architecture", "change", "reason"),
    [
        ("llama", token(300, THE), "tokens 300 and .* are both 'Ġthe'|tokens .* and 300 are both 'Ġthe'"),
        ("gemma3", token(300, b"<0x0A>"), "are both '<0x0A>'"),
        ("gemma3", token(300, b"<s>\0more"), "are both '<s>'"),  # words end at a NUL
        ("llama", cut(_TOKENS, 0), "it has no tokens"),
        ("llama", cut(_TYPES, 7), r"token_type has 7 values for 384 tokens"),
        ("gemma3", cut("tokenizer.ggml.scores", 100), r"scores has 100 values for 384 tokens"),
        ("gemma3", stated("tokenizer.ggml.scores", 1), "scores is not an array of reals"),
        (
            "llama",
            lambda file: file.set(_TYPES, Value(ARRAY, [b"1"] * 384, STRING)),
            "not an array of numbers",
        ),
        ("llama", lambda file: file.set(_TOKENS, Value(ARRAY, [1] * 384, 5)), "not an array of strings"),
        ("llama", merged(b"zzz qqq"), "the merge 'zzz qqq' is of or makes a token that it does not have"),
        ("llama", merged(b"the"), "the merge 'the'"),
        ("llama", stated("tokenizer.ggml.bos_token_id", 384), "bos_token_id is 384, and it has 384 tokens"),
        ("gemma3", stated("tokenizer.ggml.eos_token_id", 2**32 - 1), "eos_token_id is 4,294,967,295"),
        ("llama", stated("tokenizer.ggml.model", b"novel", STRING), "its kind is 'novel'"),
        ("llama", one_more, "it has 385 tokens, and the model's embedding 384"),
    ],
)
def test_a_vocabulary_that_does_not_fit_together_is_refused(
    tmp_path: Path, architecture: str, change: Change, reason: str
) -> None:
    with pytest.raises(SakuinError, match=f"vocabulary of .* does not fit together: .*({reason})"):
        Header.read(changed(tmp_path, architecture, change))


@pytest.mark.parametrize(
    ("architecture", "change", "reason"),
    [
        ("llama", stated("llama.attention.layer_norm_rms_epsilon", float("nan"), 6), "epsilon as nan"),
        ("llama", stated("llama.attention.layer_norm_rms_epsilon", -1.0, 6), r"epsilon as -1\.0"),
        ("gpt-oss", stated("gpt-oss.rope.scaling.type", b"novel", STRING), "scaling.type as 'novel'"),
        ("gemma2", stated("gemma2.attn_logit_softcapping", -1.0, 6), r"softcapping as -1\.0"),
        (
            "llama",
            stated("llama.embedding_length", 128),
            "embedding_length as 128, and token_embd.weight has 64",
        ),
        ("granitehybrid", stated("granitehybrid.ssm.inner_size", 64), "ssm.inner_size as 64, and"),
        ("gemma3", stated("gemma3.rope.freq_base", float("inf"), 6), "freq_base as inf"),
        ("llama", stated("llama.rope.freq_base", 0.0, 6), r"freq_base as 0\.0"),
        ("llama", stated("llama.rope.dimension_count", 7), "dimension_count as 7"),
        ("llama", stated("llama.rope.dimension_count", 4096), "dimension_count as 4096 for heads of 32"),
        ("mixtral", stated("llama.expert_used_count", 2**31), "2147483648 experts of 4"),
        ("mixtral", stated("llama.expert_used_count", 0), "0 experts of 4"),
        ("mixtral", stated("llama.expert_count", 3), "3 experts and holds 4"),
        ("llama", stated("llama.block_count", float("nan"), 6), "block_count as nan"),
    ],
)
def test_numbers_with_which_llama_cpp_ends_the_process_are_refused(
    tmp_path: Path, architecture: str, change: Change, reason: str
) -> None:
    with pytest.raises(SakuinError, match=f"{reason}.*damaged; fetch it again"):
        Header.read(changed(tmp_path, architecture, change))


def changed(folder: Path, architecture: str, change: Change) -> Path:
    path = write(architecture, folder).gguf
    file = parsed(path)
    change(file)
    path.write_bytes(file.bytes())
    return path


def test_a_large_vocabulary_is_compared_word_by_word_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sakuin.backends.llama_cpp import vocabulary_facts

    monkeypatch.setenv("SAKUIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(vocabulary_facts, "_LARGE", 100)
    path = write("llama", tmp_path).gguf
    Header.read(path)
    read: list[str] = []
    strings = Header.strings
    monkeypatch.setattr(Header, "strings", lambda header, key: read.append(key) or strings(header, key))
    Header.read(path)
    assert not read
    file = parsed(path)
    token(300, THE)(file)
    path.write_bytes(file.bytes())  # another file now
    with pytest.raises(SakuinError, match="are both 'Ġthe'"):
        Header.read(path)
