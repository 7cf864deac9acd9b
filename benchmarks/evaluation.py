"""Keeps what `sakuin eval` found on this machine beside the other benchmarks' results, for docs/fidelity.md.

Run: python benchmarks/evaluation.py FOLDER...  (folders that `sakuin eval` wrote into its --out)
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from common import write

DROPPED = ("cells", "texts", "pictures")
"""What only the folder keeps: each answer."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    for folder in parser.parse_args().folders:
        (path,) = (
            folder / f"{kind}.json"
            for kind in ("fidelity", "needle", "extract")
            if (folder / f"{kind}.json").is_file()
        )
        found = json.loads(path.read_text("utf-8"))
        write(
            f"evaluation-{folder.name}", {name: value for name, value in found.items() if name not in DROPPED}
        )


if __name__ == "__main__":
    main()
