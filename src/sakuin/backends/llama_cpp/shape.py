"""The shape of a model, from the header of its GGUF file, and how its keys lie in memory.

Which layers attend to a window is partly stated in the file and partly fixed in llama.cpp's code for an
architecture; the tables here follow that code (src/models/*.cpp of the versions in
`sakuin.backends.llama_cpp.layouts`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sakuin.backends.llama_cpp.header import Header
from sakuin.backends.shape import LayerKind, ModelShape
from sakuin.errors import SakuinError
from sakuin.index.checks import check_geometry


@dataclass(frozen=True)
class _Windows:
    """How an architecture's sliding layers are told.

    period : every so many layers one attends to all, unless the file says otherwise; 0: the file must say
        which. dense_first : it is the first of them, else the last. window : where the file states none.
    always : the layers slide though the file states no window. fixed : the window, whatever the file states.
    only : the one number of layers with which a model of this architecture has windows.
    """

    period: int = 0
    dense_first: bool = False
    window: int = 0
    always: bool = False
    fixed: int = 0
    only: int = 0


_WINDOWS = {
    "gemma2": _Windows(2, window=4096, always=True),
    "gemma3": _Windows(6),
    "gemma3n": _Windows(5),
    "gemma4": _Windows(),
    "cohere2": _Windows(4),
    "cohere2moe": _Windows(4, dense_first=True),
    "llama4": _Windows(4, window=8192, always=True, fixed=8192),
    "exaone4": _Windows(4, window=4096, always=True, only=64),
    "exaone-moe": _Windows(4, window=128, always=True),
    "olmo2": _Windows(4),
    "plamo3": _Windows(8),
    "gpt-oss": _Windows(2),
    "smallthinker": _Windows(4, dense_first=True, fixed=4096),
    "laguna": _Windows(4, dense_first=True),
    "mellum": _Windows(4),
    "afmoe": _Windows(4),
    "muse-glimmer": _Windows(4),
    "granite_swa": _Windows(),
    "maple": _Windows(),
    "mimo2": _Windows(),
    "step35": _Windows(),
    "spark2_5": _Windows(),
}
"""Others have no sliding layers in llama.cpp, even where the file states a window."""

_INTERVALS = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4, "minimax-01": 8}
"""Of hybrids: every so many layers one attends, unless the file says otherwise."""
_MIXED = frozenset({"falcon-h1"})
"""Every layer attends and is recurrent."""
_RECURRENT_WITHOUT_HEADS = frozenset({"jamba", "plamo2", "granitehybrid", "lfm2", "lfm2moe"})
_RECURRENT_WITHOUT_HEADS_OR_WIDTH = frozenset({"nemotron_h", "nemotron_h_moe"})

_PERMUTED = frozenset(
    {"llama", "mistral3", "granite", "granitemoe", "granitehybrid", "granite_swa", "smollm3", "arcee", "deci"}
    | {"minicpm", "internlm2", "olmo", "deepseek", "bailingmoe", "baichuan", "xverse", "arctic", "chameleon"}
    | {"muse-glimmer", "nanbeige"}
)
"""Architectures whose files have the rows of query and key weights in another order than transformers."""

_TABLES = ("rope_freqs", "rope_factors", "exp_probs_b")


def shape_of(header: Header) -> ModelShape:
    """The shape of the model in a file. Raises `SakuinError` where its layers with an index have different
    heads, or such that no index takes them, or where the file does not say what it must."""
    kinds = layer_kinds(header)
    n_layers = len(kinds)
    heads = header.per_layer(header.own("attention.head_count"), n_layers)
    stated = header.own("attention.head_count_kv")
    kv_heads = header.per_layer(stated, n_layers) if stated in header.values else heads
    n_heads, n_kv_heads = _of_full(header, kinds, heads, kv_heads)
    hidden = header.number(header.own("embedding_length"))
    window = _stated_window(header)
    head_dim, value_dim = _head_dim(header), _head_dim(header, "value")
    if "full" in kinds:
        _check_heads(header, n_kv_heads, head_dim, n_heads // n_kv_heads, value_dim)
    return ModelShape(
        layers=tuple(kinds),
        n_query_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        value_dim=value_dim,
        sliding_window=_window(header) if "sliding" in kinds else 0,
        window=window,
        trained_window=_trained_window(header, window),
        hidden=hidden,
        intermediate=_intermediate(header) or 4 * hidden,
        vocabulary=_vocabulary(header),
        family=header.architecture,
        mixed=header.architecture in _MIXED,
    )


def layer_kinds(header: Header) -> list[LayerKind]:
    """What each layer keeps of the past, as llama.cpp runs the model; layers that only predict further tokens
    (MTP) are left out."""
    own = header.own
    loops = header.number(own("num_loops"), 1) if header.architecture == "nanbeige" else 1
    n_layers = header.number(own("block_count")) - header.number(own("nextn_predict_layers"))
    if n_layers <= 0:
        raise SakuinError(f"{header.path} has no layers of its own (MTP alone); name the model's own file.")
    recurrent = _recurrent(header, n_layers)
    sliding = _sliding(header, n_layers)
    stated = own("attention.head_count_kv")
    kv_heads = header.per_layer(stated if stated in header.values else own("attention.head_count"), n_layers)
    kinds: list[LayerKind] = []
    for layer in range(n_layers):
        if recurrent[layer]:
            kinds.append("recurrent")
        elif not kv_heads[layer] or layer >= _with_own_keys(header, n_layers):
            kinds.append("none")
        else:
            kinds.append("sliding" if sliding[layer] else "full")
    return kinds * max(loops, 1)


def permuted(header: Header) -> bool:
    """Whether queries and keys have another order than in transformers: llama.cpp turns the pairs
    (2i, 2i + 1), transformers (i, i + head_dim / 2).

    Where it is False both have the same order: most architectures turn halves in both, some turn neighbours
    in both (Cohere, GLM-4, ERNIE 4.5, Llama 4).
    """
    return header.architecture in _PERMUTED


def rotary_dim(header: Header) -> int:
    """Numbers of a key that rotary embeddings turn in the layers with an index: the first of them."""
    turned = header.number(header.own("rope.dimension_count"), _head_dim(header))
    return turned // 2 if header.architecture == "step35" else turned


def shares_keys(header: Header) -> bool:
    """Whether layers attend with the keys and values of others."""
    n_layers = header.number(header.own("block_count"))
    return _with_own_keys(header, n_layers) < n_layers


def rope_limit(header: Header) -> int | None:
    """Tokens of a context (llama.cpp's `n_ctx`) above which the model's rotary embeddings take other
    frequencies (LongRoPE), which makes cached keys wrong; None where there is no such length."""
    if not any(name.endswith("rope_factors_long.weight") for name in header.by_name):
        return None
    window = header.number(header.own("context_length"))
    return header.number(header.own("rope.scaling.original_context_length"), window)


def count_weights(header: Header) -> int:
    """Parameters, without tables that belong to positions and what balances experts."""
    counted = (t for t in header.tensors if not any(table in t.name for table in _TABLES))
    return sum(tensor.n_elements for tensor in counted)


# -- parts ---------------------------------------------------------------------------------------------------


def _check_heads(header: Header, n_kv_heads: int, head_dim: int, group: int, value_dim: int) -> None:
    try:
        check_geometry(n_kv_heads, head_dim, group, value_dim)
    except ValueError as error:
        raise SakuinError(f"sakuin cannot use {header.path} ({header.architecture}): {error}.") from None


def _head_dim(header: Header, of: str = "key") -> int:
    """Numbers of a key or value of the layers with an index."""
    heads = header.values.get(header.own("attention.head_count"), 1)
    first = heads[0] if isinstance(heads, tuple) and heads else heads
    width = header.number(header.own("embedding_length"))
    default = width // max(int(first) if isinstance(first, int) else 1, 1)
    return header.number(header.own(f"attention.{of}_length"), default)


def _of_full(
    header: Header, kinds: Sequence[LayerKind], heads: list[int], kv_heads: list[int]
) -> tuple[int, int]:
    of = [i for i, kind in enumerate(kinds) if kind == "full"] or [
        i for i, kind in enumerate(kinds) if kind == "sliding"
    ]
    found = sorted({(heads[i], kv_heads[i]) for i in of} or {(max(heads), max(kv_heads))})
    if len(found) > 1:
        words = ", ".join(f"{n} on {kv}" for n, kv in found)
        raise SakuinError(
            f"sakuin cannot use {header.path} ({header.architecture}): its layers have different heads "
            f"(query on KV heads: {words})."
        )
    n, kv = found[0]
    if not kv or n % kv:
        raise SakuinError(
            f"{header.path} states {n} query heads on {kv} KV heads, which do not fit; it is damaged, fetch "
            "it again."
        )
    return n, kv


def _recurrent(header: Header, n_layers: int) -> list[bool]:
    own, architecture = header.own, header.architecture
    if architecture in _INTERVALS:
        if own("attention.recurrent_layers") in header.values:
            return [bool(each) for each in header.per_layer(own("attention.recurrent_layers"), n_layers)]
        interval = header.number(own("full_attention_interval"), _INTERVALS[architecture])
        return [bool((layer + 1) % max(interval, 1)) for layer in range(n_layers)]
    without = [not n for n in header.per_layer(own("attention.head_count_kv"), n_layers, 1)]
    if architecture in _RECURRENT_WITHOUT_HEADS:
        return without
    if architecture in _RECURRENT_WITHOUT_HEADS_OR_WIDTH:
        widths = header.per_layer(own("feed_forward_length"), n_layers)
        return [bare and not width for bare, width in zip(without, widths, strict=True)]
    return [False] * n_layers


def _sliding(header: Header, n_layers: int) -> list[bool]:
    if header.architecture == "lfm2":  # all of them
        return [_window(header) > 0] * n_layers
    windows = _WINDOWS.get(header.architecture)
    if windows is None or (windows.only and windows.only != n_layers) or not _window(header):
        return [False] * n_layers
    key = header.own("attention.sliding_window_pattern")
    pattern = header.values.get(key, windows.period)
    if isinstance(pattern, tuple):
        return [bool(each) for each in header.per_layer(key, n_layers)]
    if not windows.period:
        raise SakuinError(
            f"{header.path} does not say which layers have a sliding window ({key}); get a newer file of the "
            "model."
        )
    period = int(pattern)
    if not period:
        return [True] * n_layers
    full = 0 if windows.dense_first else period - 1
    return [layer % period != full for layer in range(n_layers)]


def _window(header: Header) -> int:
    """Tokens that a sliding layer sees; 0 where the file switches windows off or the model has none."""
    windows = _WINDOWS.get(header.architecture, _Windows())
    key = header.own("attention.sliding_window")
    stated = header.number(key, windows.window if windows.always else 0)
    return windows.fixed if windows.fixed and stated else stated


def _with_own_keys(header: Header, n_layers: int) -> int:
    """How many first layers keep keys; those after them attend to the keys of others."""
    if header.architecture == "gemma3n":
        return min(20, n_layers)
    if header.architecture == "gemma4":
        return n_layers - header.number(header.own("attention.shared_kv_layers"))
    return n_layers


def _stated_window(header: Header) -> int | None:
    """Tokens that the model was made for. Some files state more than their scaled positions reach: these
    count then, so that a longer document is refused instead of read badly."""
    own = header.own
    stated = header.number(own("context_length"))
    reach = header.number(own("rope.scaling.original_context_length")) * header.real(
        own("rope.scaling.factor")
    )
    if header.text(own("rope.scaling.type")) in ("yarn", "linear") and reach:
        return min(stated, round(reach)) or None
    return stated or None


def _trained_window(header: Header, window: int | None) -> int | None:
    original = header.number(header.own("rope.scaling.original_context_length"))
    scaled = header.text(header.own("rope.scaling.type")) in ("yarn", "longrope", "linear")
    if original and (scaled or rope_limit(header)):
        return original
    return window


def _intermediate(header: Header) -> int:
    names = ("feed_forward_length", "expert_feed_forward_length")
    return next((n for name in names if (n := header.number(header.own(name)))), 0)


def _vocabulary(header: Header) -> int:
    embedded = header.by_name.get("token_embd.weight")
    if embedded is not None and len(embedded.shape) == 2:
        return embedded.shape[1]
    return header.lengths.get("tokenizer.ggml.tokens", header.number(header.own("vocab_size")))
