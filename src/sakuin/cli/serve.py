"""`sakuin serve`: a model for many who ask, over HTTP."""

from __future__ import annotations

import socket
from contextlib import closing
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sakuin.cli.errors import Patience, reports_errors
from sakuin.cli.loading import Loading
from sakuin.cli.options import MODEL_HELP, Backend, Device, Dtype, Folder, GpuLayers, Threads, Window
from sakuin.cli.show import tell
from sakuin.errors import SakuinError

if TYPE_CHECKING:
    from sakuin.server.settings import Settings

_MODULES = ("fastapi", "uvicorn", "argon2", "prometheus_client", "llguidance", "python_multipart")


Model = Annotated[
    str | None, typer.Option("--model", metavar="MODEL", help=f"{MODEL_HELP}; smollm2 if left out.")
]
Host = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Where to listen: 127.0.0.1, this machine alone, if left out."),
]
Port = Annotated[
    int | None, typer.Option(metavar="N", help="The port: 8000 if left out, 0 for any free one.")
]
ApiKeys = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Keys that may ask, of `sakuin keys add`; else everybody may."),
]
Config = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Settings in TOML; docs/server.md lists them. Options go first."),
]
Name = Annotated[
    str | None, typer.Option(metavar="NAME", help="What clients call the model, if not by its own name.")
]
AllowHost = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="A name that it may be called by; may be given several times."),
]
Cors = Annotated[
    list[str] | None,
    typer.Option(metavar="ORIGIN", help="Origin of web pages that may call it; may be given several times."),
]
AuditFile = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Write a line of JSON for each question: who asked which context."),
]
LogLevel = Annotated[
    str | None, typer.Option(metavar="debug|info|warning|error", help="What is logged; info if left out.")
]


def serve(
    model: Model = None,
    host: Host = None,
    port: Port = None,
    api_keys: ApiKeys = None,
    config: Config = None,
    name: Name = None,
    allow_host: AllowHost = None,
    cors: Cors = None,
    audit: AuditFile = None,
    log_level: LogLevel = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    window: Window = None,
    backend: Backend = "auto",
    gpu_layers: GpuLayers = "0",
    threads: Threads = None,
    library: Folder = None,
) -> None:
    """Serve a model and its contexts: OpenAI's API, and a page to ask from.

    The page is at the address that is printed, the API under /v1, its description at /docs. Contexts lie in
    the library; `model@context` as the model's name asks one. Ctrl-C lets what runs end, and then ends.
    """
    patience = Patience()
    with reports_errors(patient=patience):
        if missing := [module for module in _MODULES if find_spec(module) is None]:
            raise SakuinError(
                f"serving takes an extra ({missing[0]} is not installed): pip install 'sakuin[server]'."
            )
        from sakuin.server.settings import settings_of

        settings = settings_of(
            config,
            model=model,
            host=host,
            port=port,
            api_keys=api_keys,
            name=name,
            hosts=tuple(allow_host) if allow_host else None,
            cors=tuple(cors) if cors else None,
            audit=audit,
            log_level=log_level,
            library=library,
            backend=None if backend == "auto" else backend,
        )
        loading = Loading(dtype, device, window, settings.backend, gpu_layers, threads)
        _serve(settings, loading, patience)


def _serve(settings: Settings, loading: Loading, patience: Patience) -> None:
    # What is wrong with keys or address is said at once.
    if settings.api_keys is not None:
        from sakuin.server.tenants.keys import Keys

        Keys(settings.api_keys).check()
    with closing(_listening(settings)) as listening:
        loaded = loading.load(settings.model or "smollm2")
        patience.times = 1  # the first Ctrl-C lets what runs end
        _run(settings, loaded, listening)


def _listening(settings: Settings) -> socket.socket:
    """A socket at the address. Connections wait in it until the model is loaded."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM
        )[0]
        found = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SakuinError(f"{settings.host} is no address of this machine ({error.strerror}).") from None
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(where)
        found.listen(1024)
    except OSError as error:
        found.close()
        raise SakuinError(
            f"{settings.host}:{settings.port} cannot be listened at ({error.strerror}); take another --port, "
            "or 0 for any free one."
        ) from None
    return found


def _run(settings: Settings, loaded: tuple[Any, Any], listening: socket.socket) -> None:
    from sakuin.server import guard, logs, process
    from sakuin.server.app import create_app
    from sakuin.server.service import Service

    logs.configure(settings.log_level, request_id=lambda: guard.request_id.get(None))
    service = Service(*loaded, settings)
    app = create_app(service)
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    tell(f"{service.name} is served at http://{shown}:{port} (Ctrl-C ends it)")
    process.run(app, service, listening)
