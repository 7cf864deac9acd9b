"""Which model, tokenizer and template a context was computed with, in hashes: keys and values mean nothing to
any other.

A model that was loaded from a GGUF file and is as it was loaded has the file's marks, by which other backends
know it too (`sakuin.backends.gguf_fingerprint`). Any other is known by its weights in memory. Their hash
reads all of them at the speed of memory: sums of 64 KB blocks, which are then hashed. It tells models apart;
it is no seal against somebody who forges weights. Called by `sakuin.backends.transformers.backend` and
`load`.
"""

from __future__ import annotations

import hashlib
import json
import weakref
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sakuin.backends.fingerprint import Fingerprint, hash_of
from sakuin.backends.gguf_fingerprint import GgufFile, Rope
from sakuin.errors import SakuinError
from sakuin.machine.forks import lock

_BLOCK = 1 << 16
_SAMPLE = 16
_VOLATILE = frozenset(
    {"_name_or_path", "_model_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version"}
    | {"use_cache", "return_dict", "output_attentions", "output_hidden_states", "quantization_config"}
)
"""What a configuration says of where it came from and how it is used, not of what the model computes."""


@dataclass(frozen=True)
class _Origin:
    """The GGUF file that a model was loaded from, and the model then: its configuration's hash, its weights'
    places and some of their numbers."""

    file: GgufFile
    config: str
    state: tuple[Any, ...]
    sample: bytes


_lock = lock()
_models: weakref.WeakKeyDictionary[Any, tuple[Any, str]] = weakref.WeakKeyDictionary()
_tokenizers: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
_origins: weakref.WeakKeyDictionary[Any, _Origin] = weakref.WeakKeyDictionary()
_words: weakref.WeakKeyDictionary[Any, tuple[int, list[str]]] = weakref.WeakKeyDictionary()


def loaded_from(model: Any, tokenizer: Any, file: GgufFile) -> None:
    """Note that both have just been loaded from `file`, all of them."""
    with _lock:
        _origins[model] = _Origin(file, _config(model), _state(model), _sample(model))
        _words[tokenizer] = _words_of(tokenizer)


def fingerprint(model: Any, tokenizer: Any) -> Fingerprint:
    """The fingerprint of `model` and `tokenizer`; the first call for each reads all of it."""
    with _lock:
        origin = _origins.get(model)
        if origin is None or origin != _Origin(origin.file, _config(model), _state(model), _sample(model)):
            return _in_memory(model, tokenizer)
        own = "" if _words.get(tokenizer) == _words_of(tokenizer) else _tokenizer(tokenizer)
        return origin.file.marks().fingerprint(_dtype(model), _rope(model), _template(tokenizer), own)


def fingerprint_in_memory(model: Any, tokenizer: Any) -> Fingerprint:
    """The fingerprint by the weights in memory, whatever they were loaded from."""
    with _lock:
        return _in_memory(model, tokenizer)


def _in_memory(model: Any, tokenizer: Any) -> Fingerprint:
    return Fingerprint(
        dtype=_dtype(model),
        config=_config(model),
        rope=json.dumps(_plain(_rope_parameters(model)), sort_keys=True),
        weights=_weights(model),
        tokenizer=_tokenizer(tokenizer),
        template=hash_of(_template(tokenizer)),
    )


def _dtype(model: Any) -> str:
    return str(model.dtype).removeprefix("torch.")


def _config(model: Any) -> str:
    return hash_of({key: x for key, x in _plain(model.config.to_dict()).items() if key not in _VOLATILE})


def _template(tokenizer: Any) -> Any:
    return getattr(tokenizer, "chat_template", None) or ""


def _words_of(tokenizer: Any) -> tuple[int, list[str]]:
    """What changes with a tokenizer's words."""
    return len(tokenizer), [str(token) for token in tokenizer.all_special_tokens]


