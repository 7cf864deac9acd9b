"""What is said where a file needs a library that the core install does not bring."""

from __future__ import annotations

from importlib.util import find_spec

from sakuin.errors import SakuinError


def need(name: str, called: str, *modules: str) -> None:
    """Raise `SakuinError` where a module that reading the file `name` takes is not installed."""
    if any(find_spec(module) is None for module in modules):
        raise SakuinError(
            f"{name} is {called}, and reading it takes an extra: pip install 'sakuin[documents]'."
        )
