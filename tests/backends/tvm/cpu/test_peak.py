"""The kernel that measures the processor: it computes what it should, and its figure is kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lvc.backends.tvm import BACKEND
from lvc.backends.tvm.build import build_files
from lvc.backends.tvm.cpu import peak
from lvc.backends.tvm.cpu.code_generator import CpuCodeGenerator
from lvc.backends.tvm.cpu.executable import CpuExecutable
from lvc.backends.tvm.cpu.targets import vector_of
from lvc.compiler.backend import Target
from lvc.compiler.pipeline.workspace import Workspace


def native() -> Target:
    target = BACKEND.parse_target("native")
    assert target is not None
    return target


def test_it_does_all_of_its_multiply_adds() -> None:
    vector = vector_of(native())
    built = build_files(peak.program(vector), CpuCodeGenerator.of(native()), native(), Workspace(threads=1))
    (found,) = CpuExecutable(built.files, threads=1)(np.full(peak.data_shape(vector), 0.5, np.float32))
    assert found.shape == (peak.VECTORS * peak.SCALARS, vector.lanes)
    assert (found == 0.25 * peak.DEPTH * peak.TURNS).all()
    assert built.memory.scratch == 0


def test_the_figure_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LVC_CACHE", str(tmp_path))
    monkeypatch.setattr(peak, "measure", lambda _: 5e9)
    assert peak.peak_flops(native()) == 5e9
    monkeypatch.setattr(peak, "measure", lambda _: 6e9)
    assert peak.peak_flops(native()) == 5e9
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text())["flops"] == 5e9
    file.write_text("damaged")
    assert peak.peak_flops(native()) == 6e9
