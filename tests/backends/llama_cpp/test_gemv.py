"""Products of quantized weights with a few rows, in 8 bits, against float64 on the same rounded numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from ggml_numbers import F32, Q8_0, TYPES, Arena, error, format_of, quantized, random, unpacked
from tiny_gguf import write
from torch import Tensor

from sakuin.backends.llama_cpp import locate
from sakuin.backends.llama_cpp.device import register
from sakuin.backends.llama_cpp.library import library
from sakuin.backends.llama_cpp.load import load
from sakuin.index import _native

pytestmark = [
    pytest.mark.skipif(locate.find() is None, reason="no llama.cpp is installed"),
    pytest.mark.skipif(not _native.gemv_kernels(), reason="no kernels for this CPU"),
]
KERNELS = _native.gemv_kernels() or ["none"]
OURS = {name: TYPES[name] for name in ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q4_K", "q5_K", "q6_K")}
BLOCK = 32


def rounded(x: Tensor) -> Tensor:
    """Rows in 8 bits, 32 numbers with a scale of their own, as float64."""
    blocks = x.view(len(x), -1, BLOCK)
    most = blocks.abs().amax(-1, keepdim=True)
    codes = (blocks * torch.where(most > 0, 127 / most, 0)).round()
    return (codes.double() * (most / 127).double()).view_as(x)


def expected(x: Tensor, packed: Tensor, kind: int, width: int) -> Tensor:
    return rounded(x) @ unpacked(packed, kind, width * x.shape[1]).view(width, -1).double().T


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("rows", [*range(1, 10), 16, 19, 34])
@pytest.mark.parametrize("kind", OURS.values(), ids=OURS.keys())
def test_every_type_with_any_number_of_rows(kind: int, rows: int, kernels: str) -> None:
    weight = random(70, 768, seed=kind) * torch.logspace(-3, 1, 70)[:, None]
    packed, x, out = quantized(weight, kind), random(rows, 768, seed=2), torch.full((rows, 70), 9.0)
    _native.GgmlGemv(kernels).multiply(x, packed.data_ptr(), format_of(kind), out, n_threads=2)
    wanted, size = expected(x, packed, kind, 70), weight.norm(dim=1) * x.norm(dim=1, keepdim=True)
    assert ((out - wanted).abs() / size).max() < 3e-7


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("kind", OURS.values(), ids=OURS.keys())
def test_any_bytes_are_taken_as_ggml_does(kind: int, kernels: str) -> None:
    """Also codes and scales that no weight of ours has; rows with what is no number give none."""
    _, block, block_bytes, _ = format_of(kind)
    bytes_ = torch.randint(
        0, 256, (200 * 512 // block * block_bytes,), generator=torch.Generator().manual_seed(kind)
    )
    packed, x, out = bytes_.to(torch.uint8), random(2, 512), torch.empty(2, 200)
    _native.GgmlGemv(kernels).multiply(x, packed.data_ptr(), format_of(kind), out)
    wanted, size = (
        expected(x, packed, kind, 200),
        unpacked(packed, kind, 200 * 512).view(200, -1).double().norm(dim=1),
    )
    good = wanted.isfinite().all(0) & (size < 1e30)
    assert good.sum() > 20
    assert ((out - wanted)[:, good].abs() / size[good]).max() < 1e-5
    assert not out[:, ~wanted.isfinite().all(0)].isfinite().any()


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize(
    ("rows", "depth", "width"), [(1, 32, 1), (3, 96, 5), (17, 160, 1000), (2, 4864, 130)]
)
def test_any_shape(rows: int, depth: int, width: int, kernels: str, n_threads: int) -> None:
    """Rows apart from each other, and nothing is written beside the result."""
    packed = quantized(random(width, depth, seed=width) / 50, Q8_0)
    held, memory = random(rows, depth + 24, seed=rows), torch.full((rows + 1, width + 5), 7.0)
    x, out = held[:, 8 : 8 + depth], memory[:rows, :width]
    _native.GgmlGemv(kernels).multiply(x, packed.data_ptr(), format_of(Q8_0), out, n_threads=n_threads)
    assert error(out, expected(x.contiguous(), packed, Q8_0, width)) < 2e-6
    assert (memory[:, width:] == 7).all()
    assert (memory[rows] == 7).all()


def test_rows_are_rounded_once_for_several_weights() -> None:
    """Types lay other numbers on their codes, so a change of type rounds again."""
    x, gemv = random(4, 256), _native.GgmlGemv()
    for kind, same in (("q4_K", False), ("q5_K", True), ("q8_0", True), ("q8_0", True), ("q4_0", True)):
        packed, out = quantized(random(200, 256, seed=3), OURS[kind]), torch.empty(4, 200)
        gemv.multiply(x, packed.data_ptr(), format_of(OURS[kind]), out, same=same)
        assert error(out, expected(x, packed, OURS[kind], 200)) < 2e-6


def test_rows_of_zeros_and_of_what_is_no_number() -> None:
    packed, x, out = quantized(random(64, 96, seed=1), Q8_0), random(3, 96, seed=2), torch.empty(3, 64)
    x[0], x[1, 5] = 0, float("nan")
    _native.GgmlGemv().multiply(x, packed.data_ptr(), format_of(Q8_0), out)
    assert (out[0] == 0).all()
    assert not out[1].isfinite().any()
    assert out[2].isfinite().all()


def test_bad_arguments_are_refused() -> None:
    gemv = _native.GgmlGemv()
    with pytest.raises(ValueError, match="called 'none'"):
        _native.GgmlGemv("none")
    with pytest.raises(ValueError, match="as many rows"):
        gemv.multiply(random(3, 64), 0, format_of(Q8_0), random(4, 8))
    with pytest.raises(ValueError, match="rows of 64 numbers in type 0 have no kernel"):
        gemv.multiply(random(3, 64), 0, format_of(F32), random(3, 8))
    with pytest.raises(ValueError, match="rows of 33 numbers in type 8"):
        gemv.multiply(random(3, 33), 0, format_of(Q8_0), random(3, 8))


@pytest.fixture
def nodes() -> Iterator[Arena]:
    register(library())
    made = Arena(library())
    yield made
    made.call("ggml_free", made.address)


@pytest.mark.parametrize("tokens", [1, 5])
def test_experts_meet_the_rows_that_chose_them_in_8_bits(nodes: Arena, tokens: int) -> None:
    depth, width, n_experts, chosen = 96, 160, 5, 3
    weight = random(n_experts * width, depth, seed=3)
    packed = quantized(weight, Q8_0)
    others = torch.rand(tokens, 3, generator=torch.Generator().manual_seed(4)).argsort(-1)[:, : chosen - 1]
    ids = torch.cat([others, torch.full((tokens, 1), 3)], -1).to(torch.int32).contiguous()
    x = random(tokens, 1, depth, seed=5)
    w = nodes.holding(packed, Q8_0, depth, width, n_experts)
    rows = nodes.holding(x, F32, depth, 1, tokens)
    node = nodes.call("ggml_mul_mat_id", nodes.address, w, rows, nodes.holding(ids, 26, chosen, tokens))
    _native.ggml_multiply(node, KERNELS[0], n_threads=2)
    every = expected(x[:, 0], packed, Q8_0, n_experts * width).view(tokens, n_experts, width)
    wanted = torch.stack([every[t, ids[t].long()] for t in range(tokens)])
    assert error(nodes.numbers(node)[0], wanted) < 2e-6


@torch.no_grad()
@pytest.mark.parametrize("architecture", ["qwen2", "mixtral"])
def test_a_model_decodes_with_them(architecture: str, tmp_path: Path) -> None:
    """Alone and three sequences side by side, dense and of experts: as near as rounding lets."""
    made = write(architecture, tmp_path, "Q8_0")
    ids = made.tokens(120)
    wanted = made.model(ids, use_cache=False).logits[0].log_softmax(-1)
    backend, _ = load(made.gguf, dtype="fp32", threads=2)
    assert backend.loaded.options.few_rows > 0
    cache = backend.new_cache(None)
    backend.forward(cache, ids[0, :100].tolist())
    forks = [backend.fork(cache) for _ in range(3)]
    # Room for three sequences makes the session anew, whose seconds begin at 0.
    backend.forward_together([backend.fork(cache) for _ in range(3)], [[0]] * 3)
    before = backend.loaded.session.seconds[1]
    for at in range(100, 120):
        token = [ids[0, at].item()]
        alone = backend.forward(cache, token)
        assert _kl(wanted[at], alone.flatten()) < 2e-3
        for one in backend.forward_together(forks, [token] * 3):
            assert _kl(wanted[at], one.flatten()) < 2e-3
    assert backend.loaded.session.seconds[1] > before


def _kl(expected: Tensor, got: Tensor) -> float:
    return (expected.exp() * (expected - got.log_softmax(-1))).sum().item()
