"""Background threads leave torch's team of workers alone (see sakuin.machine.threads)."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

# In a process of its own: how many threads there are depends on all that ran before.
COUNT = """
import os, sys, threading, torch
from sakuin.machine.threads import let_team_go, work_alone
torch.set_num_threads(2)
a, b = torch.randn(3, 2048, 64), torch.randn(3, 64, 64)
def heavy():
    x = a @ b
    torch.linalg.eigh((x.transpose(1, 2) @ x).double())
    torch.randn(1_000_000).exp()
heavy()
before = len(os.listdir("/proc/self/task"))
seen = []
def work():
    if sys.argv[1] == "alone":
        work_alone()
    elif sys.argv[1] == "let go":
        heavy()
        let_team_go()
        seen.append(len(os.listdir("/proc/self/task")) - before - 1)
        seen.append(torch.get_num_threads())
        return
    heavy()
    seen.append(len(os.listdir("/proc/self/task")) - before - 1)
    seen.append(torch.get_num_threads())
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(*seen, torch.get_num_threads())
"""


def counted(how: str) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", COUNT, how], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    return [int(word) for word in done.stdout.split()]


def test_a_thread_that_works_alone_starts_no_workers_and_changes_nothing_elsewhere():
    more, in_thread, in_main = counted("alone")
    assert (more, in_thread, in_main) == (0, 1, 2)


def test_without_it_a_second_team_appears():
    # What the module is for; if this ever fails, torch has changed and the module can go.
    assert torch.backends.openmp.is_available()
    assert counted("together")[0] > 0


def test_a_team_that_is_let_go_ends_and_can_be_had_again():
    more, in_thread, in_main = counted("let go")
    assert (more, in_thread, in_main) == (0, 2, 2)


CHILD = """
import os, torch
from sakuin.machine.threads import let_team_go
torch.set_num_threads(2)
torch.randn(1_000_000).exp()
let_team_go()
torch.randn(1_000_000).exp()
child = os.fork()
if not child:
    let_team_go()
    torch.randn(1_000_000).exp()
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_child_does_not_wait_for_the_team_of_its_parent():
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("0\n", "")


SETTLE = """
import sys, torch
from sakuin.machine import threads
torch.set_num_threads(4)
threads.usable_cpus = lambda: 2
n = threads.settle(int(sys.argv[1]) if sys.argv[1:] else None)
print(n, torch.get_num_threads())
"""


def settled(*words: str, **variables: str) -> list[int]:
    env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"} | variables
    done = subprocess.run(
        [sys.executable, "-c", SETTLE, *words], capture_output=True, text=True, check=True, env=env
    )
    return [int(word) for word in done.stdout.split()]


def test_no_more_threads_than_a_quota_keeps_busy():
    assert settled() == [2, 2]


def test_whoever_says_how_many_threads_gets_them():
    assert settled("3") == [3, 3]
    assert settled(OMP_NUM_THREADS="4") == [4, 4]


# What doctor says without torch, and what a load settles on.
BOTH = (
    "import json, sys\n"
    "from sakuin.machine.cpu import threads_by_itself\n"
    "from sakuin.machine import torch_files\n"
    "light = [threads_by_itself(), torch_files.version(), torch_files.openmp_runtimes()]\n"
    "assert 'torch' not in sys.modules\n"
    "import torch\n"
    "from sakuin.machine.threads import settle\n"
    "heavy = [settle(), torch.__version__, torch_files.openmp_runtimes()]\n"
    "gpus = [torch_files.may_see_gpus(), torch.cuda.is_available()]\n"
    "print(json.dumps([light, heavy, gpus]))\n"
)


@pytest.mark.parametrize("said", [None, "1", "3", "2,1"])
def test_threads_and_runtimes_are_known_without_torch(said: str | None) -> None:
    kept = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    told = {} if said is None else {"OMP_NUM_THREADS": said}
    done = subprocess.run(
        [sys.executable, "-c", BOTH], capture_output=True, text=True, check=True, env=kept | told
    )
    light, heavy, (may, does) = json.loads(done.stdout)
    assert light == heavy
    assert may or not does
