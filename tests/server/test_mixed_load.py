"""Mixed load with whatever clients do: nothing fails, nothing is stuck, nothing is left over, and afterwards
it answers as before.

`SAKUIN_LOAD_SECONDS=3600 pytest -m slow tests/server/test_mixed_load.py` is the form of an hour, where
memory may grow by 2 %.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import pytest
from load_worker import load
from whole_server import Whole, add, chat, until, whole

from sakuin.server.tenants.keys import Keys
from sakuin.server.tenants.tenant import Allowed

SECONDS = float(os.environ.get("SAKUIN_LOAD_SECONDS", "90"))
MIB = 1 << 20


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def answers(server: Whole, key: str) -> list[Any]:
    """What a context and the model say."""
    with server.client(key) as client:
        found = []
        for asked in (chat("Who jumps?", context="fox", max_tokens=12), chat("Who jumps?", max_tokens=12)):
            said = client.post("/v1/chat/completions", json=asked)
            assert said.status_code == 200, said.text
            found.append(said.json()["choices"])
        return found


def attacked(tmp_path: Path, seconds: float, warm_s: float, growth: float) -> None:
    """growth : of memory after a first load of `warm_s` seconds, as a share of it."""
    keys = Keys(tmp_path / "keys.json")
    two = [keys.add(name, Allowed()) for name in ("ann", "bob")]
    settings: dict[str, Any] = {"body_s": 1.0, "max_body_bytes": MIB, "kept_bytes": 32 * MIB}
    with whole(tmp_path / "library", api_keys=str(keys.path), **settings) as server:
        with server.client(two[0]) as client:
            add(client, "fox")
        before = answers(server, two[0])
        assert load(server, two, warm_s, seed=1).wrong == []
        until(server.idles)
        files, memory = open_files(), resident()
        seen = load(server, two, seconds, seed=2)
        assert seen.wrong == []
        until(server.idles)
        until(lambda: server.service.readings.counts() == (0, 0))
        until(lambda: open_files() <= files + 4)
        grown = resident() / memory - 1
        print(f"{sum(seen.statuses.values())} answers, the longest {seen.longest:.1f} s, memory {grown:+.1%}")
        print(dict(seen.statuses))
        assert server.failed == []
        assert not server.server.server_state.connections
        assert grown < growth
        assert answers(server, two[0]) == before
        assert any(status == 413 for _, status in seen.statuses)


def test_twenty_seconds_of_everything(tmp_path: Path) -> None:
    attacked(tmp_path, 12, 8, growth=0.2)


@pytest.mark.slow
@pytest.mark.timeout(2 * SECONDS + 600)
def test_long_load_leaves_memory_flat(tmp_path: Path) -> None:
    attacked(tmp_path, SECONDS, max(30.0, SECONDS / 10), growth=0.02 if SECONDS >= 3600 else 0.1)
