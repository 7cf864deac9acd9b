"""Does the answer survive? Real traces and what is measured on them.

`texts` are real texts with a planted fact, `traces` what a model's layers really see over them, `scaling`
longer traces than a machine can prefill. Nothing that serves users imports this package.
"""

from sakuin.evaluate.scaling import longer
from sakuin.evaluate.texts import PlantedText, technical_english
from sakuin.evaluate.traces import Layer, Trace, capture

__all__ = ["Layer", "PlantedText", "Trace", "capture", "longer", "technical_english"]
