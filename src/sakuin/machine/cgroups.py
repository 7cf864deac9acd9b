"""Where the limits of this process's containers (cgroups, both versions) lie."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Group:
    """The folder of a cgroup. unified : whether it is of version 2."""

    folder: Path
    unified: bool


def groups(controller: str, own: Path, root: Path = ROOT) -> Iterator[Group]:
    """The groups that may limit a process by a controller ("memory", "cpu"), from its own up to the root.

    own : the process's /proc/<pid>/cgroup. A folder that is named need not be there: in a container the file
    tells the path outside of it, and the container's own group is the root.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top = root
        elif controller in controllers.split(","):
            top = root / controller
        else:
            continue
        folder = top / path.lstrip("/")
        yield Group(folder, controllers == "")
        while folder != top and top in folder.parents:
            folder = folder.parent
            yield Group(folder, controllers == "")
