"""Results of a long evaluation, kept as they come, so that an interrupted run goes on where it was.

A file of JSON lines: the first says what was run, each other holds one result under its key, or the machine
on which those after it came. Called by the evaluations beside it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sakuin.capacity.doctor import machine
from sakuin.errors import SakuinError


class Results:
    """Results by key (a string), in the order in which they came.

    path : the file; it is made, with its folder, where it is missing. None keeps nothing.
    about : what must be the same for results to belong together: model, dtype, lengths and the like. A file
        with another is refused with a sentence that names the difference.
    """

    def __init__(self, path: Path | None, about: dict[str, Any]) -> None:
        self.path, self.about = path, json.loads(json.dumps(about))
        self._found: dict[str, Any] = {}
        self._machine = machine()  # now: the code that runs may be changed on disk meanwhile
        self._machines: list[dict[str, Any]] = []
        self._on: dict[str, int] = {}  # the number of the machine of each result
        self._told: set[str] = set()
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # A line without its end is what an interruption left of it.
            data = path.read_bytes() if path.is_file() else b""
            whole = data[: data.rfind(b"\n") + 1]
            if whole:
                self._load(path, whole)
            if len(whole) < len(data):
                with path.open("r+b") as file:
                    file.truncate(len(whole))
            if not whole:
                self._write(json.dumps({"about": self.about}))
        except OSError as error:
            raise SakuinError(
                f"{path} cannot be used for results ({error.strerror}); choose another."
            ) from None

    def _load(self, path: Path, whole: bytes) -> None:
        try:
            first, *lines = [json.loads(line) for line in whole.splitlines()]
            about = first["about"]
            for line in lines:
                if "machine" in line:
                    self._machines.append(line["machine"])
                else:
                    self._found[line["key"]] = line["result"]
                    self._on[line["key"]] = len(self._machines) - 1
        except (ValueError, KeyError, TypeError):
            raise SakuinError(
                f"{path} does not hold results of an evaluation, or is damaged; choose another folder, or "
                "remove the file."
            ) from None
        if about != self.about:
            differ = next(key for key in {**about, **self.about} if about.get(key) != self.about.get(key))
            raise SakuinError(
                f"{path} holds results of another run ({differ} {_short(about.get(differ))}, now "
                f"{_short(self.about.get(differ))}); choose another folder, or remove the file."
            )

    def add(self, key: str, result: Any) -> None:
        """Keep a result for good."""
        if not self._machines or self._machines[-1] != self._machine:
            self._machines.append(self._machine)
            self._write(json.dumps({"machine": self._machine}))
        self._found[key], self._on[key] = result, len(self._machines) - 1
        self._write(json.dumps({"key": key, "result": result}))

    def _write(self, line: str) -> None:
        if self.path is None:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def __contains__(self, key: object) -> bool:
        return key in self._found

    def __getitem__(self, key: str) -> Any:
        self._told.add(key)
        return self._found[key]

    def machine(self) -> dict[str, Any]:
        """The machine, libraries, days and commits of the results that were asked for: each in words, with
        commas where there were several."""
        used = sorted({self._on[key] for key in self._told} - {-1})
        values: dict[str, list[str]] = {}
        for number in used:
            for name, value in self._machines[number].items():
                known = values.setdefault(name, [])
                if value is not None and str(value) not in known:
                    known.append(str(value))
        return {name: ", ".join(known) for name, known in values.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
