"""Keeps what `sakuin eval` found on this machine beside the benchmarks' results, for docs/fidelity.md.

Run: python -m tools.keep_evaluation FOLDER... [--name NAME] [--pictures]
A FOLDER is one that `sakuin eval` wrote into its --out; NAME, by default the folder's, is that of the file.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks.common import console, write

KINDS = ("fidelity", "needle", "extract", "ruler", "harness")
DROPPED = ("cells", "texts", "pictures")
"""What only the folder keeps: each answer."""
PICTURES = ("bytes.png", "heads-balanced.png", "needle.png")
ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", metavar="FOLDER", type=Path)
    parser.add_argument("--name")
    parser.add_argument("--pictures", action="store_true", help="also copy the pictures into docs/pictures")
    chosen = parser.parse_args()
    if chosen.name and len(chosen.folders) > 1:
        parser.error("--name is for one folder")
    kept = {}
    for folder in chosen.folders:
        kinds = [kind for kind in KINDS if (folder / f"{kind}.json").is_file()]
        if not kinds:
            parser.error(f"{folder} holds no results of sakuin eval")
        kept[folder] = json.loads((folder / f"{kinds[0]}.json").read_text("utf-8"))
    for folder, found in kept.items():
        keep(folder, chosen.name or folder.name, found, chosen.pictures)


def keep(folder: Path, name: str, found: dict[str, Any], pictures: bool) -> None:
    """Write one folder's results, and copy its pictures."""
    write(f"evaluation-{name}", {key: value for key, value in found.items() if key not in DROPPED})
    for picture in PICTURES if pictures else ():
        if (folder / picture).is_file():
            to = ROOT / "docs" / "pictures" / f"{name}-{picture}"
            to.parent.mkdir(exist_ok=True)
            shutil.copy(folder / picture, to)
            console.print(f"wrote {to.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
