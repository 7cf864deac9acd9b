"""Types of the native core (native/python/)."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

LEAST_HEAD_DIM: int
MOST_HEAD_DIM: int
HEAD_DIM_STEP: int
MOST_GROUP: int

def set_leak_warnings(on: bool) -> None: ...
def isa() -> str: ...
def isas() -> list[str]: ...
def parallel_runtime() -> str: ...
def read_rate(x: Tensor, n_threads: int, isa: str = "") -> float: ...
def multiply_add_rate(n_threads: int, isa: str = "") -> float: ...

class Span:
    keys: Tensor
    values: Tensor
    key_scale: Tensor | None
    key_zero: Tensor | None
    value_scale: Tensor | None
    def __init__(
        self,
        keys: Tensor,
        values: Tensor,
        key_scale: Tensor | None = None,
        key_zero: Tensor | None = None,
        value_scale: Tensor | None = None,
    ) -> None: ...
    def __len__(self) -> int: ...

def flat_attend(
    q: Tensor,
    spans: Sequence[Span | tuple[Tensor, Tensor]],
    scaling: float,
    n_threads: int,
    *,
    causal: bool = False,
    s_aux: Tensor | None = None,
    softcap: float | None = None,
    mass: Tensor | None = None,
    static_lse: Tensor | None = None,
    isa: str = "",
) -> tuple[Tensor, Tensor]: ...
def prefill_kernel(dtype: str = "bfloat16") -> str: ...
def prefill_kernels() -> list[str]: ...
def prefill_attention(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    past: Sequence[tuple[Tensor, Tensor]],
    out: Tensor,
    scaling: float,
    n_threads: int,
    *,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    isa: str = "",
) -> None: ...

class SketchSegment:
    def __init__(self, fields: dict[str, Tensor], on_disk: bool = False) -> None: ...
    @property
    def fields(self) -> dict[str, Tensor]: ...
    def __len__(self) -> int: ...

class SketchSettings:
    """How much a step reads: rescore, coded and exact in units of 1 / n; reach in standard deviations; cap as
    a share; target_error (0: none)."""

    def __init__(
        self,
        *,
        rescore: float,
        coded: float,
        exact: float,
        reach: float,
        cap: float,
        target_error: float = 0.0,
    ) -> None: ...
    @property
    def rescore(self) -> float: ...
    @property
    def coded(self) -> float: ...
    @property
    def exact(self) -> float: ...
    @property
    def reach(self) -> float: ...
    @property
    def cap(self) -> float: ...
    @property
    def target_error(self) -> float: ...

def sketch_seal(
    fields: dict[str, Tensor],
    *,
    y: Tensor,
    weight: Tensor,
    features: Tensor,
    keys: Tensor,
    values: Tensor,
    values_f32: Tensor,
    n_threads: int,
    isa: str = "",
) -> SketchSegment: ...
def sketch_attend(
    q: Tensor,
    segments: Sequence[SketchSegment],
    scaling: float,
    n_threads: int,
    settings: SketchSettings,
    *,
    static_lse: Tensor | None = None,
    softcap: float | None = None,
    mass: Tensor | None = None,
    trace: bool = False,
    isa: str = "",
) -> tuple[
    Any, ...
]: ...  # out, lse, coverage, exact, coded, error, touched_bytes; with trace also tier, weight
def sketch_decode(
    q: Tensor,
    segments: Sequence[SketchSegment],
    sink_keys: Tensor,
    sink_values: Tensor,
    recent_keys: Tensor,
    recent_values: Tensor,
    scaling: float,
    n_threads: int,
    settings: SketchSettings,
    *,
    s_aux: Tensor | None = None,
    softcap: float | None = None,
    mass: Tensor | None = None,
    isa: str = "",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, int]: ...
def sketch_search(
    q: Tensor,
    segments: Sequence[SketchSegment],
    n_threads: int,
    *,
    candidates: int,
    refined: int,
    reach: float,
    scores: Tensor,
    ids: Tensor,
    isa: str = "",
) -> None: ...

class IvfSegment:
    def __init__(self, fields: dict[str, Tensor]) -> None: ...
    @property
    def fields(self) -> dict[str, Tensor]: ...
    @property
    def lists(self) -> int: ...
    def __len__(self) -> int: ...

def ivf_seal(
    fields: dict[str, Tensor],
    keys: Tensor,
    values: Tensor,
    *,
    iterations: int,
    n_threads: int,
    base: IvfSegment | None = None,
    isa: str = "",
) -> IvfSegment: ...
def ivf_attend(
    q: Tensor,
    segments: Sequence[IvfSegment],
    scaling: float,
    n_threads: int,
    *,
    probes: int,
    budget: int,
    estimate_rest: bool,
    static_lse: Tensor | None = None,
    softcap: float | None = None,
    mass: Tensor | None = None,
    isa: str = "",
) -> tuple[Tensor, Tensor, Tensor, Tensor, int]: ...  # out, lse, coverage, exact, touched_bytes
def ivf_search(
    q: Tensor,
    segments: Sequence[IvfSegment],
    n_threads: int,
    *,
    probes: int,
    budget: int,
    scores: Tensor,
    ids: Tensor,
    isa: str = "",
) -> None: ...

class Graph:
    def __init__(self, n_kv_heads: int, head_dim: int, degree: int) -> None: ...
    def __len__(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    def append(
        self,
        keys: Tensor,
        coordinates: Tensor,
        queries: Tensor | None,
        n_threads: int,
        *,
        renew: bool = False,
        isa: str = "",
    ) -> Graph: ...
    def crop(self, n: int) -> Graph: ...
    def search(
        self, q: Tensor, keys: Tensor, k: int, *, ef: int, n_threads: int, isa: str = ""
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]: ...  # scores, ids, keys scored, keys whose links were read
    def attend(
        self,
        q: Tensor,
        keys: Tensor,
        values: Tensor,
        mean_keys: Tensor,
        mean_values: Tensor,
        *,
        scaling: float,
        budget: int,
        ef: int,
        estimate_rest: bool,
        n_threads: int,
        static_lse: Tensor | None = None,
        softcap: float | None = None,
        mass: Tensor | None = None,
        isa: str = "",
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, int]: ...  # out, lse, coverage, exact, touched_bytes
    def links(self, head: int) -> tuple[Tensor, int]: ...

class Steps:
    """Steps of one sequence in one layer that need no Python."""

class SketchSteps(Steps):
    def __init__(
        self,
        segments: list[SketchSegment],
        sink_keys: Tensor,
        sink_values: Tensor,
        keys: Tensor,
        values: Tensor,
        start: int,
        group: int,
        settings: SketchSettings,
        n_threads: int,
    ) -> None: ...
    def prepare(
        self, end: int, kept: Tensor | None, first: int, every: int, mass: Tensor | None, above: float
    ) -> None: ...
    def sums(self) -> tuple[float, ...]: ...

def take_mass(sums: Tensor, n_tokens: int) -> tuple[Tensor, Tensor]: ...
def ggml_register(functions: dict[str, int], ops: dict[str, int]) -> None: ...
def ggml_logger() -> int: ...
def ggml_said() -> bytes: ...
def ggml_abort() -> int: ...
def ggml_node(address: int) -> dict[str, Any]: ...
def ggml_multiply(node: int, kernels: str = "", n_threads: int = 1) -> None: ...
def product_kernels() -> list[str]: ...
def gemv_kernels() -> list[str]: ...
def ggml_unpack(weight: int, format: tuple[int, int, int, int], out: Tensor, kernels: str = "") -> None: ...

class GgmlProducts:
    def __init__(self, kernels: str = "") -> None: ...
    def multiply(
        self,
        x: Tensor,
        weight: int,
        format: tuple[int, int, int, int],
        out: Tensor,
        same: bool = False,
        n_threads: int = 1,
    ) -> None: ...

class GgmlGemv:
    def __init__(self, kernels: str = "") -> None: ...
    def multiply(
        self,
        x: Tensor,
        weight: int,
        format: tuple[int, int, int, int],
        out: Tensor,
        same: bool = False,
        n_threads: int = 1,
    ) -> None: ...

class GgmlSession:
    def __init__(
        self,
        *,
        dtype: str,
        own: list[bool],
        rotary: int,
        least_rows: int,
        few_rows: int,
        n_threads: int,
        shared: bool,
        attend: Callable[..., None],
        multiply: Callable[..., None],
    ) -> None: ...
    def within(self, fn: Callable[[], Any]) -> Any: ...
    def run(
        self,
        context: int,
        tokens: Sequence[int],
        positions: Sequence[int],
        sequences: Sequence[int],
        wanted: Sequence[bool],
        parts: list[tuple[int, int, list[Steps | None]]],
    ) -> int: ...
    @property
    def seen(self) -> list[tuple[Any, ...]]: ...
    @property
    def given_back(self) -> int: ...
    @property
    def seconds(self) -> tuple[float, float]: ...
