"""A model for many who ask at once."""
