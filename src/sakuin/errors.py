"""The error that a user can do something about: one sentence that names the value and the remedy.

Raised where a bad file, model, setting or machine enters; the command line prints it and exits with code 2.
It is a `ValueError`, so that callers who know nothing of sakuin catch it too.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

NO_MEMORY = (
    "there is not enough memory for this part of the context; free some, or take a smaller context or model"
)
"""As native code says it too (native/python/bindings.cpp)."""

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class SakuinError(ValueError):
    """Bad input, described in one sentence for the person who gave it."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that there is no memory left, in Python's, the system's or torch's words."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # torch has no class for it; "DefaultCPUAllocator: can't allocate memory" is its own allocator's sentence.
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and "allocate memory" in str(error)
    )


def reports_memory(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """`function`, where whatever says that there is no memory left is a `MemoryError` with a sentence."""

    @wraps(function)
    def call(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        try:
            return function(*args, **kwargs)
        except (MemoryError, RuntimeError, OSError) as error:
            if is_out_of_memory(error) and str(error) != NO_MEMORY:
                raise MemoryError(NO_MEMORY) from error
            raise

    return call
