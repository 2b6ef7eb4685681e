"""The state of a run of learning on disk: replaced as a whole, refused when it belongs to another run."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tersor.format.writer import explain


@dataclass(frozen=True)
class Checkpoint:
    """One file; `key` names the run it belongs to."""

    path: Path
    key: str

    def save(self, state: dict[str, Any]) -> None:
        """Replace what is there; a killed process leaves the old state or the new one."""
        temporary = self.path.with_suffix(f".{os.getpid()}.part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                torch.save({"key": self.key, **state}, file)
            temporary.replace(self.path)
        except OSError as error:
            raise explain(error, self.path) from error

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """The state that was saved last; None if there is none, or it is of another run or unreadable."""
        try:
            state = torch.load(self.path, map_location=device, weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError):
            return None
        return state if isinstance(state, dict) and state.get("key") == self.key else None
