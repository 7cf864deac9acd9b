"""Does the model still say what it would with full attention? Teacher-forced continuations of texts of
several kinds and lengths, through every configuration, beside the model's own full attention.

For each text the model reads once (`sakuin.evaluate.prefilled`). Then each configuration is made to say the
same continuation, in passes of 16 positions, each of which goes through the index by itself. The next-token
distribution of every position is compared with full attention's, and the attention output of every layer and
head with exact attention at the same inputs (`sakuin.evaluate.answers.audit`).

Called by `sakuin eval fidelity`; `fidelity_rows` makes rows for tables of what is found here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sakuin.backends.open import backend_of
from sakuin.config import RetrievalConfig
from sakuin.errors import SakuinError
from sakuin.evaluate.answers.audit import Audit
from sakuin.evaluate.configurations import FULL, Configuration
from sakuin.evaluate.configurations import configuration as named
from sakuin.evaluate.prefilled import Prefilled, check_offloaded, touched_share
from sakuin.evaluate.results import Results
from sakuin.evaluate.texts.passages import Passage, Stop
from sakuin.version import __version__

Say = Callable[[str], None]


@dataclass(frozen=True)
class Unit:
    """What one configuration did with one passage at one length. Lists go over the positions.

    kl : of the next-token distribution, full attention's against this one, in nats. same : whether the
        likeliest token is the same. nll, full_nll : of the text's own next token (one less than positions).
    retrieved : which tokens of the continuation are known from something far back alone; each is predicted
        at the position before it.
    errors : relative L2 error of the attention output, by layer and query head, mean over the positions.
    worst_error : the largest mean over a layer's query heads at one position.
    layers : the layers' numbers. touched_share, touched_bytes, coverage, exact, codes : as
        `RetrievalCache.stats` says, for one position over all layers.
    settings : what was set where the configuration was turned to a share.
    """

    passage: str
    length: int
    configuration: str
    kl: list[float]
    same: list[bool]
    nll: list[float]
    full_nll: list[float]
    right: list[bool]
    full_right: list[bool]
    retrieved: list[int]
    layers: list[int]
    errors: list[list[float]]
    worst_error: float
    touched_share: float
    touched_bytes: float
    coverage: float
    exact: float
    codes: float
    settings: dict[str, Any]


def key(passage: Passage, length: int, configuration: Configuration) -> str:
    """Under which a unit is kept. It holds the passage's tokens and the settings: others of the same name are
    others."""
    return f"{passage.name} {_digest(passage)} {length} {configuration.key}"


def about(model: str, dtype: str) -> dict[str, Any]:
    """What says that results belong together; texts and configurations may be added later. A further length
    plants a further fact, which makes another text.
    """
    return {"evaluation": "fidelity", "model": model, "dtype": dtype, "sakuin": __version__}


def _digest(passage: Passage) -> str:
    whole = (passage.ids, *(stop.continuation for stop in passage.stops))
    return hashlib.sha256(repr(whole).encode()).hexdigest()[:16]


def check_window(model: Any, passages: Iterable[Passage]) -> None:
    """Raise a `SakuinError` where a passage is longer than the model's window."""
    most = backend_of(model).shape.window
    for passage in passages:
        for stop in passage.stops:
            whole = stop.length + len(stop.continuation)
            if most is not None and whole > most:
                raise SakuinError(
                    f"a length of {stop.length:,} and {len(stop.continuation)} tokens after it are more than "
                    f"the {most:,} that this model reads; take at most {most - len(stop.continuation):,}."
                )


def run(
    model: Any,
    passages: Sequence[Passage],
    configurations: Sequence[Configuration],
    results: Results,
    say: Say = lambda _: None,
) -> Iterator[Unit]:
    """Measure what `results` does not hold yet; all units, in order of passage, length and configuration.

    Configurations at the share of another (`@balanced`) come after it. say : is told what is being done.
    """
    check_window(model, passages)
    with backend_of(model).steady():
        yield from _units(model, passages, configurations, results, say)


