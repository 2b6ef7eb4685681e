"""The reference decoder as a module."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def _load() -> ModuleType:
    path = Path(__file__).resolve().parents[1] / "spec" / "reference_decoder.py"
    sys.path.insert(0, str(path.parent))  # its other half stands beside it
    spec = importlib.util.spec_from_file_location("reference_decoder", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


reference = _load()
