"""A sequence holds the tokens it was given, in order, whatever is sealed, cropped and forked in between."""

from __future__ import annotations

from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sakuin import RetrievalConfig
from sakuin.cache.sealing import Meter, Sealer
from sakuin.cache.sequence import QUERY_STEP, TokenSequence
from sakuin.cache.token_buffer import GRACE, GROWTH, TokenBuffer

CONFIG = RetrievalConfig(index="flat", sink=5, recent=10, segment=64)
HEADS, KV_HEADS, DIM = 4, 2, 8


def run_of(marks: list[float]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Keys, values and queries that carry each token's mark."""
    column = torch.tensor(marks)[None, :, None]
    return column.expand(KV_HEADS, -1, DIM), -column.expand(KV_HEADS, -1, DIM), column.expand(HEADS, -1, DIM)


def new_sequence(lag: float = 0.0) -> TokenSequence:
    keys, values, _ = run_of([])
    return TokenSequence(keys, values, HEADS, CONFIG, torch.float32, Sealer(), Meter(), lag)


def held(sequence: TokenSequence) -> list[float]:
    blocks = list(sequence.past())
    for keys, values in blocks:
        assert torch.equal(keys, -values)
    return torch.cat([keys[0, :, 0] for keys, _ in blocks]).tolist() if blocks else []


operations = st.lists(
    st.one_of(
        st.tuples(st.just("prefill"), st.integers(1, 200)),
        st.tuples(st.just("decode"), st.integers(1, 400)),
        st.tuples(st.just("crop"), st.floats(0, 1)),
        st.tuples(st.just("fork"), st.booleans()),
        st.tuples(st.just("seal"), st.just(0)),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(operations, st.sampled_from([0.0, 0.3, 0.97]))
def test_any_order_of_prefill_decode_crop_fork_and_seal(steps, lag):
    sequence, expected = new_sequence(lag), []
    others: list[tuple[TokenSequence, list[float]]] = []
    mark = 0.0
    for name, amount in steps:
        if name in ("prefill", "decode"):
            marks = [mark + i + 1 for i in range(int(amount))]
            mark = marks[-1]
            if name == "prefill":
                sequence.append(*run_of(marks))
                sequence.seal_full_segments()
            else:
                for i, one in enumerate(marks):
                    sequence.before_decode()
                    sequence.append(*run_of([one]))
                    if i >= 16 * lag:
                        assert len(sequence.tail) <= CONFIG.recent + GROWTH + GRACE + 1
            expected += marks
        elif name == "crop":
            expected = expected[: round(amount * len(expected))]
            sequence.crop(len(expected))
        elif name == "fork":
            fork = sequence.fork()
            others.append((sequence, list(expected)) if amount else (fork, list(expected)))
            sequence = fork if amount else sequence
        else:
            sequence.seal_rest()
            assert len(sequence.tail) <= max(CONFIG.recent, 0) or not expected
        assert sequence.n_tokens == len(expected)
    for one, tokens in [*others, (sequence, expected)]:
        assert held(one) == tokens
        one.flush()
        assert held(one) == tokens
        static = one.static(1, None)
        in_index = one.index.n_tokens
        assert static.sink_keys.shape[1] + in_index + static.recent_keys.shape[1] == len(tokens)


def test_no_pass_seals_in_all_layers():
    layers = [new_sequence(i / 16) for i in range(16)]
    sealed = [0] * 16

    def count() -> int:
        for sequence in layers:
            sequence.flush()
        before, sealed[:] = sum(sealed), [sequence.index.n_tokens for sequence in layers]
        return sum(sealed) - before

    marks = iter(range(10_000))
    for _ in range(200):  # a text, two tokens at a time
        new = run_of([float(next(marks)) for _ in range(2)])
        for sequence in layers:
            sequence.append(*new)
            sequence.seal_full_segments()
        assert count() in (0, 64)
    piece = run_of([float(next(marks)) for _ in range(400)])  # the last, which leaves all of them much
    for sequence in layers:
        sequence.append(*piece)
        sequence._exact_last = True
    steps = []
    for _ in range(40):
        new = run_of([float(next(marks))])
        for sequence in layers:
            sequence.before_decode()
            sequence.append(*new)
        steps.append(count())
    assert all(n > 0 for n in steps[:16])
    assert max(steps) <= 400 + 96 + 40
    for sequence in layers:
        assert len(sequence.tail) <= CONFIG.recent + GROWTH
        assert held(sequence) == [float(i) for i in range(840)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=8), st.floats(0, 1))
def test_queries_of_every_fourth_position_are_kept_until_sealed(lengths, share):
    sequence = new_sequence()
    given_out = []
    take = sequence._take_queries

    def recording(end):
        queries = take(end)
        given_out.append(queries)
        return queries

    sequence._take_queries = recording  # watched, not replaced
    n = 0
    for length in lengths:
        sequence.append(*run_of([float(n + i) for i in range(length)]))
        sequence.seal_full_segments()
        n += length
    sequence.seal_rest()
    positions = [p for queries in given_out if queries is not None for p in queries[0, :, 0].tolist()]
    end = n - len(sequence.tail)
    assert positions == [float(p) for p in range(0, end, QUERY_STEP)] or end <= CONFIG.sink
    kept = round(share * n)
    sequence.crop(kept)
    sequence.append(*run_of([float(kept + i) for i in range(100)]))
    waiting = [p for queries in sequence._queries for p in queries[0, :, 0].tolist()]
    assert waiting[-25:] == [float(p) for p in range(kept + -kept % 4, kept + 100, 4)][-25:]


def test_a_buffer_that_is_shared_copies_before_it_writes():
    keys, values, _ = run_of([1.0, 2.0])
    buffer = TokenBuffer(keys, values, 100)
    other = buffer.fork()
    assert other.keys.data_ptr() == buffer.keys.data_ptr()
    buffer.append(*run_of([3.0])[:2])
    other.append(*run_of([4.0])[:2])
    assert buffer.keys[0, :, 0].tolist() == [1, 2, 3]
    assert other.keys[0, :, 0].tolist() == [1, 2, 4]


def test_a_long_sealed_front_does_not_stay_in_memory():
    keys, values, _ = run_of([float(i) for i in range(20000)])
    buffer = TokenBuffer(keys, values, 20000)
    whole = buffer.nbytes
    buffer.drop_first(19900)
    assert buffer.nbytes < whole / 10
    assert buffer.keys[0, 0, 0] == 19900


def test_what_growing_layers_have_outgrown_goes_back_to_the_system():
    def resident() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("RssAnon:")).split()[1]) << 10

    # From here on glibc's malloc keeps what is smaller, as it does in every process that has run a model.
    large = torch.ones(7 << 20)
    del large
    chunk = torch.ones(KV_HEADS, 1024, 64)
    buffers = [TokenBuffer(chunk[:, :0], chunk[:, :0], 0) for _ in range(16)]
    kept, before = [], resident()
    for _ in range(6):
        for buffer in buffers:
            buffer.append(chunk, chunk)
            kept.append(torch.ones(1000))  # as kept queries do, it stands between what is freed
    held = sum(buffer.nbytes for buffer in buffers)
    assert held > 100e6
    assert resident() - before < 1.2 * held
    del buffers, buffer
    assert resident() - before < 0.2 * held