def _units(
    model: Any,
    passages: Sequence[Passage],
    configurations: Sequence[Configuration],
    results: Results,
    say: Say,
) -> Iterator[Unit]:
    wanted = [c for c in configurations if c.name != FULL]
    for passage in passages:
        missing = [
            stop for stop in passage.stops if any(key(passage, stop.length, c) not in results for c in wanted)
        ]
        prefilled = Prefilled.read(model, ())
        for stop in passage.stops:
            if stop in missing:
                prefilled = _measure(prefilled, passage, stop, wanted, results, say)
            for c in wanted:
                yield Unit(**results[key(passage, stop.length, c)])


def _measure(
    prefilled: Prefilled,
    passage: Passage,
    stop: Stop,
    configurations: Sequence[Configuration],
    results: Results,
    tell: Say,
) -> Prefilled:
    """All configurations at one stop; what was read up to there."""

    def say(text: str) -> None:
        tell(f"{passage.name}, {stop.length:,} tokens: {text}")

    say("reading")
    ids_before = passage.context(stop)[len(prefilled.ids) :]
    prefilled = prefilled.extend(ids_before, lambda done: say(f"reading, {done:,} done"))
    say(FULL)
    ids = torch.tensor(stop.continuation)
    truth = prefilled.log_probabilities(prefilled.full_cache(), stop.continuation)
    # Those that build the same segments after each other, so that they are built once.
    for configuration in sorted(configurations, key=lambda c: (c.like is not None, c.kind)):
        name = key(passage, stop.length, configuration)
        if name in results:
            continue
        say(configuration.name)
        like = key(passage, stop.length, named(configuration.like)) if configuration.like else ""
        share = results[like]["touched_share"] if like in results else None
        cache = prefilled.cache(configuration, stop.continuation, share)
        retrieval = prefilled.retrieval(cache)
        check_offloaded(retrieval, stop.length)
        config = retrieval.config
        exact = prefilled.exact_cache(RetrievalConfig(index="flat", sink=config.sink, recent=config.recent))
        audit = Audit(prefilled.retrieval(exact))
        with audit.of(prefilled.backend):
            found = prefilled.log_probabilities(cache, stop.continuation)
        errors, stats = audit.errors(), retrieval.stats()
        unit = {
            "passage": passage.name,
            "length": stop.length,
            "configuration": configuration.name,
            **_compared(truth, found, ids),
            "retrieved": list(stop.retrieved),
            "layers": audit.layers,
            "errors": [[_short(e) for e in layer] for layer in errors.mean(2).tolist()],
            "worst_error": _short(errors.mean(1).max().item()),
            "touched_share": touched_share(retrieval),
            "touched_bytes": stats["touched_bytes"],
            **{what: stats[what] for what in ("coverage", "exact", "codes")},
            "settings": _settings(configuration, config),
        }
        results.add(name, unit)
    return prefilled


def _compared(truth: Tensor, found: Tensor, ids: Tensor) -> dict[str, Any]:
    kl = [float((t.exp() * (t - f)).sum()) for t, f in zip(truth, found, strict=True)]
    following = ids[1:]
    nll, full_nll = (-x[:-1].gather(1, following[:, None])[:, 0] for x in (found, truth))
    likeliest, full_likeliest = found.argmax(-1), truth.argmax(-1)
    return {
        "kl": [_short(max(x, 0.0)) for x in kl],
        "same": (likeliest == full_likeliest).tolist(),
        "nll": [_short(x) for x in nll.tolist()],
        "full_nll": [_short(x) for x in full_nll.tolist()],
        "right": (likeliest[:-1] == following).tolist(),
        "full_right": (full_likeliest[:-1] == following).tolist(),
    }


def _settings(configuration: Configuration, config: RetrievalConfig) -> dict[str, Any]:
    """What of the settings differs from the configuration's own."""
    assert configuration.config is not None
    before = vars(configuration.config)
    return {name: value for name, value in vars(config).items() if value != before[name]}


def _short(x: float) -> float:
    """Six digits, which is what fp32 carries."""
    return float(f"{x:.6g}")
