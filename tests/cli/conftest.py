"""What tests of the command line share."""

from __future__ import annotations

import pytest
from stored import model_of


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with the tiny model of `stored`, and its tokenizer, to be named by `--model`."""
    folder = tmp_path_factory.mktemp("model")
    for one in model_of():
        one.save_pretrained(folder)
    return str(folder)
