"""Settings and fixtures for all tests; plain helpers are in helpers.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import Arrays, realistic_model, save_safetensors
from hypothesis import settings

settings.register_profile("tersor", deadline=None, derandomize=True, database=None, max_examples=40)
settings.load_profile("tersor")


@pytest.fixture(scope="session")
def model() -> Arrays:
    """A small realistic network; not to be changed."""
    arrays = realistic_model()
    for array in arrays.values():
        array.flags.writeable = False
    return arrays


@pytest.fixture(scope="session")
def model_file(model: Arrays, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network as a safetensors file (the tied head stands there twice); not to be changed."""
    return save_safetensors(tmp_path_factory.mktemp("model") / "model.safetensors", model)
