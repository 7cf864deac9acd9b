"""A fork waits for locks that guard what a child could not open."""

from __future__ import annotations

import subprocess
import sys

FORK = """
import os, threading, time
from sakuin.machine.forks import lock_for_forks

held = lock_for_forks()
inside, begun = False, threading.Event()

def work():
    global inside
    with held, held:
        inside = True
        begun.set()
        time.sleep(0.3)
        inside = False

for _ in range(2):
    begun.clear()
    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    child = os.fork()
    if not child:
        with held:  # it is open here
            os._exit(int(inside))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    thread.join()
with held:
    child = os.fork()  # held by who forks
    if not child:
        with held:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print("well")
"""


def test_no_child_is_made_while_a_thread_is_inside() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "well\n", done.stderr