def _rope_parameters(model: Any) -> dict[str, Any]:
    return getattr(model.config.get_text_config(decoder=True), "rope_parameters", None) or {}


def _rope(model: Any) -> Rope | str:
    """The rotary embeddings of the layers that attend to everything, as the model has them, not its file:
    transformers passes over what a file says of scaled positions. In transformers' words where there are no
    others."""
    text, said = model.config.get_text_config(decoder=True), _rope_parameters(model)
    own = said.get("full_attention", said)
    kind = own.get("rope_type", "default")
    if "rope_theta" not in own or kind not in ("default", "yarn"):
        return json.dumps(_plain(said), sort_keys=True)
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    rope = Rope(float(own["rope_theta"]), int(head_dim * own.get("partial_rotary_factor", 1.0)))
    if kind == "default":
        return rope
    original = int(own["original_max_position_embeddings"])
    return replace(rope, scaling="yarn", factor=float(own["factor"]), original=original)


def _plain(value: Any) -> Any:
    """`value` with the names of its keys as JSON has them, without private and volatile ones at any depth."""
    if isinstance(value, dict):
        return {
            str(key): _plain(inner)
            for key, inner in value.items()
            if str(key) not in _VOLATILE and not str(key).startswith("_attn_implementation")
        }
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value


def _held(model: Any) -> dict[str, Tensor]:
    return {name: x for name, x in model.state_dict(keep_vars=True).items() if isinstance(x, Tensor)}


def _state(model: Any) -> tuple[Any, ...]:
    """What changes with the weights, without reading them."""
    return tuple((name, x.data_ptr(), x._version) for name, x in _held(model).items())


@torch.no_grad()
def _sample(model: Any) -> bytes:
    """A few numbers of each weight: what is written through `.data`, as adapters are merged, leaves no other
    trace."""
    flat = [x.detach().reshape(-1) for x in _held(model).values() if not x.is_meta and x.numel()]
    few = [x[:: -(-len(x) // _SAMPLE)].float() for x in flat]
    return torch.cat(few).cpu().numpy().tobytes() if few else b""


def _weights(model: Any) -> str:
    held, state, known = _held(model), _state(model), _models.get(model)
    if known is not None and known[0] == state:
        return known[1]
    digest, seen = hashlib.sha256(), set()
    for name, x in sorted(held.items()):
        if x.is_meta:
            raise SakuinError(
                f"the model's weight {name} is not loaded (it is on the meta device), so what it computed "
                "cannot be told from another model's; load all of the model."
            )
        if (x.data_ptr(), x.shape) in seen:  # tied
            continue
        seen.add((x.data_ptr(), x.shape))
        digest.update(f"{name} {x.dtype} {list(x.shape)}\n".encode())
        _add(digest, x)
    _models[model] = (state, digest.hexdigest())
    return digest.hexdigest()


@torch.no_grad()
def _add(digest: Any, x: Tensor) -> None:
    data = x.detach().contiguous().reshape(-1).view(torch.uint8)
    if data.storage_offset() % 8:
        data = data.clone()
    whole = data.numel() // _BLOCK * _BLOCK
    if whole:
        sums = data[:whole].view(torch.int64).view(-1, _BLOCK // 8).sum(1)
        digest.update(sums.cpu().numpy().tobytes())
    digest.update(data[whole:].cpu().numpy().tobytes())


def _tokenizer(tokenizer: Any) -> str:
    if tokenizer not in _tokenizers:
        backend = tokenizer.backend_tokenizer
        if backend.truncation is not None or backend.padding is not None:  # set by calls, not by its makers
            backend = type(backend).from_str(backend.to_str())
            backend.no_truncation()
            backend.no_padding()
        digest = hashlib.sha256(backend.to_str().encode())
        digest.update(json.dumps([str(token) for token in tokenizer.all_special_tokens]).encode())
        _tokenizers[tokenizer] = digest.hexdigest()
    return _tokenizers[tokenizer]
