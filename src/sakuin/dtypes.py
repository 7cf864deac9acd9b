"""The dtypes of weights, keys and values: one table of their names, in our words and in torch's.

torch is imported where a torch dtype is asked for, since names are read without it too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

FLOATS: dict[str, str] = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""The float dtypes: our word, and torch's."""


def torch_dtype(name: str) -> torch.dtype | None:
    """The torch dtype of a float dtype's name; None for any other word."""
    import torch

    found: torch.dtype | None = getattr(torch, FLOATS[name]) if name in FLOATS else None
    return found


def name_of(dtype: torch.dtype) -> str | None:
    """The name of a torch dtype; None where it is no float dtype that is stored."""
    return of_torch_name(str(dtype).removeprefix("torch."))


def of_torch_name(word: str) -> str | None:
    """Our name of the float dtype that torch calls so; None where it is none of ours."""
    return next((name for name, theirs in FLOATS.items() if theirs == word), None)
