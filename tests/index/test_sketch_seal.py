"""What a sealed segment holds, unpacked by its documented layout (docs/method.md) and held against the keys
and values."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
import torch
from reference.exact import Data, made
from torch import Tensor

import sakuin
from sakuin.index import SketchIndex
from sakuin.index.query_moment import QueryMoment
from sakuin.index.scratch import keep_scratch
from sakuin.index.sketch_seal import LIST, find_basis


def sealed(data: Data, **knobs: float) -> dict[str, Tensor]:
    index = sakuin.build_index("sketch", data.keys, data.values, queries=data.queries, segment=4096, **knobs)
    assert isinstance(index, SketchIndex)
    assert len(index.segments) == 1
    return index.segments[0].fields


def square(root: Tensor) -> Tensor:
    return root @ root.transpose(-1, -2)


def unpacked_sketch(f: dict[str, Tensor], head: int) -> tuple[Tensor, Tensor]:
    """Decoded sketches (n, d) and residue lengths (n,), in the rows' order."""
    n, d = f["keys"].shape[1:]
    lists = f["sketch"].shape[1]
    subs = f["sub_coordinate"].shape[1]
    rows = f["sketch"][head]
    # Byte 4 l + i of a row holds number i of key 8 (l / 4) + l % 4, above it that of the key four further on.
    codes = rows[:, :-32].reshape(lists, 2, subs // 4, 4, 4, 4)
    nibbles = torch.stack([codes & 15, codes >> 4], 4).permute(0, 1, 3, 4, 5, 2, 6)
    nibbles = nibbles.reshape(lists * LIST, subs)[:n].float()
    y = torch.zeros(n, d)
    for sub, ((first, second), (a, b)) in enumerate(
        zip(f["sub_coordinate"][head].tolist(), f["sub_step"][head].tolist(), strict=True)
    ):
        code = nibbles[:, sub]
        if second < 0:
            y[:, first] += (code - 7.5) * a
        else:
            y[:, first] += (code % 4 - 1.5) * a
            y[:, second] += ((code / 4).floor() - 1.5) * b
    lengths = torch.cat([rows[:, -32:] & 15, rows[:, -32:] >> 4], 1).reshape(-1)[:n]
    return y, lengths


def unpacked_chunk(chunk: Tensor, bits: int) -> Tensor:
    """16 numbers of `bits` bits from (n, 2 * bits) bytes."""
    words, byte = bits // 2, []
    for number in range(16):
        at = bits * (number // words)
        byte.append((chunk[:, number % words * 4 + at // 8] >> (at % 8)) & (2**bits - 1))
    return torch.stack(byte, 1).float()


def decoded_rows(codes: Tensor, low: Tensor, step: Tensor, d: int) -> Tensor:
    """Values (n, d) from their four-bit codes and each row's lowest number and step."""
    numbers = torch.cat([unpacked_chunk(c, 4) for c in codes.split(8, 1)], 1)[:, :d]
    return low[:, None] + numbers * step[:, None]


def unpacked_codes(f: dict[str, Tensor], head: int) -> Tensor:
    n, d = f["keys"].shape[1:]
    eights, fours, twos = f["code_plan"][head].tolist()
    y, at = torch.zeros(n, d), 0
    for chunk, bits in enumerate([8] * eights + [4] * fours + [2] * twos):
        numbers = unpacked_chunk(f["codes"][head, :, at : at + 2 * bits], bits) - (2**bits - 1) / 2
        at += 2 * bits
        for i in range(16):
            coordinate = int(f["code_coordinate"][head, chunk * 16 + i])
            if coordinate >= 0:
                y[:, coordinate] += numbers[:, i] * f["code_step"][head, chunk * 16 + i]
    assert at <= f["codes"].shape[2]
    return y


def true_y(f: dict[str, Tensor], head: int) -> Tensor:
    basis = f["basis"][head].view(torch.float16).double()
    return ((f["keys"][head].double() - f["mean"][head]) @ torch.linalg.pinv(basis).T).float()


@pytest.mark.parametrize("d", [8, 24, 64, 72])
@pytest.mark.parametrize("n", [1000, 65])
def test_codes_refine_the_sketch_and_lengths_measure_what_it_leaves(d, n):
    data = made(n, d=d)
    f = sealed(data, code_bits=4.0)
    for head in range(2):
        y = true_y(f, head)
        sketch, length = unpacked_sketch(f, head)
        both = sketch + unpacked_codes(f, head)
        q = data.queries[head * 3 : head * 3 + 3].reshape(-1, d)
        p = q @ f["basis"][head].view(torch.float16).float()
        weight = p.square().mean(0)
        signal, coarse, fine = (float((p @ x.T).square().mean()) for x in (y, y - sketch, y - both))
        assert coarse < 0.4 * signal
        assert fine < 0.05 * coarse
        residue = (y - sketch).square()
        assert torch.allclose(f["residue"][head], residue.mean(0), rtol=0.02, atol=1e-5)
        size = (residue @ weight).sqrt()
        oddity = (residue / residue.mean(0))[:, residue.mean(0) > 1e-12].mean(1)
        own = torch.maximum(size / size.square().mean().sqrt(), oddity)
        assert float((length - (own * 4).clamp(max=15)).abs().max()) < 0.75
        assert (oddity * size.square().mean().sqrt() > 1.3 * size).any()  # so that both are tried


@pytest.mark.parametrize(("sketch_bits", "code_bits"), [(0.5, 1.0), (1.0, 4.0), (2.0, 2.0), (4.0, 8.0)])
def test_more_bits_leave_less(sketch_bits, code_bits):
    data = made(800)
    f = sealed(data, sketch_bits=sketch_bits, code_bits=code_bits)
    assert f["sketch"].shape[2] == round(sketch_bits * 64 / 8) * LIST + 32
    assert f["codes"].shape[2] == code_bits * 64 / 8
    y = true_y(f, 0)
    sketch, _ = unpacked_sketch(f, 0)
    left = (y - sketch - unpacked_codes(f, 0)).square().mean() / y.square().mean()
    most = {0.5: 0.2, 1.0: 0.02, 2.0: 0.05, 4.0: 0.001}[sketch_bits]
    assert float(left) < most


def test_rows_are_a_permutation_and_lists_hold_64_neighbours():
    data = made(1000)
    f = sealed(data)
    for head in range(2):
        order = f["order"][head].long()
        assert (order.sort().values == torch.arange(1000)).all()
        assert torch.equal(f["keys"][head], data.keys[head, order])
        assert torch.equal(f["values"][head], data.values[head, order])
        values = f["values"][head].split(LIST)
        means = torch.stack([v.mean(0) for v in values])
        low, step = f["list_params"][head].view(torch.bfloat16).float().unbind(1)
        coded = decoded_rows(f["list_codes"][head], low, step, 64)
        assert ((coded - means).abs() <= 0.52 * step[:, None] + 1e-6).all()
        spread = torch.cat([v - v.mean(0) for v in values]).square().mean()
        assert float(spread) < 0.9 * float(data.values[head].var(0).mean())


def test_value_codes_are_within_half_a_step():
    for data in (made(300, d=24), made(70, d=64, dtype=torch.bfloat16)):
        f = sealed(data)
        n, d = f["values"].shape[1:]
        for head in range(2):
            low, step = f["value_params"][head].view(torch.bfloat16).float().unbind(1)
            codes = f["value_codes"][head]
            off = (decoded_rows(codes, low, step, d) - f["values"][head].float()).abs()
            assert (off <= 0.51 * step[:, None] + 0.07 * step[:, None]).all()
            assert n == len(codes)


def test_a_coordinate_without_variance_gets_no_bits():
    data = made(600, d=32)
    data.keys[:] = data.keys[:, :, :1] * torch.linspace(1, 2, 32)  # one direction only
    f = sealed(data, code_bits=4.0)
    for head in range(2):
        y = true_y(f, head)
        sketch, _ = unpacked_sketch(f, head)
        assert float((y - sketch - unpacked_codes(f, head)).abs().max()) < 0.01 * float(y.abs().max())
        assert torch.isfinite(f["sub_step"]).all()
        assert torch.isfinite(f["code_step"]).all()


def test_the_basis_is_exact_whatever_its_rounding_and_its_coordinates_carry_less_and_less():
    data = made(2000)
    moment = QueryMoment(2, 64)
    moment.add(data.queries)
    centred = data.keys - data.keys.mean(1, keepdim=True)
    basis = find_basis(centred, moment.root())
    assert basis.project.dtype == torch.float16
    assert torch.allclose(basis.project.float().norm(dim=1), torch.ones(2, 64), atol=2e-3)
    y = centred.double() @ basis.inverse.transpose(1, 2)
    q = data.queries[:3].double()
    products = q @ centred[0].double().T
    assert torch.allclose((q @ basis.project[0].double()) @ y[0].T, products, atol=1e-6)
    carried = basis.weight * y.square().mean(1)
    assert (carried.diff(dim=1) <= 1e-3 * carried[:, :1]).all()
    # Once weighted, a unit of squared error costs the same in every coordinate.
    p = data.queries.double().reshape(2, -1, 64) @ basis.project.double()
    assert torch.allclose(p.square().mean(1).float(), basis.weight, rtol=0.02)


def test_the_basis_sees_keys_as_the_queries_do():
    """Directions that no query looks along get no leading coordinates, however much keys vary there."""
    data = made(2000)
    data.keys[:, :, 7:17] *= 50
    data.queries[:, :, 7:17] *= 1e-3
    blind = find_basis(data.keys - data.keys.mean(1, keepdim=True), torch.eye(64).double().expand(2, 64, 64))
    moment = QueryMoment(2, 64)
    moment.add(data.queries)
    seeing = find_basis(data.keys - data.keys.mean(1, keepdim=True), moment.root())
    assert float(blind.project[0, 7:17, 0].norm()) > 0.99
    centred = (data.keys[0] - data.keys[0].mean(0)).double()
    lost = []  # logit error when only 16 coordinates are kept
    for basis in (blind, seeing):
        y = basis.inverse[0] @ centred.T
        lost.append(
            float((data.queries[0].double() @ basis.project[0].double()[:, 16:] @ y[16:]).square().mean())
        )
    assert lost[1] < 0.8 * lost[0]


def test_the_query_moment_runs_on_and_copies_are_their_own():
    data = made(300)
    moment = QueryMoment(2, 64)
    assert torch.equal(moment.root(), torch.eye(64).double().expand(2, 64, 64))
    moment.add(data.queries[:, :100])
    copy = moment.copy()
    moment.add(data.queries[:, 100:])
    q = data.queries[:3].double().reshape(-1, 64)
    assert torch.allclose(square(moment.root()[0]), q.T @ q / len(q), rtol=1e-3, atol=1e-4)
    q = data.queries[:3, :100].double().reshape(-1, 64)
    assert torch.allclose(square(copy.root()[0]), q.T @ q / len(q), rtol=1e-3, atol=1e-4)


def test_the_query_moment_is_positive_definite_even_where_queries_are_not():
    moment = QueryMoment(2, 16)
    queries = torch.zeros(4, 50, 16)
    queries[:2, :, 3] = torch.linspace(1, 2, 50)  # one direction for the first head, nothing for the second
    moment.add(queries)
    values = torch.linalg.eigvalsh(square(moment.root()))
    assert float(values[0].min()) > 0.9e-4 * float(values[0].max())
    assert torch.equal(square(moment.root())[1], torch.eye(16).double())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e25])
def test_queries_that_are_not_finite_are_refused(bad):
    data = made(300)
    data.queries[0, 0, 0] = bad
    with pytest.raises(ValueError, match="queries"):
        sealed(data)


def test_keys_and_values_too_large_to_square_are_refused():
    for name in ("keys", "values"):
        data = made(300)
        getattr(data, name)[0, 5, 3] = 1e25
        with pytest.raises(ValueError, match=f"{name} are too large.*flat"):
            sealed(data)


def test_a_small_segment_uses_its_predecessors_basis():
    for n, shared in ((1024 + 120, True), (1024 + 130, False)):
        data = made(n, d=32)
        index = sakuin.build_index("sketch", data.keys, data.values, queries=data.queries, segment=1024)
        assert isinstance(index, SketchIndex)
        first, second = (segment.fields for segment in index.segments)
        assert second["keys"].shape[1] == n - 1024
        assert torch.equal(first["basis"], second["basis"]) == shared
        assert not torch.equal(first["mean"], second["mean"])


def test_segments_as_long_as_they_become_have_a_basis_of_their_own():
    """Else one that the first few tokens gave would hold for a whole context of short segments."""
    data = made(300, d=32)
    index = sakuin.build_index("sketch", data.keys, data.values, queries=data.queries, segment=64)
    assert isinstance(index, SketchIndex)
    bases = [segment.fields["basis"] for segment in index.segments]
    assert len(bases) == 5
    assert not any(torch.equal(a, b) for a, b in pairwise(bases[:-1]))
    assert torch.equal(bases[-1], bases[-2])  # 44 tokens


def test_sealing_is_the_same_for_every_number_of_threads():
    data = made(2100, heads=4)
    before = torch.get_num_threads()
    try:
        results = []
        for n in (1, 2, 4):
            torch.set_num_threads(n)
            results.append(sealed(data))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert float((other["order"] != results[0]["order"]).float().mean()) < 0.2
        assert torch.allclose(other["residue"], results[0]["residue"], rtol=0.02)


def test_memory_that_is_used_again_changes_nothing():
    longer, shorter = made(1500, d=64), made(700, d=64)
    fresh = [sealed(longer), sealed(shorter)]

    def again() -> list[dict[str, Tensor]]:
        keep_scratch()
        return [sealed(longer), sealed(shorter)]

    with ThreadPoolExecutor(1) as thread:  # scratch is kept by thread
        kept = thread.submit(again).result()
    for one, other in zip(fresh, kept, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_keys_unlike_all_others_are_marked_to_be_always_scored_again():
    """A fact in a text that says the same again and again: no query of the text looked where its keys lie."""
    draw = torch.Generator().manual_seed(0)
    d, n, odd = 64, 2000, slice(900, 910)
    said, other = torch.randn(25, d, generator=draw), torch.randn(10, d, generator=draw)
    keys = said[torch.arange(n) % 25] + 0.1 * torch.randn(n, d, generator=draw)
    keys[odd] += other - said.mean(0)
    queries = said[torch.arange(n) % 25][None]
    f = sealed(Data(keys[None], keys[None], queries, queries[:, :1], 0.125))
    _, length = unpacked_sketch(f, 0)
    marked = torch.zeros(n, dtype=torch.bool)
    marked[f["order"][0].long()] = length == 15
    assert marked[odd].all()
    assert int(marked.sum()) == 10
