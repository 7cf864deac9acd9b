"""Which model, tokenizer and template a context was computed with, in hashes: keys and values mean nothing to
any other.

The weights' hash reads all of them at the speed of memory: sums of 64 KB blocks, which are then hashed. It
tells models apart; it is no seal against somebody who forges weights.
"""

from __future__ import annotations

import hashlib
import json
import threading
import weakref
from typing import Any

import torch
from torch import Tensor

from sakuin.backends.fingerprint import Fingerprint
from sakuin.errors import SakuinError

_BLOCK = 1 << 16
_VOLATILE = frozenset(
    {"_name_or_path", "_model_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version"}
    | {"use_cache", "return_dict", "output_attentions", "output_hidden_states", "quantization_config"}
)
"""What a configuration says of where it came from and how it is used, not of what the model computes."""


_lock = threading.Lock()
_models: weakref.WeakKeyDictionary[Any, tuple[Any, str]] = weakref.WeakKeyDictionary()
_tokenizers: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


def fingerprint(model: Any, tokenizer: Any) -> Fingerprint:
    """The fingerprint of `model` and `tokenizer`; the first call for each reads all of it."""
    text = model.config.get_text_config(decoder=True)
    settings = {key: value for key, value in _plain(model.config.to_dict()).items() if key not in _VOLATILE}
    template = getattr(tokenizer, "chat_template", None) or ""
    with _lock:
        return Fingerprint(
            dtype=str(model.dtype).removeprefix("torch."),
            config=_hash(settings),
            rope=json.dumps(_plain(getattr(text, "rope_parameters", None) or {}), sort_keys=True),
            weights=_weights(model),
            tokenizer=_tokenizer(tokenizer),
            template=_hash(template),
        )


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


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


def _weights(model: Any) -> str:
    held = {name: x for name, x in model.state_dict(keep_vars=True).items() if isinstance(x, Tensor)}
    state = tuple((name, x.data_ptr(), x._version) for name, x in held.items())
    known = _models.get(model)
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
