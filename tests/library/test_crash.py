"""Killed at any moment, a library holds the old context or the new one, whole; and the order of write, fsync
and rename is such that this holds for power cuts too."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from stored import MORE, model_of, read, said

from sakuin import Library
from sakuin.storage.whole_files import may_be_temporary

HERE = Path(__file__).parent.parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
COMMANDS = ("save", "append")


class Worker:
    """The process of crash_worker.py."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, HERE / "crash_worker.py", folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        assert self.line() == "ready"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def run(self, command: str, kill_after: float | None = None) -> bool:
        """Run a command in a child; whether it was killed."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        child = int(self.line())
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(child, signal.SIGKILL)
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        status = int(self.line())
        assert status in (0, signal.SIGKILL)
        return status != 0


def killed_at_random(tmp_path: Path, times: int) -> dict[str, int]:
    """Kill saves and appends at random moments and check the library after each; how many fell where."""
    library = Library(tmp_path / "library")
    context = read()
    library.save("base", context)
    grown = context.fork()
    grown.append(MORE)
    expected: dict[int, Any] = {one.tokens: said(one) for one in (context, grown)}
    worker = Worker(library.folder.path)
    lasts = {}
    for command in COMMANDS:
        start = time.perf_counter()
        worker.run(f"{command} {'new' if command == 'save' else 'base'}")
        lasts[command] = time.perf_counter() - start
    counts = {"before": 0, "between": 0, "after": 0}
    draw = random.Random(times)
    for i in range(times):
        for entry in library.entries():
            library.remove(entry.name)
        library.save("base", context)
        files = set(library.folder.parts.all())
        command = COMMANDS[i % 2]
        name = "new" if command == "save" else "base"
        if command == "save":  # nothing of it may be there, so that there is something to write
            library.remove("base")
            files = set()
        worker.run(f"{command} {name}", draw.uniform(0, 1.15 * lasts[command]))
        written = set(library.folder.parts.all()) - files
        left = library.folder.parts.strays()
        entries = {entry.name: entry for entry in library.entries()}
        done = name in entries and (command == "save" or entries[name].tokens == grown.tokens)
        where = "after" if done else "between" if written or left else "before"
        counts[where] += 1
        assert all(entry.state == "whole" for entry in entries.values())
        assert all(damage == [] for damage in library.verify().values())
        if command == "append":
            assert "base" in entries
        for one in entries:
            opened = library.open(one, *model_of())
            assert said(opened) == expected[opened.tokens]
        library.gc()
        needed = {
            f"{p['name'][:32]}-{p['sha256']}.safetensors" for n in entries for p in library.show(n)["parts"]
        }
        assert set(library.folder.parts.all()) == needed
        everything = [path.name for path in library.folder.path.rglob("*") if path.is_file()]
        assert not [name for name in everything if may_be_temporary(name)]
    assert worker.process.stdin is not None
    worker.process.stdin.close()
    assert worker.process.wait(30) == 0
    return counts


def test_a_killed_save_or_append_leaves_a_whole_library(tmp_path: Path) -> None:
    counts = killed_at_random(tmp_path, 24)
    assert sum(counts.values()) == 24
    assert counts["between"] > 0


@pytest.mark.slow
def test_two_hundred_kills_leave_whole_libraries(tmp_path: Path) -> None:
    counts = killed_at_random(tmp_path, 200)
    print(counts)
    assert counts["between"] >= 20


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_everything_is_on_the_disk_before_what_names_it(tmp_path: Path) -> None:
    folder, log = tmp_path / "library", tmp_path / "calls"
    command = ["strace", "-f", "-y", "-qq", "-e", "trace=fsync,rename,renameat,renameat2", "-o", str(log)]
    run = subprocess.run(
        [*command, sys.executable, str(HERE / "crash_worker.py"), str(folder), "once"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    if "ptrace" in run.stderr and run.returncode:
        pytest.skip("this system lets nobody trace")
    assert run.returncode == 0, run.stderr
    synced: set[str] = set()
    renamed: list[tuple[str, str]] = []
    waiting = ""  # a folder whose new name is not on the disk yet
    for line in log.read_text().splitlines():
        if found := re.search(r"fsync\(\d+<(.*?)>\)\s+= 0", line):
            synced.add(found[1])
            if found[1] == waiting:
                waiting = ""
        elif found := re.search(r'rename\w*\(.*?"(.*?)",.*?"(.*?)"', line):
            source, target = found[1], found[2]
            if not target.startswith(str(folder)):
                continue
            assert not waiting, f"{waiting} was not synced before {target}"
            assert source in synced, f"{source} was not synced"
            waiting = str(Path(target).parent)
            renamed.append((source, target))
    assert not waiting
    kinds = ["".join(Path(target).suffixes[-1:]) for _, target in renamed if "library.json" not in target]
    # The parts, then the manifest, of the save and of the append.
    assert re.fullmatch(r"(p{3,}m){2}", "".join("m" if kind == ".json" else "p" for kind in kinds))
