"""Does the answer survive? Real traces and what is measured on them, whole models and what they say.

- `texts`: what is read and asked.
- `traces`: what a model's layers see, and indexes side by side on it.
- `answers`: whole models in the named `configurations`, each text read once (`prefilled`) and every answer
  kept as it comes (`results`). `sakuin eval` is their command.
- `harness`: lm-eval's own command line with sakuin's model in it.

Nothing that serves users imports this package.
"""

from sakuin.evaluate.texts.planted import PlantedText, technical_english
from sakuin.evaluate.traces.capture import capture
from sakuin.evaluate.traces.compare import METHODS, Method, Row, compare
from sakuin.evaluate.traces.scaling import longer
from sakuin.evaluate.traces.search import PEERS, SEARCHERS, Searcher, SearchRow, compare_search
from sakuin.evaluate.traces.trace import Layer, Trace

__all__ = [
    "METHODS",
    "PEERS",
    "SEARCHERS",
    "Layer",
    "Method",
    "PlantedText",
    "Row",
    "SearchRow",
    "Searcher",
    "Trace",
    "capture",
    "compare",
    "compare_search",
    "longer",
    "technical_english",
]
