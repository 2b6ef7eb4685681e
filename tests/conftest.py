"""Settings and fixtures for all tests; plain helpers are in helpers.py."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from helpers import Arrays, realistic_model, save_safetensors
from hypothesis import settings

import tersor
from tersor.report import Report

settings.register_profile("tersor", deadline=None, derandomize=True, database=None, max_examples=40)
settings.load_profile("tersor")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # background jobs: children would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture(scope="session")
def compressed(model: Arrays, tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Path, Report]]:
    """The network compressed to ratios of 4, 8 and 12, with the reports; not to be changed."""
    folder = tmp_path_factory.mktemp("compressed")
    paths = {ratio: folder / f"{ratio}.tsr" for ratio in (4, 8, 12)}
    return {ratio: (path, tersor.compress(model, path, ratio=ratio)) for ratio, path in paths.items()}
