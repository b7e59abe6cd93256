"""Shared libraries of models: where they are loaded from, and how long they stay."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from lvc.backends.tvm import BACKEND
from lvc.backends.tvm.cpu.runtime.executable import Executable
from lvc.compiler.errors import CompileError
from lvc.compiler.load import from_module
from lvc.compiler.pipeline.workspace import Workspace

DATA = np.linspace(-1, 1, 12, dtype=np.float32)


@pytest.fixture(scope="module")
def files() -> Mapping[str, bytes]:
    target = BACKEND.parse_target("native")
    assert target
    return BACKEND.build(from_module(torch.nn.ReLU(), torch.zeros(12)), target, Workspace(threads=1)).files


def loaded_libraries() -> int:
    return len({line.split()[4] for line in Path("/proc/self/maps").read_text().splitlines() if "/model.so" in line})


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="libraries are counted in /proc")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_library_goes_with_the_last_that_uses_it(files: Mapping[str, bytes], threads: int) -> None:
    gc.collect()
    before = loaded_libraries()
    for _ in range(5):
        np.testing.assert_array_equal(Executable(files, threads)(DATA)[0], DATA.clip(0))
    first, second = Executable(files, threads), Executable(files, threads)
    gc.collect()
    assert loaded_libraries() == before + 2
    del first
    gc.collect()
    assert loaded_libraries() == before + 1
    (found,) = second(DATA)
    del second
    gc.collect()
    assert loaded_libraries() == before
    np.testing.assert_array_equal(found, DATA.clip(0))


def test_a_folder_that_cannot_be_written_is_one_error(
    files: Mapping[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(CompileError, match="cannot be loaded") as caught:
        Executable(files)
    assert "TMPDIR" in caught.value.help
