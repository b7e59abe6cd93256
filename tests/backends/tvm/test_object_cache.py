"""The cache of kernels on disk: damaged, full, unusable, and shared by processes that build at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lvc.backends.tvm.object_cache import Object, ObjectCache

MADE = Object(b"\x7fELF\n of some kind", (8192, 4096), "not this way")


def test_what_was_put_is_got(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path / "new")
    assert cache.get("a") is None
    cache.put("a", MADE)
    assert cache.get("a") == MADE
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["a.o"]


@pytest.mark.parametrize("damage", [b"", b"{}", b"\x7fELF", b"null\ncode", b'{"magic": "lvc kernel 2"}\ncode'])
def test_a_damaged_entry_is_no_entry(tmp_path: Path, damage: bytes) -> None:
    cache = ObjectCache(tmp_path)
    (tmp_path / "a.o").write_bytes(damage)
    assert cache.get("a") is None


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path)
    cache.put("a", MADE)
    content = (tmp_path / "a.o").read_bytes()
    (tmp_path / "a.o").write_bytes(content[:-1] + b"!")
    assert cache.get("a") is None
    cache.put("a", MADE)
    assert cache.get("a") == MADE


def test_the_oldest_entries_go_first(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path, most_bytes=4000)
    for number in range(4):
        cache.put(str(number), Object(bytes(1000)))
        os.utime(tmp_path / f"{number}.o", (number, number))
    assert cache.get("0")  # now used last
    cache.trim()
    assert [cache.get(str(number)) is not None for number in range(4)] == [True, False, False, True]
    cache.trim()
    assert cache.get("0")


def test_no_folder_is_no_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for cache in (ObjectCache(None), ObjectCache(tmp_path / "file")):
        cache.put("a", MADE)
        cache.trim()
        assert cache.get("a") is None


BUILD = """
import sys, torch
from lvc.backends.tvm.backend import TvmBackend
from lvc.compiler.load import from_module
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.workspace import Workspace

width = int(sys.argv[1])
torch.manual_seed(width)
layers = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, width, 3))
model = from_module(layers, torch.zeros(1, 3, 12, 12), name="m")
backend = TvmBackend()
artefact = backend.build(model, backend.parse_target("native"), Workspace())
sys.stdout.write(artefact.files["model.so"].hex())
"""


USE = """
import sys
from pathlib import Path
from lvc.backends.tvm.object_cache import Object, ObjectCache

cache, seen = ObjectCache(Path(sys.argv[1]), most_bytes=300_000), 0
for turn in range(200):
    wanted = Object(bytes([turn % 5]) * 50_000, (turn % 5,))
    found = cache.get(str(turn % 5))
    assert found in (None, wanted), "a torn entry"
    seen += found is not None
    cache.put(str(turn % 5), wanted)
    cache.trim()
print(seen)
"""


def test_processes_that_share_a_folder(tmp_path: Path) -> None:
    """They write, read and remove the same entries at once; each sees whole ones only."""
    command = [sys.executable, "-c", USE, str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert all(int(output) > 0 for output in outputs)


@pytest.mark.slow
def test_processes_that_build_at_once(tmp_path: Path) -> None:
    """Two build the same model and one another one, into one empty cache; then all entries are cut off."""
    environment = {**os.environ, "LVC_CACHE": str(tmp_path / "cache")}

    def start(width: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", BUILD, str(width)], stdout=subprocess.PIPE, text=True, env=environment
        )

    running = [start(width) for width in (8, 8, 16)]
    outputs = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert outputs[0] == outputs[1] != outputs[2]
    entries = sorted((tmp_path / "cache").iterdir())
    assert all(entry.suffix == ".o" for entry in entries)
    before = [entry.read_bytes() for entry in entries]
    for entry, content in zip(entries, before, strict=True):
        entry.write_bytes(content[: len(content) // 2])
    assert start(8).communicate()[0] == outputs[0]
    assert start(16).communicate()[0] == outputs[2]
    assert [entry.read_bytes() for entry in entries] == before
