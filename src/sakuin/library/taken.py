"""What is said of a name that is taken, and what can be done about it. Called by `sakuin.library.library`."""

from __future__ import annotations

from sakuin.errors import SakuinError


def refuse_taken(name: str, *, there: bool, begun: bool, remedy: str = "") -> None:
    """Raise `SakuinError` where a context has the name, or is about to.

    there : there is such a context. begun : an add of it was not finished. remedy : how another name is
    given; where it is left out, who asks can also append to the context, replace it, or finish the add.
    """
    gone = f"(`sakuin contexts rm {name}`)"
    if there and remedy:
        raise SakuinError(
            f"there is a context named {name!r} already; {remedy}, or remove that one first {gone}."
        )
    if there:
        raise SakuinError(
            f"there is a context named {name!r} already; take another name, add to it (`sakuin contexts "
            "append`), or let this one take its place with --replace (replace=True)."
        )
    if begun:
        remedy = remedy or "go on with --resume (resume=True)"
        raise SakuinError(f"an add of {name!r} was not finished; {remedy}, or remove it first {gone}.")
