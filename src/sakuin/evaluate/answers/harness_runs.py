"""Tasks of lm-eval in several configurations, put side by side. Called by `sakuin eval harness`."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from sakuin.backends.open import backend_of
from sakuin.errors import SakuinError
from sakuin.evaluate.answers.harness_model import TASKS, SakuinLM, check_configuration
from sakuin.evaluate.configurations import FULL, Configuration, with_full
from sakuin.evaluate.paired import Difference, difference
from sakuin.evaluate.results import Results
from sakuin.version import __version__


@dataclass(frozen=True)
class Metric:
    """A metric of a task in one configuration, and with full attention.

    difference : the mean over documents less full attention's, where the metric is a mean of what documents
        score; None for others, such as perplexities.
    """

    task: str
    metric: str
    configuration: str
    documents: int
    value: float
    full: float
    difference: Difference | None


def about(model: Any, name: str) -> dict[str, Any]:
    """What must be the same for responses to belong together; tasks, documents and configurations may be
    added later."""
    return {
        "evaluation": "harness",
        "model": name,
        "dtype": str(model.dtype).removeprefix("torch."),
        "window": backend_of(model).shape.window,
        "sakuin": __version__,
        "lm-eval": version("lm-eval"),
    }


def found(names: Sequence[str], metadata: dict[str, Any]) -> dict[str, Any]:
    """lm-eval's task manager and the names, as arguments for it; `SakuinError` where a task is unknown."""
    from lm_eval.tasks import TaskManager

    if not names:
        raise SakuinError("name at least one task of lm-eval, such as sakuin_facts.")
    # Ours alone come first: going through all of lm-eval's takes a while.
    for all_of_them in (False, True):
        manager = TaskManager(
            include_path=str(TASKS), include_defaults=all_of_them, metadata=dict(metadata) or None
        )
        unknown = [name for name in names if not manager.match_tasks([name])]
        if not unknown:
            return {"task_manager": manager, "tasks": list(names)}
    raise SakuinError(
        f"lm-eval has no task {', '.join(map(repr, unknown))}; `python -m sakuin.evaluate.harness ls tasks` "
        "lists its tasks."
    )


def checked(configurations: Sequence[Configuration], limit: int | None) -> list[Configuration]:
    """Full attention and the configurations beside it; `SakuinError` where tasks cannot be run so."""
    if limit is not None and limit < 1:
        raise SakuinError(f"the number of documents must be at least 1, got {limit}.")
    return [check_configuration(one) for one in with_full(configurations)]


def run(
    model: Any,
    tokenizer: Any,
    configurations: Sequence[Configuration],
    chosen: dict[str, Any],
    limit: int | None = None,
    metadata: dict[str, Any] | None = None,
    results: Results | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> list[Metric]:
    """Each metric of the tasks in each configuration, full attention beside it.

    model, tokenizer : as `sakuin.load` gives them. chosen : what `found` gave.
    limit : documents of each task; None is all. results : where responses are kept as they come; what it
        holds already is not computed again.
    """
    wanted = checked(configurations, limit)
    scores = {}
    for one in wanted:

        def where(at: str, name: str = one.name) -> None:
            say(f"{', '.join(chosen['tasks'])}: {name}, {at}")

        where("making requests")
        lm = SakuinLM(model, one, tokenizer=tokenizer, results=results, say=where)
        scores[one.name] = _evaluated(lm, chosen, limit, metadata)
    return [
        metric
        for one in wanted[1:]
        for task in scores[FULL]["samples"]
        for metric in _metrics(task, one.name, scores[FULL], scores[one.name])
    ]


def _evaluated(
    model: SakuinLM, chosen: dict[str, Any], limit: int | None, metadata: dict[str, Any] | None
) -> dict[str, Any]:
    import lm_eval

    with _quiet():
        found = lm_eval.simple_evaluate(
            model, **chosen, limit=limit, metadata=metadata or None, bootstrap_iters=0, log_samples=True
        )
    assert found is not None
    return dict(found)


def _metrics(task: str, name: str, full: dict[str, Any], ours: dict[str, Any]) -> Iterator[Metric]:
    for key, value in ours["results"][task].items():
        metric, comma, chain = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        before, after = (_by_document(each["samples"][task], metric, chain) for each in (full, ours))
        pairs = [(before[doc], after[doc]) for doc in before if doc in after]
        # Of a metric that is no mean of what documents score, the documents hold parts, or other numbers.
        plain = bool(pairs) and abs(sum(b for _, b in pairs) / len(pairs) - value) < 1e-9
        yield Metric(
            task=task,
            metric=metric if chain == "none" else f"{metric} ({chain})",
            configuration=name,
            documents=len({one["doc_id"] for one in ours["samples"][task]}),
            value=float(value),
            full=float(full["results"][task][key]),
            difference=difference({task: pairs}) if plain else None,
        )


def _by_document(samples: Sequence[dict[str, Any]], metric: str, chain: str) -> dict[int, float]:
    return {
        one["doc_id"]: float(one[metric])
        for one in samples
        if one.get("filter", "none") == chain and isinstance(one.get(metric), int | float)
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without lm-eval's remarks and bars, which would run through ours."""
    import logging

    log = logging.getLogger("lm_eval")
    before, hidden = log.level, os.environ.get("TQDM_DISABLE")
    log.setLevel(logging.ERROR)
    os.environ["TQDM_DISABLE"] = "1"
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        log.setLevel(before)
        if hidden is None:
            del os.environ["TQDM_DISABLE"]
        else:
            os.environ["TQDM_DISABLE"] = hidden
