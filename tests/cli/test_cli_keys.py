"""`sakuin keys` as an operator meets it: a key is printed once, and none of it needs a model library."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli import refused, run

from sakuin.cli import app
from sakuin.server.tenants.keys import Keys
from sakuin.server.tenants.tenant import Allowed, Tenant

HEAVY = ("torch", "transformers", "numpy", "llama_cpp", "xllamacpp", "fastapi", "uvicorn")
LIGHT = (
    "import atexit, sys\n"
    f"atexit.register(lambda: print([one for one in {HEAVY!r} if one in sys.modules], file=sys.stderr))\n"
    "from sakuin.cli import main\nmain()\n"
)
WITHOUT_ARGON2 = (
    "import sys\nfrom importlib.machinery import PathFinder\n"
    "class Without(PathFinder):\n"
    "    @classmethod\n"
    "    def find_spec(cls, name, path=None, target=None):\n"
    "        return None if name == 'argon2' else PathFinder.find_spec(name, path, target)\n"
    "sys.meta_path[:] = [Without if one is PathFinder else one for one in sys.meta_path]\n"
    "from sakuin.cli import main\nmain()\n"
)


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(tmp_path / "keys.json")


def called(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=False)


def test_a_key_is_made_shown_once_listed_and_revoked(file: str) -> None:
    limits = "--requests-per-minute 60 --concurrent 4 --stored-mb 5000 --context-tokens 32768 --priority 2"
    done = run("keys", "add", "ann", "--api-keys", file, *limits.split(), "--grant", "b", "--grant", "a")
    assert done.returncode == 0, done.stderr
    key = done.stdout.split()[-1]
    assert done.stdout == f"ann may ask with the key {key}\n"
    assert "shown this once" in done.stderr
    allowed = Allowed(60, 4, 5_000_000_000, 32768, 2)
    assert Keys(file).find(key) == Tenant("ann", allowed, frozenset("ab"))
    listed = run("keys", "list", "--api-keys", file).stdout
    assert " ".join(listed.split()).endswith("60 4 5.00 GB 32,768 2 a, b")
    assert key.split("-")[2] not in listed
    done = run("keys", "revoke", "ann", "--api-keys", file)
    assert done.stdout.startswith("the key of ann is revoked; its contexts stay")
    assert Keys(file).find(key) is None
    assert run("keys", "list", "--api-keys", file).stdout.startswith(
        "there are no keys; `sakuin keys add NAME"
    )


def test_all_of_it_is_json_where_that_is_asked_for(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: str) -> object:
        assert not app(["keys", *words, "--api-keys", file, "--json"], standalone_mode=False)
        out, err = capsys.readouterr()
        assert err == ""
        assert out.count("\n") == 1
        return json.loads(out)

    added = said("add", "ann", "--concurrent", "4", "--grant", "handbook")
    assert isinstance(added, dict)
    assert Keys(file).find(added.pop("key")) is not None
    assert said("list") == [added]
    assert added["name"] == "ann"
    assert added["concurrent"] == 4
    assert added["requests_per_minute"] is None
    assert added["grants"] == ["handbook"]
    assert said("revoke", "ann") == {"name": "ann", "revoked": True}
    assert said("list") == []


def test_a_new_key_keeps_the_limits_that_are_not_named(file: str) -> None:
    former = Keys(file).add("ann", Allowed(concurrent=4, priority=1), frozenset({"handbook"}))
    done = run("keys", "add", "ann", "--api-keys", file, "--replace", "--priority", "3")
    key = done.stdout.split()[-1]
    assert "former key has ended" in done.stderr
    assert Keys(file).find(former) is None
    assert Keys(file).find(key) == Tenant("ann", Allowed(concurrent=4, priority=3), frozenset({"handbook"}))


def test_what_cannot_be_is_one_sentence(file: str) -> None:
    assert "there is no file of keys" in refused("keys", "list", "--api-keys", file)
    assert "missing option '--api-keys'" in refused("keys", "list")
    assert "cannot be named '../ann'" in refused("keys", "add", "../ann", "--api-keys", file)
    assert "--concurrent" in refused("keys", "add", "ann", "--concurrent", "0", "--api-keys", file)
    assert not Path(file).exists()
    Keys(file).add("ann")
    said = refused("keys", "add", "ann", "--api-keys", file)
    assert "--replace" in said
    assert "(did you mean ann?)" in refused("keys", "revoke", "an", "--api-keys", file)
    Path(file).write_text("{}")
    assert "is no file of keys" in refused("keys", "revoke", "ann", "--api-keys", file)


@pytest.mark.parametrize("words", ["--help", "add ann", "list", "revoke ann", "revoke nobody"])
def test_nothing_heavy_is_loaded_for_keys(file: str, words: str) -> None:
    Keys(file).add("bob" if words == "add ann" else "ann")
    done = called(LIGHT, "keys", *words.split(), *([] if words == "--help" else ["--api-keys", file]))
    assert done.returncode == (2 if words == "revoke nobody" else 0), done.stderr
    assert done.stderr.splitlines()[-1] == "[]"


def test_without_argon2_it_is_said_what_to_install(file: str) -> None:
    Keys(file).add("ann")
    done = called(WITHOUT_ARGON2, "keys", "add", "bob", "--api-keys", file)
    assert done.returncode == 2
    assert done.stderr == (
        "sakuin: keys are hashed by argon2, which is not installed: pip install 'sakuin[server]'.\n"
    )
    assert called(WITHOUT_ARGON2, "keys", "list", "--api-keys", file).stdout.startswith("name")
    assert called(WITHOUT_ARGON2, "keys", "revoke", "ann", "--api-keys", file).returncode == 0
