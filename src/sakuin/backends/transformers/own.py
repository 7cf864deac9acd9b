"""How a model attends where sakuin does not: its own implementation, by its class.

transformers gives a model that names none `"sdpa"` where its class says that it can, else `"eager"`. A model
that was told `"sakuin"` must do exactly that with every cache but a `RetrievalCache`. Most models ask
transformers' attention interface for a function by the name in their configuration; for these
`sakuin.backends.transformers.attention` and `mask` hand over what `own_implementation` says. The others
compute attention in code of their own, choose a class by the name, or do something else where the name is
their own implementation's. To these the name must not come: `resolved` gives them their own.

Called by `register`, `attention`, `mask` and `support`.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

NAMES = ("sakuin", "sakuin_hook")
"""The names under which sakuin's functions are registered with transformers."""

_INTERFACE = "ALL_ATTENTION_FUNCTIONS.get_interface("
_ATTENTION_CLASS = re.compile(r"^class \w*Attention\w*\(nn\.Module\):", re.MULTILINE)
_CLASS_BY_NAME = re.compile(r"ATTENTION_CLASSES\[")
_CAUSAL_IF_DECODER = re.compile(r"is_causal=(?:self\.)?config\.is_decoder")
_ASKS = re.compile(r"_attn_implementation (?:==|!=|(?:not )?in) (\([^)]*\)|['\"]\w+['\"])")


def own_implementation(config: Any) -> str:
    """`"sdpa"` or `"eager"`: what a model of this configuration does when nobody names an implementation."""
    return _own_of(classes_for(type(config)))


def own_function(module: nn.Module) -> Callable[..., Any]:
    """The attention function that `module`, an attention layer, would have been given without sakuin."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    found: Callable[..., Any] = sdpa_attention_forward
    if not attends_by_sdpa(module):
        found = sys.modules[type(module).__module__].eager_attention_forward
    return found


def attends_by_sdpa(module: nn.Module) -> bool:
    """Whether it would have been given sdpa's, or has no other by the name that transformers' models use."""
    name, config = type(module).__module__, getattr(module, "config", None)
    classes = _models_in(name) if config is None else classes_for(type(config))
    return _own_of(classes) == "sdpa" or not hasattr(sys.modules[name], "eager_attention_forward")


@functools.cache
def _own_of(classes: tuple[type, ...]) -> str:
    return "sdpa" if all(getattr(cls, "_supports_sdpa", False) for cls in classes) else "eager"


_known: dict[type, tuple[type, ...]] = {}


def classes_for(config_class: type) -> tuple[type, ...]:
    """The model classes that take this class of configuration: those that are loaded, else those that
    transformers' Auto classes name for it, which are loaded then."""
    if config_class not in _known:
        found = tuple(cls for cls in _loaded() if getattr(cls, "config_class", None) is config_class)
        if found := found or _named_by_auto(config_class):
            _known[config_class] = found
        return found
    return _known[config_class]


def _named_by_auto(config_class: type) -> tuple[type, ...]:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, MODEL_MAPPING

    for mapping in (MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, MODEL_MAPPING):
        if config_class in mapping:
            found = mapping[config_class]
            return tuple(cls for cls in (found if isinstance(found, tuple) else (found,)) if cls is not None)
    return ()


def _loaded() -> Iterator[type]:
    from transformers.modeling_utils import PreTrainedModel

    waiting: list[type] = [PreTrainedModel]
    while waiting:
        cls = waiting.pop()
        yield cls
        waiting += cls.__subclasses__()


@functools.cache
def _models_in(name: str) -> tuple[type, ...]:
    """The model classes that a module of code defines."""
    from transformers.modeling_utils import PreTrainedModel

    return tuple(
        value
        for value in vars(sys.modules[name]).values()
        if isinstance(value, type) and issubclass(value, PreTrainedModel) and value.__module__ == name
    )


# -- models that the name must not come to -------------------------------------------------------------------


def resolved(model: Any, requested: str | None) -> str | None:
    """The implementation to set for a model that was asked for `requested`: None, for transformers' own
    choice, where the model cannot have sakuin's."""
    return None if requested in NAMES and not attends_by_name(type(model)) else requested


def attends_by_name(cls: type) -> bool:
    """Whether models of this class ask transformers' attention interface for the function that computes their
    attention, and ask nothing else of its name.

    transformers itself looks at the source of a class to see whether an implementation can be set
    (`PreTrainedModel._can_set_attn_implementation`); so does this.
    """
    own = "sdpa" if getattr(cls, "_supports_sdpa", False) else "eager"
    return all(_takes(code, own) for code in _sources(cls.__module__))


@functools.cache
def _takes(source: str, own: str) -> bool:
    if _CLASS_BY_NAME.search(source) or (_ATTENTION_CLASS.search(source) and _INTERFACE not in source):
        return False
    return not any(
        own in asked.group(1) for part in _attention_classes(source) for asked in _ASKS.finditer(part)
    )


def sees_later_tokens(config: Any) -> bool:
    """Whether a model of this configuration is an encoder, whose tokens attend to later ones too: some
    classes can be either."""
    return not getattr(config, "is_decoder", False) and any(
        _CAUSAL_IF_DECODER.search(source)
        for cls in classes_for(type(config))
        for source in _sources(cls.__module__)
    )


def asks_for_its_own(config: Any) -> bool:
    """Whether a model of this configuration looks, outside its attention, whether the name is that of its own
    implementation: it may then count on masks that are there though causality alone would need none."""
    classes = classes_for(type(config))
    return _ask(frozenset(cls.__module__ for cls in classes), _own_of(classes))


@functools.cache
def _ask(modules: frozenset[str], own: str) -> bool:
    return any(
        own in asked.group(1)
        for name in modules
        for source in _sources(name)
        for asked in _ASKS.finditer(source)
    )


def _attention_classes(source: str) -> Iterator[str]:
    """The code of the classes of attention layers."""
    for part in re.split(r"^(?=class |def |@)", source, flags=re.MULTILINE):
        if _ATTENTION_CLASS.match(part):
            yield part


@functools.cache
def _sources(name: str) -> tuple[str, ...]:
    """The code of a module; nothing where there is none to read (a model written at a prompt)."""
    module = sys.modules.get(name)
    if module is None:
        return ()
    try:
        return (inspect.getsource(module),)
    except (OSError, TypeError):
        return ()
