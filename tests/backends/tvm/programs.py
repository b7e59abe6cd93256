"""The network that programs in C and C++ run in tests, and how these programs are run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import torch

import lvc
from lvc.compiler.artefact import Artefact
from lvc.compiler.ir.model import Model

SHAPE = (1, 3, 16, 16)


def network(seed: int = 0) -> Model:
    """Scores of ten classes, by weights that are prepared, and layers that threads share."""
    torch.manual_seed(seed)
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(3, 32, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(32, 64, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(64, 10),
    )
    return lvc.from_module(layers, torch.zeros(SHAPE))


def output_of(artefact: Artefact, x: np.ndarray, target: str) -> np.ndarray:
    """What Python computes."""
    output = lvc.load(artefact, emulate=target != "native")(x)
    assert isinstance(output, np.ndarray)
    return output


def run(*command: str, folder: Path | None = None, text: str = "", timeout: float | None = 240) -> str:
    """What a program says that must succeed, within so many seconds."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout, cwd=folder, input=text)
    assert not done.returncode, done.stderr[-4000:]
    return done.stdout
