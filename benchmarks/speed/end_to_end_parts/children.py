"""Children of the benchmark: each a process with one library in it, which does what it is told.

A child may die (llama.cpp's repacked weights do that on some machines) or hang; that is a `Died`, and the
run goes on. Commands and answers are lines of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
from pathlib import Path
from time import monotonic
from typing import Any

from sakuin.machine import children as processes

ROOT = Path(__file__).parents[3]
VARIABLE = "SAKUIN_LLAMA_LIBRARY"


class Died(Exception):
    """A child ended, hung, or could not do what it was told: why, in a few words."""


class Child:
    """A process of `benchmarks.speed.end_to_end_parts.child`.

    kind : of the runner there. settings : for it. library : a llama.cpp library's path, or "".
    """

    def __init__(self, kind: str, settings: dict[str, Any], library: str = "") -> None:
        environment = processes.environment(ROOT, TQDM_DISABLE="1", HF_HUB_OFFLINE="1")
        if library:
            environment[VARIABLE] = library
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  closed by close()
        command = processes.python("-m", "benchmarks.speed.end_to_end_parts.child", kind)
        self._process = subprocess.Popen(
            [*command, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            cwd=ROOT,
            env=environment,
        )
        self._rest = b""

    def ask(self, do: str, timeout: float, **arguments: Any) -> Any:
        """What the runner's method `do` returns. Raises `Died`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise Died(self._end()) from None
        answer = json.loads(self._line(do, timeout))
        if "error" in answer:
            raise Died(answer["error"])
        return answer["ok"]

    def close(self) -> None:
        """End the process."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None and not stream.closed:
                with contextlib.suppress(OSError):  # what was written to it was not read
                    stream.close()
        self._said.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _line(self, do: str, timeout: float) -> bytes:
        assert self._process.stdout is not None
        out, end = self._process.stdout.fileno(), monotonic() + timeout
        while b"\n" not in self._rest:
            if not select.select([out], [], [], max(end - monotonic(), 0))[0]:
                self._process.kill()
                raise Died(f"no answer to {do} in {timeout:.0f} s")
            piece = os.read(out, 1 << 16)
            if not piece:
                raise Died(self._end())
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _end(self) -> str:
        code = self._process.wait()
        if code < 0:
            return signal.Signals(-code).name
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").strip().splitlines()
        return f"exit {code}: {lines[-1] if lines else 'it said nothing'}"
