"""Types of the native core (native/bindings.cpp and bindings_*.cpp)."""

from collections.abc import Sequence

from torch import Tensor

def isa() -> str: ...
def isas() -> list[str]: ...
def parallel_runtime() -> str: ...
def read_rate(x: Tensor, n_threads: int, isa: str = "") -> float: ...
def multiply_add_rate(n_threads: int, isa: str = "") -> float: ...

class Span:
    keys: Tensor
    values: Tensor
    def __init__(self, keys: Tensor, values: Tensor) -> None: ...
    def __len__(self) -> int: ...

def flat_attend(
    q: Tensor,
    spans: Sequence[Span | tuple[Tensor, Tensor]],
    scaling: float,
    n_threads: int,
    causal: bool = False,
    s_aux: Tensor | None = None,
    softcap: float | None = None,
    mass: Tensor | None = None,
    other_lse: Tensor | None = None,
    isa: str = "",
) -> tuple[Tensor, Tensor]: ...
