"""Long native work in a child process: Ctrl-C ends it, and memory that runs out is an error in a sentence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

LIMIT = 120
"""Seconds for what would take hours, or would never end, if it did not end as it should."""

_BEGIN = """
import os, resource, signal, sys, threading, time
import torch
import sakuin
from sakuin.index import _native
torch.manual_seed(0)
torch.set_num_threads(int(os.environ.get("THREADS", "1")))
keys, values, q = torch.randn(2, 3000, 64), torch.randn(2, 3000, 64), torch.randn(4, 1, 64)
"""


def run(body: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _BEGIN + textwrap.dedent(body)],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env={**os.environ, **environment},
    )


_LONG = """
keys, values, q = torch.randn(1, 6000, 32), torch.randn(1, 6000, 32), torch.randn(1, 1, 32)
index = sakuin.build_index("{kind}", keys, values)
many, mass, one = q.expand(1, 2 * 10**5, 32), torch.zeros(1, 6000), torch.zeros(1, 6000)
index.attend(q, scaling=0.2, mass=one)
scores, ids = torch.empty(1, 2 * 10**5, 5), torch.full((1, 2 * 10**5, 5), -1)
def later():
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
"""


_KINDS = [("sketch", 2), ("flat", 1), ("graph", 1)]


@pytest.mark.parametrize(("kind", "threads"), _KINDS)
def test_ctrl_c_ends_a_step(kind: str, threads: int) -> None:
    done = run(
        _LONG.format(kind=kind)
        + """
try:
    later()
    index.attend(many, scaling=0.2, mass=mass)
except KeyboardInterrupt:
    again = torch.zeros(1, 6000)
    index.attend(q, scaling=0.2, mass=again)  # and the next one works
    assert torch.equal(one, again)
    print("ended", float(mass.sum() / one.sum() / (2 * 10**5)))
""",
        THREADS=str(threads),
    )
    assert done.stdout.startswith("ended"), done.stderr
    assert float(done.stdout.split()[1]) < 0.95  # so large a part of the positions came before


@pytest.mark.parametrize("kind", ["sketch", "ivf"])
def test_ctrl_c_ends_a_search(kind: str) -> None:
    how = {"sketch": "candidates=500, refined=200, reach=2.0", "ivf": "probes=0, budget=500"}[kind]
    done = run(
        _LONG.format(kind=kind)
        + f"""
try:
    later()
    _native.{kind}_search(many, index.segments, 1, scores=scores, ids=ids, {how})
except KeyboardInterrupt:
    print("ended", int((ids < 0).sum()))
"""
    )
    assert done.stdout.startswith("ended"), done.stderr
    assert int(done.stdout.split()[1]) > 0  # positions that were not searched any more


def test_a_signal_handler_that_raises_nothing_lets_a_step_go_on() -> None:
    done = run(
        """
        seen = []
        signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        index = sakuin.build_index("sketch", keys, values, group_size=2)
        while len(seen) < 3:
            part = index.attend(q.expand(4, 300, 64), scaling=0.2)
        print("done", tuple(part.out.shape))
        """
    )
    assert done.stdout.startswith("done (4, 300, 64)"), done.stderr


@pytest.mark.parametrize("kind", ["sketch", "flat", "ivf", "graph"])
def test_memory_that_runs_out_is_an_error_in_a_sentence(kind: str) -> None:
    times = 75 if os.environ.get("HYPOTHESIS_PROFILE") == "fuzz" else 4
    done = run(
        f"""
        import random
        index = sakuin.build_index("{kind}", keys, values, group_size=2)
        expected = index.attend(q, scaling=0.2).out
        ids = index.search(q, 5)[1]
        more = torch.randn(2, 6000, 64)
        random.seed(1)
        def used():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[0]) * 4096
        failed = 0
        for i in range({times}):
            room = int(10 ** random.uniform(3, 7.5))
            resource.setrlimit(resource.RLIMIT_AS, (used() + room, resource.RLIM_INFINITY))
            try:
                fork = index.fork()
                fork.append(more, more)
                fork.attend(q, scaling=0.2)
                fork.search(q.expand(4, 50, 64), 1000)
            except MemoryError as error:
                assert "not enough memory" in str(error), error
                failed += 1
            finally:
                fork = None
                resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            assert torch.equal(index.attend(q, scaling=0.2).out, expected)
            assert torch.equal(index.search(q, 5)[1], ids)
        print("lives", failed)
        """
    )
    assert done.stdout.startswith("lives"), (done.returncode, done.stderr[-2000:])
    assert done.stdout != "lives 0\n"


def test_a_signal_that_ends_the_process_still_does() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", _BEGIN + "index = sakuin.build_index('flat', keys, values, group_size=2)\n"
         "print(1, flush=True)\nindex.attend(q.expand(4, 2 * 10**5, 64), scaling=0.2)"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(signal.SIGTERM)
    assert child.wait(LIMIT) == -signal.SIGTERM
    child.stdout.close()
