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
from lvc.backends.tvm.cpu.executable import CpuExecutable
from lvc.backends.tvm.runtime.executable import placed
from lvc.compiler import container, driver
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
        np.testing.assert_array_equal(CpuExecutable(files, threads)(DATA)[0], DATA.clip(0))
    first, second = CpuExecutable(files, threads), CpuExecutable(files, threads)
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


def test_weights_are_used_where_they_lie(tmp_path: Path) -> None:
    """Of a file that was read they are in memory once."""
    layer = torch.nn.Linear(600, 600, bias=False)
    container.write(driver.compile(from_module(layer, torch.zeros(1, 600)), verify=False), tmp_path / "a.lvc")
    artefact = container.read(tmp_path / "a.lvc")
    stored = np.frombuffer(artefact.files["weights.bin"], np.uint8)
    assert placed(artefact.files["weights.bin"]).ctypes.data == stored.ctypes.data
    data = np.random.default_rng(0).standard_normal((1, 600)).astype(np.float32)
    (found,) = CpuExecutable(artefact.files, 1)(data)
    np.testing.assert_allclose(found, data @ layer.weight.detach().numpy().T, rtol=1e-4, atol=1e-5)


def test_weights_that_begin_anywhere_are_copied() -> None:
    content = memoryview(bytes(range(200)))
    for start in range(64):
        found = placed(content[start:])
        assert found.ctypes.data % 64 == 0
        assert found.tobytes() == content[start:]


def test_a_folder_that_cannot_be_written_is_one_error(
    files: Mapping[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(CompileError, match="cannot be loaded") as caught:
        CpuExecutable(files)
    assert "TMPDIR" in caught.value.help
