"""What models read and are asked: real English with planted facts, other kinds of text, records, RULER's
samples.

`planted` has the English and the fact in it, `domains` the kinds of text, `generated` those that are made
here, `records` orders to be said as JSON, `passages` a text and what is said after it, and `ruler_samples`
what RULER's own generators make.
"""

from sakuin.evaluate.texts.planted import PlantedText, technical_english

__all__ = ["PlantedText", "technical_english"]
