"""`sakuin keys`: who may ask a server, and how much. Needs neither a model nor torch."""

from __future__ import annotations

import time
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sakuin.cli.errors import reports_errors
from sakuin.cli.options import Json
from sakuin.cli.show import say, say_json, show_table, tell
from sakuin.quantities import size_of

if TYPE_CHECKING:
    from sakuin.server.tenants.keys import Key, Keys

app = typer.Typer(help="Keys of those who may ask a server, in a file.", no_args_is_help=True)

File = Annotated[
    str, typer.Option("--api-keys", metavar="FILE", help="The file of keys that `sakuin serve` is given.")
]
Tenant = Annotated[
    str, typer.Argument(metavar="NAME", help="Who has the key; contexts are kept under this name.")
]


Minute = Annotated[
    int | None,
    typer.Option(min=1, max=100_000, metavar="N", help="Requests a minute; no limit if left out."),
]
AtOnce = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Requests that run at once; no limit if left out.")
]
Stored = Annotated[
    int | None,
    typer.Option(
        min=0, metavar="N", help="Millions of bytes that its contexts may take; no limit if left out."
    ),
]
Tokens = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="Tokens of a context and of a prompt; the model's window if left out."
    ),
]
Priority = Annotated[
    int | None,
    typer.Option(
        min=-1000, max=1000, metavar="N", help="Whose requests go first: the higher; 0 if left out."
    ),
]
Grant = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CONTEXT",
        help="A context of the server's own library that it may ask too. May be given several times.",
    ),
]


@app.command("add")
def add(
    name: Tenant,
    api_keys: File,
    requests_per_minute: Minute = None,
    concurrent: AtOnce = None,
    stored_mb: Stored = None,
    context_tokens: Tokens = None,
    priority: Priority = None,
    grant: Grant = None,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="Give a new key to who has one; limits that are not named stay as they were."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Make a key and print it, as the last word: it is kept nowhere, only its hash is. The file is made if it
    is not there."""
    with reports_errors():
        from sakuin.server.tenants.keys import Keys
        from sakuin.server.tenants.tenant import Allowed

        keys = Keys(api_keys)
        said = {
            "requests_per_minute": requests_per_minute,
            "concurrent": concurrent,
            "stored_bytes": None if stored_mb is None else stored_mb * 10**6,
            "context_tokens": context_tokens,
            "priority": priority,
        }
        former = _former(keys, name) if replace else None
        limits = asdict(Allowed() if former is None else former.tenant.allowed)
        limits |= {one: value for one, value in said.items() if value is not None}
        grants = frozenset(grant or (former.tenant.grants if former else ()))
        key = keys.add(name, Allowed(**limits), grants, replace)
        made = next(one for one in keys.listed() if key.split("-")[1] == one.id)
        if json:
            say_json(_said(made) | {"key": key})
            return
        tell("The key is shown this once: only its hash is kept.")
        if former is not None:
            tell("Its former key has ended.")
        say(f"{made.tenant.name} may ask with the key {key}")


@app.command("list")
def list_(api_keys: File, json: Json = False) -> None:
    """List who has a key, since when, and with what limits. No key is shown: none is kept."""
    with reports_errors():
        from rich.table import Table

        from sakuin.server.tenants.keys import Keys

        keys = Keys(api_keys).listed()
        if json:
            say_json([_said(one) for one in keys])
            return
        if not keys:
            say(f"there are no keys; `sakuin keys add NAME --api-keys {api_keys}` makes one")
            return
        table = Table(box=None, pad_edge=False)
        columns = ("name", "made", "a minute", "at once", "stored", "tokens", "priority", "contexts granted")
        for column in columns:
            table.add_column(column, justify="left" if column in ("name", "contexts granted") else "right")
        for one in keys:
            allowed = one.tenant.allowed
            table.add_row(
                one.tenant.name,
                time.strftime("%Y-%m-%d", time.localtime(one.created)),
                _limit(allowed.requests_per_minute),
                _limit(allowed.concurrent),
                "any" if allowed.stored_bytes is None else size_of(allowed.stored_bytes),
                _limit(allowed.context_tokens),
                str(allowed.priority),
                ", ".join(sorted(one.tenant.grants)),
            )
        show_table(table)


@app.command("revoke")
def revoke(name: Tenant, api_keys: File, json: Json = False) -> None:
    """Take a key away. A server that runs refuses it from then on; the contexts stay, for whoever is given a
    key under the same name."""
    with reports_errors():
        from sakuin.server.tenants.keys import Keys

        Keys(api_keys).revoke(name)
        if json:
            say_json({"name": name, "revoked": True})
        else:
            say(f"the key of {name} is revoked; its contexts stay, for whoever has a key under this name")


def _former(keys: Keys, name: str) -> Key | None:
    """What `name` has already; None without a file."""
    from sakuin.library.folder import normal

    if not keys.path.exists():
        return None
    return next((one for one in keys.listed() if one.tenant.name == normal(name)), None)


def _said(key: Key) -> dict[str, Any]:
    from sakuin.server.tenants.tenant import Allowed

    limits = {one.name: getattr(key.tenant.allowed, one.name) for one in fields(Allowed)}
    return (
        {"name": key.tenant.name, "id": key.id, "created": key.created}
        | limits
        | {"grants": sorted(key.tenant.grants)}
    )


def _limit(number: int | None) -> str:
    return "any" if number is None else f"{number:,}"
