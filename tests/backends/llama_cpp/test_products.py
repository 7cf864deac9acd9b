"""Products of quantized weights with many rows, against float64 on what ggml's own functions unpack."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from ggml_numbers import BF16, F32, Q4_K, Q8_0, TYPES, Arena, error, format_of, quantized, random, unpacked
from torch import Tensor

from sakuin.backends.llama_cpp import locate
from sakuin.backends.llama_cpp.device import register
from sakuin.backends.llama_cpp.library import library
from sakuin.index import _native

pytestmark = [
    pytest.mark.skipif(locate.find() is None, reason="no llama.cpp is installed"),
    pytest.mark.skipif(not _native.product_kernels(), reason="no kernels for this CPU"),
]
KERNELS = _native.product_kernels() or ["none"]


def expected(x: Tensor, weight: Tensor) -> Tensor:
    return x.bfloat16().double() @ weight.bfloat16().double().T


@pytest.mark.parametrize("kind", TYPES.values(), ids=TYPES.keys())
def test_weights_are_what_ggml_unpacks_rounded(kind: int) -> None:
    n = 64 * 768
    packed = quantized(random(64, 768, seed=kind) * torch.logspace(-3, 1, 64)[:, None], kind)
    out = torch.empty(n, dtype=torch.bfloat16)
    _native.ggml_unpack(packed.data_ptr(), format_of(kind), out)
    assert torch.equal(out.view(torch.int16), unpacked(packed, kind, n).bfloat16().view(torch.int16))


@pytest.mark.parametrize("kind", TYPES.values(), ids=TYPES.keys())
def test_any_bytes_are_unpacked_as_ggml_does(kind: int) -> None:
    """Also codes and scales that no weight of ours has; what is no number may be another one."""
    fmt = format_of(kind)
    blocks = 512 if fmt[1] > 1 else 64 * 512
    n = blocks * fmt[1]
    packed = torch.randint(0, 256, (blocks * fmt[2],), generator=torch.Generator().manual_seed(kind))
    packed = packed.to(torch.uint8)
    wanted = unpacked(packed, kind, n)
    out = torch.empty(n, dtype=torch.bfloat16)
    _native.ggml_unpack(packed.data_ptr(), fmt, out)
    normal = wanted.isfinite() & (wanted.abs() > 1e-37)
    assert normal.sum() > n / 3
    assert torch.equal(out[normal], wanted.bfloat16()[normal])
    assert torch.equal(out.isnan(), wanted.isnan())


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("kind", TYPES.values(), ids=TYPES.keys())
def test_products_of_every_type(kind: int, kernels: str) -> None:
    weight, x, out = random(70, 768, seed=1) / 50, random(100, 768, seed=2), torch.full((100, 70), 9.0)
    packed = quantized(weight, kind)
    _native.GgmlProducts(kernels).multiply(x, packed.data_ptr(), format_of(kind), out, n_threads=2)
    assert error(out, expected(x, unpacked(packed, kind, weight.numel()).view(70, 768))) < 2e-6


SHAPES = [
    (1, 64, 1),
    (31, 64, 31),
    (33, 100, 64),
    (64, 576, 192),
    (65, 33, 97),
    (97, 1000, 65),
    (300, 4864, 130),
    (520, 64, 300),
    (40, 288, 40_000),  # more than is packed at a time
]


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize(("rows", "depth", "width"), SHAPES)
def test_products_of_any_shape(rows: int, depth: int, width: int, kernels: str, n_threads: int) -> None:
    """Rows apart from each other, and nothing is written beside the result."""
    kind = BF16 if depth % 32 else Q8_0
    packed = quantized(random(width, depth, seed=width) / 50, kind)
    held, memory = random(rows, depth + 24, seed=rows), torch.full((rows + 1, width + 5), 7.0)
    x, out = held[:, 8 : 8 + depth], memory[:rows, :width]
    _native.GgmlProducts(kernels).multiply(x, packed.data_ptr(), format_of(kind), out, n_threads=n_threads)
    assert error(out, expected(x, unpacked(packed, kind, width * depth).view(width, depth))) < 4e-6
    assert (memory[:, width:] == 7).all()
    assert (memory[rows] == 7).all()


@pytest.mark.parametrize("kernels", KERNELS)
def test_rows_are_packed_once_for_several_weights(kernels: str) -> None:
    x = random(96, 256)
    products = _native.GgmlProducts(kernels)
    for seed, same in ((1, False), (2, True), (3, True)):
        packed, out = quantized(random(200, 256, seed=seed), Q4_K), torch.empty(96, 200)
        products.multiply(x, packed.data_ptr(), format_of(Q4_K), out, same=same)
        assert error(out, expected(x, unpacked(packed, Q4_K, 200 * 256).view(200, 256))) < 2e-6


@pytest.mark.parametrize("kernels", KERNELS)
def test_what_is_no_number_stays_in_its_row_and_column(kernels: str) -> None:
    weight, x, out = random(64, 96, seed=1), random(64, 96, seed=2), torch.empty(64, 64)
    weight[5, 7], x[9, 11] = float("inf"), float("nan")
    _native.GgmlProducts(kernels).multiply(x, weight.data_ptr(), format_of(F32), out)
    odd = ~out.isfinite()
    assert odd[9].all()
    assert odd[:, 5].all()
    odd[9], odd[:, 5] = False, False
    assert not odd.any()


def test_bad_arguments_are_refused() -> None:
    products = _native.GgmlProducts()
    with pytest.raises(ValueError, match="called 'none'"):
        _native.GgmlProducts("none")
    with pytest.raises(ValueError, match="as many rows"):
        products.multiply(random(3, 64), 0, format_of(F32), random(4, 8))
    with pytest.raises(ValueError, match="1 to 256"):
        products.multiply(random(3, 64), 0, (99, 512, 1, 0), random(3, 8))


@pytest.fixture
def arena() -> Iterator[Arena]:
    register(library())
    made = Arena(library())
    yield made
    made.call("ggml_free", made.address)


def test_a_node_of_ggml_is_computed(arena: Arena) -> None:
    weight, x = random(128, 256, seed=1), random(70, 256, seed=2)
    packed = quantized(weight, Q4_K)
    w, rows = arena.holding(packed, Q4_K, 256, 128), arena.holding(x, F32, 256, 70)
    node = arena.call("ggml_mul_mat", arena.address, w, rows)
    _native.ggml_multiply(node, n_threads=2)
    wanted = expected(x, unpacked(packed, Q4_K, weight.numel()).view(128, 256))
    assert error(arena.numbers(node)[0, 0], wanted) < 2e-6


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("each_its_own", [False, True])
def test_experts_meet_the_rows_that_chose_them(arena: Arena, each_its_own: bool, kernels: str) -> None:
    """Every token chooses three of five experts, all of them expert 3. With `each_its_own` a token
    has another row for each expert, as in the second product of a layer."""
    depth, width, n_experts, chosen, tokens = 96, 160, 5, 3, 90
    weight = random(n_experts * width, depth, seed=3)
    packed = quantized(weight, Q8_0)
    others = torch.rand(tokens, 3, generator=torch.Generator().manual_seed(4)).argsort(-1)[:, : chosen - 1]
    ids = torch.cat([others, torch.full((tokens, 1), 3)], -1).to(torch.int32).contiguous()
    x = random(tokens, chosen if each_its_own else 1, depth, seed=5)
    w = arena.holding(packed, Q8_0, depth, width, n_experts)
    rows = arena.holding(x, F32, depth, x.shape[1], tokens)
    node = arena.call("ggml_mul_mat_id", arena.address, w, rows, arena.holding(ids, 26, chosen, tokens))
    _native.ggml_multiply(node, kernels, n_threads=2)
    experts = unpacked(packed, Q8_0, weight.numel()).view(n_experts, width, depth)
    wanted = torch.stack(
        [
            torch.stack(
                [expected(x[t, i % x.shape[1]][None], experts[e])[0] for i, e in enumerate(ids[t].tolist())]
            )
            for t in range(tokens)
        ]
    )
    assert error(arena.numbers(node)[0], wanted) < 2e-6


def test_an_expert_that_is_not_there_is_an_error(arena: Arena) -> None:
    w = arena.tensor(F32, 64, 64, 2)
    ids = arena.holding(torch.full((4, 1), 7, dtype=torch.int32), 26, 1, 4)
    node = arena.call("ggml_mul_mat_id", arena.address, w, arena.tensor(F32, 64, 1, 4), ids)
    with pytest.raises(RuntimeError, match="expert 7 of 2"):
        _native.ggml_multiply(node)
