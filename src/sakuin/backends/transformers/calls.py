"""Where a model's call begins and ends, for the cache that it is given.

transformers tells a cache neither. The first pass of a model finds the model on the stack and sets two hooks
of torch on it; from the next call on the cache is told when it begins, and when it has ended well. One that
began and did not end well has failed, wherever that was.

Called by `sakuin.backends.transformers.passes`.
"""

from __future__ import annotations

import sys
import weakref
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

import torch

_CALL = torch.nn.Module._call_impl.__code__
_watched: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()


class ToldOfCalls:
    """A cache that is told of the calls of models that are given it."""

    @abstractmethod
    def call_begins(self, model: torch.nn.Module) -> None:
        """The model is called with this cache."""

    @abstractmethod
    def call_ended(self, model: torch.nn.Module, well: bool) -> None:
        """The call that began last has returned; or it has failed, which is not told of interrupts."""


def watch_caller(cache: ToldOfCalls) -> None:
    """Have `cache`, and any other, told of the calls of the model that is running now, from the next on."""
    model = _caller(cache)
    if model is not None and model not in _watched:
        _watched.add(model)
        model.register_forward_pre_hook(_begins, with_kwargs=True)
        model.register_forward_hook(_ended, with_kwargs=True, always_call=True)


def is_called_in(thread: int, cache: ToldOfCalls) -> bool:
    """Whether another thread, by its number, is inside a model that was given the cache."""
    frame = sys._current_frames().get(thread)
    return frame is not None and _caller(cache, frame) is not None


def _caller(cache: ToldOfCalls, frame: FrameType | None = None) -> torch.nn.Module | None:
    """The outermost model of transformers that was given the cache, on this thread's stack or from `frame`
    on."""
    from transformers import PreTrainedModel

    found: torch.nn.Module | None = None
    frame = frame or sys._getframe(1)
    while frame is not None:
        if frame.f_code is _CALL:
            held = frame.f_locals
            given = _caches(held.get("args", ()), held.get("kwargs", {}))
            if isinstance(held.get("self"), PreTrainedModel) and any(each is cache for each in given):
                found = held["self"]
        frame = frame.f_back
    return found


def _caches(given: Sequence[Any], named: Mapping[str, Any]) -> Iterator[ToldOfCalls]:
    for each in (*given, *named.values()):
        if isinstance(each, ToldOfCalls):
            yield each


def _begins(model: torch.nn.Module, given: Any, named: Any) -> None:
    for cache in _caches(given, named):
        cache.call_begins(model)


def _ended(model: torch.nn.Module, given: Any, named: Any, output: Any) -> None:
    for cache in _caches(given, named):
        cache.call_ended(model, well=output is not None)
