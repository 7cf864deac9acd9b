"""Four processes that add, append, ask, remove and import on one library are killed at any moment: what was
done is there, what was begun is as before or done, and all of it is well."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forged import LONG
from kill_worker import PROCESSES, SHARED
from stored import CONFIG, TEXT, model_of, said

from sakuin import Library
from sakuin.documents import Document
from sakuin.library import archive
from sakuin.storage.whole_files import may_be_temporary

HERE = Path(__file__).parent.parent
KILLS = 200 if LONG else 8


class Processes:
    """The process of kill_worker.py, and its children."""

    def __init__(self, *words: Path) -> None:
        command = [sys.executable, HERE / "kill_worker.py", *words]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self.line() == "ready"

    def line(self, word: object = None) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if word is not None:
            self.process.stdin.write(f"{word}\n")
            self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def work_and_be_killed(self, seed: int, seconds: list[float]) -> None:
        """Kill the four one after another, each after so many seconds more."""
        children = [int(word) for word in self.line(seed).split()]
        assert len(children) == PROCESSES
        for child, wait in zip(children, seconds, strict=True):
            time.sleep(wait)
            os.kill(child, signal.SIGKILL)
        assert self.line("") == "gone"

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(30) == 0


class Expected:
    """What must be in the library, by what the processes have said. least : tokens of a context, by name.
    open : names of which nobody knows, since somebody was killed at them."""

    def __init__(self) -> None:
        self.least: dict[str, int] = {}
        self.done = 0

    def read(self, log: Path) -> set[str]:
        """Take what one process said; the name that it was at."""
        at: tuple[str, str] | None = None
        for line in log.read_text().splitlines():
            how, what, name, *rest = line.split(maxsplit=3)
            assert how != "error", line
            at = (what, name) if how == "begin" else None
            if how != "done":
                continue
            self.done += 1
            if what == "remove":
                self.least.pop(name, None)
            elif what != "gc":
                self.least[name] = max(self.least.get(name, 0), int(rest[0]))
        log.write_text("")
        return {at[1]} if at is not None and at[0] in ("add", "take", "remove") else set()


@pytest.mark.timeout(3600)
def test_nothing_is_lost_whoever_is_killed(tmp_path: Path) -> None:
    library, logs = Library(tmp_path / "library"), tmp_path / "logs"
    logs.mkdir()
    library.add(SHARED, [Document("a.txt", TEXT)], *model_of(), CONFIG)
    archive.export_to(library, SHARED, tmp_path / "shared.tar")
    processes = Processes(library.folder.path, tmp_path / "shared.tar", logs)
    expected, draw = Expected(), random.Random(KILLS)
    expected.least[SHARED] = library.find(SHARED).manifest.outline.tokens
    unknown: set[str] = set()
    for seed in range(KILLS // PROCESSES):
        waits = [draw.uniform(0.1, 1.2), *(draw.uniform(0, 0.3) for _ in range(PROCESSES - 1))]
        processes.work_and_be_killed(seed, waits)
        for log in logs.iterdir():
            unknown |= expected.read(log)
        found = {one.name: one for one in library.entries() if one.state == "whole"}
        assert {one.state for one in library.entries()} <= {"whole", "unfinished"}
        for name in unknown:  # done or not, and from now on known
            expected.least.pop(name, None)
            if name in found:
                expected.least[name] = found[name].tokens
        unknown = set()
        assert found.keys() == expected.least.keys()
        for name, least in expected.least.items():
            assert found[name].tokens >= least, name
        assert all(damage == [] for damage in library.verify().values())
    processes.end()
    print(f"{KILLS} kills, {expected.done} operations done")
    for name in expected.least:
        assert said(library.open(name, *model_of()))[0]
    library.gc()
    needed = {file for name in expected.least for file in library.find(name).manifest.files}
    assert library.folder.parts.all().keys() == needed
    assert list(library.folder.incoming.iterdir()) == []
    assert not [path for path in library.folder.path.rglob("*") if may_be_temporary(path.name)]
