"""A process that is forked while contexts are in use: the child answers as the parent does; nobody hangs."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
LIMIT = 150
"""Seconds for what would hang for ever."""

_BEGIN = """
import multiprocessing, os, sys, threading, time
import torch
from stored import CONFIG, MORE, QUESTION, TEXT, model_of, read, said

def wait(child):
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, status

def in_child(work):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child
"""


def run(body: str, threads: str = "2") -> None:
    done = subprocess.run(
        [sys.executable, "-c", _BEGIN + textwrap.dedent(body) + "\nprint('well')"],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env={**os.environ, "OMP_NUM_THREADS": threads, "PYTHONPATH": str(TESTS)},
    )
    assert done.stdout.endswith("well\n"), done.stderr[-3000:]


@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_child_asks_and_appends_while_the_parent_does(threads: str) -> None:
    run(
        """
        context = read()
        expected = said(context)
        stop = threading.Event()
        def ask():
            while not stop.is_set():
                said(context)
        asking = [threading.Thread(target=ask) for _ in range(3)]
        for one in asking:
            one.start()
        def work():
            assert said(context) == expected
            other = context.fork()
            other.append(MORE)
            said(other)
        for _ in range(6):
            wait(in_child(work))
        stop.set()
        for one in asking:
            one.join()
        """,
        threads,
    )


def test_what_was_being_sealed_is_sealed_by_the_child() -> None:
    run(
        """
        from sakuin.cache import sealing
        from sakuin.cache.sealing import Job, Meter, Sealer
        from sakuin.index.base import new_index
        from sakuin import RetrievalConfig
        index = new_index(2, 16, 2, RetrievalConfig())
        started, go = threading.Event(), threading.Event()
        class Slow(type(index)):
            def append(self, *more):
                started.set()
                if os.getpid() == parent:
                    go.wait()
                super().append(*more)
        parent = os.getpid()
        slow = Slow(2, 16, 2, RetrievalConfig())
        slow.fork = lambda: Slow(2, 16, 2, RetrievalConfig())
        keys = torch.randn(2, 100, 16)
        sealer = Sealer()
        first = Job(keys, keys, None, slow, Meter(), in_tail=True, due=0)
        second = Job(keys, keys, None, first, Meter(), in_tail=True, due=0)
        sealer.submit(first)
        sealer.submit(second)
        started.wait()
        def work():
            assert second.result().n_tokens == 200
            third = Job(keys, keys, None, second, Meter(), in_tail=True, due=0)
            sealer.submit(third)
            assert third.result().n_tokens == 300
        wait(in_child(work))
        go.set()
        assert second.result().n_tokens == 200
        """
    )


def test_a_child_of_multiprocessing_computes() -> None:
    run(
        """
        context = read()
        expected = said(context)
        def work(queue):
            big = torch.randn(600, 600)
            queue.put((said(context), float((big @ big).abs().sum() > 0), torch.get_num_threads()))
        big = torch.randn(600, 600) @ torch.randn(600, 600)  # torch's threads are there
        fork = multiprocessing.get_context("fork")
        queue = fork.Queue()
        child = fork.Process(target=work, args=(queue,))
        child.start()
        got, ran, threads = queue.get(timeout=100)
        child.join(60)
        assert child.exitcode == 0
        assert (got, ran, threads) == (expected, 1.0, 1)
        assert said(context) == expected
        """
    )


def test_a_child_asks_llama_cpp(tmp_path: Path) -> None:
    from sakuin.backends.llama_cpp import locate

    if not locate.available():
        pytest.skip("there is no llama.cpp here")
    run(
        f"""
        sys.path.insert(0, {str(TESTS / "backends" / "llama_cpp")!r})
        from pathlib import Path
        from tiny_gguf import write
        import sakuin
        made = write("llama", Path({str(tmp_path)!r}))
        model, _ = sakuin.load(made.gguf, dtype="fp32", backend="llama.cpp", threads=2)
        ids = made.tokens(200)[0].tolist()
        def logits():
            cache = model.new_cache(sakuin.RetrievalConfig(sink=4, recent=16, segment=64))
            model.forward(cache, ids[:150])
            return torch.stack([model.forward(cache, [token]) for token in ids[150:154]])
        expected = logits()
        stop = threading.Event()
        def ask():
            while not stop.is_set():
                logits()
        asking = threading.Thread(target=ask)
        asking.start()
        def work():
            assert torch.allclose(logits(), expected, atol=1e-4)
        for _ in range(2):
            wait(in_child(work))
        stop.set()
        asking.join()
        """
    )


def test_a_child_has_no_scheduler_and_runs_its_model_itself() -> None:
    run(
        """
        from sakuin.server.scheduler import Closed, Scheduler
        context = read()
        expected = said(context)
        scheduler = Scheduler(context.backend)
        stop = threading.Event()
        def ask():
            while not stop.is_set():
                said(context)
        def work():
            assert said(context) == expected
            try:
                scheduler.submit(iter(()))
            except Closed:
                pass
            else:
                raise AssertionError("it was taken")
            with Scheduler(context.backend) as own:
                assert said(context) == expected
                assert own.turns
        with scheduler:
            asking = [threading.Thread(target=ask) for _ in range(3)]
            for one in asking:
                one.start()
            for _ in range(4):
                wait(in_child(work))
            stop.set()
            for one in asking:
                one.join()
            assert said(context) == expected
        """
    )
