"""A server for the tests of a file."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright
from served import Served, serving
from stored import model_of

from sakuin.backends.base import Backend
from sakuin.context.checks import ready_backend
from sakuin.server.constraints.grammars import Grammars


@pytest.fixture(scope="module")
def served(smollm2: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """SmolLM2 by llama.cpp, served for a file's tests. Its `service.library` is empty at first."""
    with serving(smollm2, tmp_path_factory.mktemp("library"), name="smollm2") as found:
        yield found


@pytest.fixture(scope="module")
def backend(smollm2: tuple[Any, Any]) -> Backend:
    """SmolLM2 without a server."""
    return ready_backend(*smollm2)


@pytest.fixture(scope="module")
def grammars(backend: Backend) -> Grammars:
    """Forms of answers for it."""
    return Grammars(backend)


@pytest.fixture(scope="module")
def tiny_served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A tiny random model by transformers, which answers fast and says nothing that means anything."""
    with serving(model_of(), tmp_path_factory.mktemp("library"), name="tiny") as found:
        yield found


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The browser, one for all tests: a thread has one of Playwright's."""
    binary = shutil.which("chromium")
    if binary is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=["--no-sandbox"])
        yield browser
        browser.close()
