"""Ctrl-C while llama.cpp computes its own layers: the pass did not happen, and the next one is right."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from llama_alone import divergence
from tiny_gguf import Tiny, write

import sakuin
from sakuin.backends.llama_cpp import locate
from sakuin.backends.llama_cpp.loaded import Loaded
from sakuin.config import RetrievalConfig
from sakuin.errors import SakuinError
from sakuin.machine.children import environment, python

pytestmark = pytest.mark.skipif(not locate.available(), reason="there is no llama.cpp here")

CONFIG = RetrievalConfig(index="flat", sink=4, recent=16, segment=64)
READ, NEW = 150, 500
NAMES = ("llama", "gemma3", "lfm2", pytest.param("falcon-h1", marks=pytest.mark.slow))
_SOON = 1e-4


@pytest.fixture(scope="module", params=NAMES)
def tiny(request: Any, tmp_path_factory: Any) -> Tiny:
    return write(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def model(tiny: Tiny) -> Any:
    """All products are llama.cpp's, so that most of a pass is."""
    model, _ = sakuin.load(tiny.gguf, dtype="fp32", backend="llama.cpp")
    model._use(replace(model.loaded.options, least_rows=0, few_rows=0))
    return model


@contextmanager
def signals(at: int) -> Iterator[list[int]]:
    """Within, a signal comes again and again; the one that comes as the `at`th while llama.cpp computes, and
    no code of Python does, is Ctrl-C. Yields how many came so."""
    count, more = [0], [True]

    def arrive(_: int, frame: FrameType | None) -> None:
        if frame is not None and frame.f_code is Loaded.run.__code__:
            count[0] += 1
            if count[0] == at:
                raise KeyboardInterrupt
        if more[0]:
            signal.setitimer(signal.ITIMER_REAL, _SOON)

    before, limit = signal.signal(signal.SIGALRM, arrive), signal.setitimer(signal.ITIMER_REAL, _SOON)
    try:
        yield count
    finally:
        more[0] = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *limit)  # that of whoever runs the tests


def interrupted(model: Any, caches: list[Any], ids: list[list[int]], at: int) -> bool:
    """A pass of these caches, ended as `signals` says. Whether it was."""
    with signals(at):
        try:
            model.forward_together(caches, ids)
        except KeyboardInterrupt:
            return True
    return False


def steps(model: Any, cache: Any) -> torch.Tensor:
    return torch.stack([model.forward(cache, [step]) for step in (9, 10, 11)])


def alike(expected: torch.Tensor, got: torch.Tensor) -> bool:
    return bool(divergence(expected, got).max() < 1e-4)


@pytest.mark.parametrize("config", [CONFIG, None], ids=["flat", "full"])
@pytest.mark.parametrize("lengths", [(0,), (READ, READ + 30)], ids=["first", "two"])
def test_a_pass_that_ctrl_c_ends_inside_llama_cpp_did_not_happen(
    tiny: Tiny, model: Any, config: RetrievalConfig | None, lengths: tuple[int, ...]
) -> None:
    caches = [model.new_cache(config) for _ in lengths]
    for cache, n in zip(caches, lengths, strict=True):
        if n:
            model.forward(cache, tiny.tokens(n)[0].tolist())
    ids = [tiny.tokens(NEW // len(lengths), seed=i)[0].tolist() for i in range(len(lengths))]
    forks = [model.fork(cache) for cache in caches]
    with signals(-1) as count:
        expected = torch.stack(model.forward_together(forks, ids))
    later = [steps(model, fork) for fork in forks]
    came = 0
    for at in sorted({1, 2, max(count[0] // 2, 1), max(count[0] - 1, 1)}):
        forks = [model.fork(cache) for cache in caches]
        if not interrupted(model, forks, ids, at):
            continue  # the pass was faster this time
        came += 1
        assert [fork.n_tokens for fork in forks] == list(lengths)
        for fork, cache in zip(forks, caches, strict=True):
            if fork.n_tokens:  # as it was, before it is read on
                assert alike(steps(model, model.fork(cache)), steps(model, model.fork(fork)))
        assert alike(expected, torch.stack(model.forward_together(forks, ids)))
        for fork, wanted in zip(forks, later, strict=True):
            assert alike(wanted, steps(model, fork))
    assert came


def test_a_step_that_ctrl_c_ends_did_not_happen_or_says_that_the_state_is_lost(
    tiny: Tiny, model: Any
) -> None:
    cache = model.new_cache(CONFIG)
    model.forward(cache, tiny.tokens(READ)[0].tolist())
    before = model.fork(cache)
    expected = steps(model, model.fork(before))
    for _ in range(30):  # a step is short: few of the signals meet one
        fork = model.fork(before)
        if not interrupted(model, [fork], [[9]], 1):
            assert alike(expected[0], model.forward(model.fork(before), [9]))
            continue
        if tiny.recurrent:
            with pytest.raises(SakuinError, match="was lost when a step was stopped"):
                model.forward(fork, [9])
        else:
            assert alike(expected, steps(model, fork))
    assert alike(expected, steps(model, before))


_CHILD = """
import sys
import torch
torch.set_num_threads(1)
import sakuin
from sakuin import Context
model, tokenizer = sakuin.load(sys.argv[1], dtype="fp32", backend="llama.cpp")
text = "The tenant shall return the keys on the day that the contract ends. " * 60
context = Context.from_text(model, tokenizer, "A library does the same with its shelves.")
expected = context.fork()
expected.append(text)
stopped = 0
print("ready", flush=True)
while sys.stdin.readline():
    fork = context.fork()
    try:
        print("reading", flush=True)
        fork.append(text)
    except KeyboardInterrupt:
        stopped += 1
        fork = fork if fork.tokens == context.tokens else None
        assert fork is not None, "half of the text was taken"
        fork.append(text)
    answers = [each.ask("When?", max_new_tokens=4).text for each in (fork, expected)]
    assert answers[0] == answers[1], answers
    print("stopped", stopped, flush=True)
"""


def test_a_real_sigint_while_a_document_is_read_leaves_the_context(tmp_path: Path) -> None:
    path = write("gemma3", tmp_path).gguf
    child = subprocess.Popen(
        python("-c", _CHILD, str(path)),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        said = child.stdout.readline()
        for wait in (0.0, 0.02):
            child.stdin.write("go\n")
            child.stdin.flush()
            said = child.stdout.readline()
            time.sleep(wait)
            child.send_signal(signal.SIGINT)
            said = child.stdout.readline()
            if not said.startswith("stopped"):
                break
    finally:
        _, errors = child.communicate()
    assert said.startswith("stopped"), errors[-2000:]
    assert said != "stopped 0\n"
