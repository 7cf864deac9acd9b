"""What a server is told: options before the file, the file before what is usual; mistakes in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from sakuin.errors import SakuinError
from sakuin.server.settings import Settings, settings_of


def test_options_go_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "sakuin.toml"
    file.write_text('port = 9000\nmodel = "smollm2"\nhosts = ["a.example", "b.example"]\nkeep_alive_s = 5\n')
    settings = settings_of(str(file), port=9001, host=None)
    assert (settings.port, settings.model, settings.host) == (9001, "smollm2", "127.0.0.1")
    assert settings.hosts == ("a.example", "b.example")
    assert settings.keep_alive_s == 5.0
    assert settings_of(None) == Settings()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prot = 9000\n", "'prot' that is not known"),
        ('port = "many"\n', "port in"),
        ("port = 70000\n", "from 0 to 65535"),
        ("running = 0\n", "running must be at least 1"),
        ("body_s = nan\n", "body_s must be at least 0"),
        ('log_level = "loud"\n', "debug, info, warning or error"),
        ("port 9000\n", "is not TOML"),
        ("\0", "is not TOML"),
    ],
)
def test_mistakes_are_said(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "sakuin.toml"
    file.write_text(text)
    with pytest.raises(SakuinError, match=says) as error:
        settings_of(str(file))
    assert str(error.value).count("\n") == 0


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SakuinError, match="cannot be read"):
        settings_of(str(tmp_path / "none.toml"))


def test_others_are_let_in_only_with_keys() -> None:
    with pytest.raises(SakuinError, match="sakuin keys add"):
        Settings(host="0.0.0.0")
    assert Settings(host="0.0.0.0", api_keys="keys.json").host == "0.0.0.0"
