"""Keeps what `sakuin eval` found on this machine beside the other benchmarks' results, for docs/fidelity.md.

Run: python benchmarks/evaluation.py FOLDER [--name NAME] [--pictures]
FOLDER is one that `sakuin eval` wrote into its --out; NAME, by default the folder's, is that of the file.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from common import console, write

DROPPED = ("cells", "texts", "pictures")
"""What only the folder keeps: each answer."""
PICTURES = ("bytes.png", "heads-balanced.png", "needle.png")
HERE = Path(__file__).parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--name")
    parser.add_argument("--pictures", action="store_true", help="also copy the pictures into docs/pictures")
    chosen = parser.parse_args()
    name = chosen.name or chosen.folder.name
    kinds = [kind for kind in ("fidelity", "needle", "extract") if (chosen.folder / f"{kind}.json").is_file()]
    if not kinds:
        parser.error(f"{chosen.folder} holds no results of sakuin eval")
    found = json.loads((chosen.folder / f"{kinds[0]}.json").read_text("utf-8"))
    write(f"evaluation-{name}", {key: value for key, value in found.items() if key not in DROPPED})
    for picture in PICTURES if chosen.pictures else ():
        if (chosen.folder / picture).is_file():
            to = HERE / "docs" / "pictures" / f"{name}-{picture}"
            to.parent.mkdir(exist_ok=True)
            shutil.copy(chosen.folder / picture, to)
            console.print(f"wrote {to.relative_to(HERE)}")


if __name__ == "__main__":
    main()
