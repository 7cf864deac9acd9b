"""The console as people have it: the real server over a small model, and Debian's Chromium.

Chromium comes by `apt-get install chromium`; where there is none at all, what needs it is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from console_page import PATIENCE_MS, Opened, Seen, Served, listening, tiny_model
from playwright.sync_api import Browser, Page

from sakuin.server.app import create_app
from sakuin.server.service import Service
from sakuin.server.settings import Settings
from sakuin.server.tenants.keys import Keys
from sakuin.server.tenants.tenant import Allowed


@pytest.fixture(scope="module")
def _served(smollm2: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = Settings(library=str(tmp_path_factory.mktemp("library")), name="smollm2")
    with Service(*smollm2, settings) as service, listening(create_app(service)) as url:
        yield Served(url)


@pytest.fixture
def served(_served: Served) -> Iterator[Served]:
    """The server with a model that answers, and no contexts."""
    yield _served
    _served.clear()


@pytest.fixture(scope="module")
def _keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Keys]]:
    folder = tmp_path_factory.mktemp("keyed")
    keys = Keys(folder / "keys.json")
    key = keys.add("maud", Allowed())
    settings = Settings(library=str(folder / "library"), api_keys=str(folder / "keys.json"), name="tiny")
    with Service(*tiny_model(), settings) as service, listening(create_app(service)) as url:
        yield Served(url, key), keys


@pytest.fixture
def keyed(_keyed: tuple[Served, Keys]) -> Iterator[Served]:
    """A server with keys, over a tiny model."""
    served, _ = _keyed
    yield served
    served.clear()


@pytest.fixture
def opened(chromium: Browser) -> Iterator[Opened]:
    """Opens the console of a server in a browser that has never been there: `opened(served, locale="ja")`.
    At the end, none of the pages has done what it must not."""
    contexts, seen = [], []

    def open_page(served: Served, path: str = "", **how: Any) -> Page:
        how = {"locale": "en-GB", "viewport": {"width": 1360, "height": 860}, **how}
        context = chromium.new_context(**how)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        noted = Seen(served.url)
        noted.watch(page)
        seen.append(noted)
        page.goto(served.url + path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [wrong for each in seen for wrong in each.wrong] == []
