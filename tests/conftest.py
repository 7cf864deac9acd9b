"""What tests share: real small models, fetched once into the user's cache folder and loaded once a
session."""

from __future__ import annotations

import os
import zlib
from importlib.metadata import files
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("SAKUIN_LLAMA_TRIAL", "off")  # seconds for each file; its own tests switch it on

import pytest
from hypothesis import settings

settings.register_profile("fuzz", max_examples=5000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(autouse=True)
def same_numbers(request: pytest.FixtureRequest) -> None:
    """A test's random numbers are the same each time, alone or in any order."""
    import torch

    torch.manual_seed(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(scope="session")
def smollm2() -> tuple[Any, Any]:
    """SmolLM2-135M-Instruct in fp32, and its vocabulary, by llama.cpp.

    What bf16 rounds differs between CPUs, and so do the weights of evidence and, where two tokens are close,
    answers. In fp32 a test sees the same model everywhere."""
    from sakuin import load
    from sakuin.backends import catalogue

    catalogue.get("smollm2")
    return load("smollm2", dtype="fp32", backend="llama.cpp")


@pytest.fixture(scope="session")
def smollm2_by_transformers() -> tuple[Any, Any]:
    """The same, with its tokenizer, by transformers."""
    from sakuin import load
    from sakuin.backends import catalogue

    catalogue.get("smollm2")
    return load("smollm2", dtype="fp32", backend="transformers")


@pytest.fixture(params=["smollm2", "smollm2_by_transformers"])
def either(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """The same by each backend in turn."""
    found: tuple[Any, Any] = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def gemma3() -> tuple[Any, Any]:
    """Gemma 3 270M, a base model, in fp32, and its vocabulary, by llama.cpp."""
    from sakuin import load
    from sakuin.backends import catalogue

    catalogue.get("gemma3-270m")
    return load("gemma3-270m", dtype="fp32", backend="llama.cpp")


@pytest.fixture(scope="session")
def long_text() -> str:
    """Real technical English of some 10,000 tokens: the licences that come with numpy, which sakuin needs
    anyway."""
    path = next(Path(f.locate()) for f in files("numpy") or [] if str(f).endswith("licenses/LICENSE.txt"))
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def longer_text(long_text: str) -> str:
    """Some 30,000 tokens: the licences, then chapters of the language reference that every Python carries."""
    from pydoc_data.topics import topics

    chapters = ("import", "compound", "objects", "assignment", "execmodel", "typesseq", "formatstrings")
    return "\n\n".join([long_text, *(topics[name].strip() for name in chapters if name in topics)])
