"""What a server is told: by the command's options, by a file in TOML, or from Python.

A file names the same settings as the options, `max_upload_bytes = 1000000`; what the command says goes before
what the file says. Called by `sakuin.cli.serve` and `sakuin.server.service`.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from sakuin.errors import SakuinError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MIB = 1 << 20


@dataclass(frozen=True)
class Settings:
    """All that a server can be told.

    host, port : where it listens; 0 is any free port.
    library : the folder of contexts, else SAKUIN_LIBRARY or its place. api_keys : the file of keys; without
        one whoever can reach the server may ask it.
    name : of the model, as clients choose it; else its own.
    hosts : names by which the server may be called beside its own address (DNS rebinding is refused by the
        others). cors : web pages' origins that may call it; none unless asked for.
    running, waiting : requests computed at once, and that may wait beside them.
    max_body_bytes, max_upload_bytes : of a request, and of a file that is uploaded.
    body_s : seconds within which a request's body must come, beside 1 for each 100 KB.
    keep_alive_s : seconds after which a stream says that it is alive.
    drain_s : seconds that running requests get to end when the server is told to.
    kept_bytes : of host memory for what finished requests have read, to be gone on from.
    audit : a file for a line of JSON for each question. audit_contents : whether with what was asked.
    log_level : debug, info, warning or error.
    model, backend : what is served, as `sakuin.load` takes them.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    library: str | None = None
    api_keys: str | None = None
    name: str | None = None
    hosts: tuple[str, ...] = ()
    cors: tuple[str, ...] = ()
    running: int = 32
    waiting: int = 256
    max_body_bytes: int = 32 * MIB
    max_upload_bytes: int = 1024 * MIB
    body_s: float = 30.0
    keep_alive_s: float = 10.0
    drain_s: float = 30.0
    kept_bytes: int = 1024 * MIB
    audit: str | None = None
    audit_contents: bool = False
    log_level: str = "info"
    model: str | None = None
    backend: str = "auto"

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise SakuinError(f"port must be from 0 to 65535, got {self.port}.")
        for name in ("running", "waiting", "max_body_bytes", "max_upload_bytes"):
            if getattr(self, name) < 1:
                raise SakuinError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("body_s", "keep_alive_s", "drain_s", "kept_bytes"):
            if not getattr(self, name) >= 0:
                raise SakuinError(f"{name} must be at least 0, got {getattr(self, name)}.")
        if self.log_level not in ("debug", "info", "warning", "error"):
            raise SakuinError(f"log_level must be debug, info, warning or error, got {self.log_level!r}.")
        if self.host not in LOOPBACK and self.api_keys is None:
            raise SakuinError(
                f"listening at {self.host} lets others than this machine in, so it needs keys: make one by "
                "`sakuin keys add NAME --api-keys FILE` and give the file, or listen at 127.0.0.1."
            )


def settings_of(file: str | None, **said: Any) -> Settings:
    """Settings by a file in TOML and by options, of which None says nothing.

    Raises `SakuinError` where the file is none, or a setting of it is unknown or of the wrong type.
    """
    known = get_type_hints(Settings)
    found = {} if file is None else _read(Path(file))
    for name, value in found.items():
        if name not in known:
            names = ", ".join(sorted(one.name for one in fields(Settings)))
            raise SakuinError(f"{file} has a setting {name!r} that is not known; there are {names}.")
        try:
            found[name] = TypeAdapter(known[name]).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise SakuinError(f"{name} in {file}: {reason}, got {value!r}.") from None
    return Settings(**{**found, **{name: value for name, value in said.items() if value is not None}})


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SakuinError(f"{path} cannot be read ({error.strerror}); name a file of settings.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SakuinError(f"{path} is not TOML: {error}.") from None
