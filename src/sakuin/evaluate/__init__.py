"""Does the answer survive? Real traces and what is measured on them.

`texts` are real texts with a planted fact, `traces` what a model's layers really see over them, `scaling`
longer traces than a machine can prefill, `compare` puts indexes side by side on one, and `search` their
search alone beside other libraries'. `fidelity`, `needle` and `extraction` run whole models, in the named
`configurations`, from one reading of each text (`prefilled`); `sakuin eval` is their command. Nothing that
serves users imports this package.
"""

from sakuin.evaluate.compare import METHODS, Method, Row, compare
from sakuin.evaluate.scaling import longer
from sakuin.evaluate.search import PEERS, SEARCHERS, Searcher, SearchRow, compare_search
from sakuin.evaluate.texts import PlantedText, technical_english
from sakuin.evaluate.traces import Layer, Trace, capture

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
