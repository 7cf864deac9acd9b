"""The tokens of a sequence over the layers of a model. Knows indexes, and no model library."""
