"""Training that was broken off goes on: its state after some step, in one safetensors file.

The file is written beside its place and renamed, so that it is always a whole one, whenever the process is killed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.files import write_atomically
from lvc.compiler.pipeline.checkpoint import Checkpoints
from lvc.compiler.pipeline.ranks import ALONE, Ranks

_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Saved:
    """The state of training after ``step`` steps: tensors by ``kind/name``, and plain data."""

    step: int
    tensors: dict[str, torch.Tensor]
    told: dict[str, Any]

    def of(self, kind: str) -> dict[str, torch.Tensor]:
        """The tensors of one kind by name; empty if none were saved."""
        return {name.removeprefix(f"{kind}/"): x for name, x in self.tensors.items() if name.startswith(f"{kind}/")}


@dataclass(frozen=True)
class TrainingCheckpoint:
    """Where one piece of training keeps its state; nowhere without a folder. All of the ``ranks`` read what the leading
    one kept."""

    checkpoints: Checkpoints
    ranks: Ranks = ALONE

    @property
    def path(self) -> Path | None:
        folder = self.checkpoints.folder
        return folder / f"{self.checkpoints.key}{_SUFFIX}" if folder else None

    def beside(self, suffix: str) -> Path | None:
        """The path of another file about the same training."""
        return self.path.with_suffix(suffix) if self.path else None

    def save(self, step: int, kinds: Mapping[str, Mapping[str, torch.Tensor]], told: Mapping[str, Any]) -> None:
        """Keep the state after a step."""
        if self.path is None:
            return
        tensors = {
            f"{kind}/{name}": value.detach().contiguous()
            for kind, part in kinds.items()
            for name, value in part.items()
        }
        write_atomically(self.path, save(tensors, {"lvc": json.dumps({"step": step, **told})}))

    def load(self) -> Saved | None:
        """Return the state that was kept last; None if there is none. `CompileError` if its file is broken."""
        try:
            content = self.ranks.hear(self.path.read_bytes() if self.path and self.path.exists() else b"")
            if not content:
                return None
            tensors = load(content)
            told = json.loads(_metadata(content)["lvc"])
            return Saved(int(told.pop("step")), tensors, told)
        except OSError as error:
            raise UsageError(f"cannot read '{self.path}'", why=error.strerror or str(error)) from error
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise CompileError(
                f"the checkpoint '{self.path}' is broken", why=str(error), help="remove it to train from the start"
            ) from error


def _metadata(content: bytes) -> dict[str, str]:
    """What a safetensors file says of itself: it begins with the length of its header, 8 bytes, and this, as JSON."""
    length = int.from_bytes(content[:8], "little")
    found: dict[str, str] = json.loads(content[8 : 8 + length])["__metadata__"]
    return found
