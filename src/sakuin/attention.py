"""The attention function and mask function that transformers calls under the name "sakuin"."""


def register() -> None:
    """Make the name known to transformers."""
