"""The map of the rooms: files that it names exist, every room has its line, arrows lead down."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "sakuin"
PAGES = [ROOT / "docs" / "architecture.md", ROOT / "CONTRIBUTING.md"]


@pytest.fixture
def rooms(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "tools/docs")
    return importlib.import_module("rooms")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_the_page_names_exist(page: Path) -> None:
    text = re.sub(r"<!-- map: begin -->.*<!-- map: end -->", "", page.read_text("utf-8"), flags=re.DOTALL)
    named = set(re.findall(r"`([\w./-]*/[\w-]+\.(?:py|[ch]pp|md|toml)|[\w./-]+/)`", text))
    assert len(named) > 3
    assert [name for name in named if not ((ROOT / name).exists() or (PACKAGE / name).exists())] == []


def test_every_folder_is_a_room_on_the_map(rooms: ModuleType) -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert {room.name for room in rooms.rooms()} == folders
    for room in rooms.rooms():
        assert room.about, room.name
        assert room.parts, room.name


def test_a_room_stands_above_all_that_it_imports_from(rooms: ModuleType) -> None:
    order = [room.name for room in rooms.rooms()]
    for name, others in rooms.imports().items():
        assert all(order.index(other) < order.index(name) for other in others), name
        assert set(rooms.direct(name)) <= others
        reached = set(rooms.direct(name)).union(*(rooms.below(other) for other in rooms.direct(name)))
        assert reached >= others, name  # what the picture leaves out is on a way that it shows
