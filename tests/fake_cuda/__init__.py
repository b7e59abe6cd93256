"""A driver without a GPU, which runs what was built for one on the CPU and watches how it is used: ``driver.cpp``."""

from __future__ import annotations

import atexit
import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cuda_on_cpu import library_file

from lvc.backends.tvm.gpu.driver import found_gpu
from lvc.backends.tvm.gpu.emission import Parts
from lvc.compiler.artefact import Artefact

SOURCE = Path(__file__).parent / "driver.cpp"
NAME = "libcuda.so.1"


@dataclass(frozen=True)
class FakeDriver:
    """The driver of this process."""

    library: ctypes.CDLL

    def calls(self, name: str) -> int:
        return int(self.library.lvc_fake_calls(name.encode()))

    def launches(self, artefact: Artefact) -> int:
        """How often kernels of an artefact have run."""
        names = [launch.name for made in _parts(artefact).compiled.values() for launch in made.launches]
        return sum(int(self.library.lvc_fake_launches(name.encode())) for name in names)

    def faults(self) -> str:
        """What was wrong in how it was used; at the end nothing may be left, as this tells too."""
        self.library.lvc_fake_faults.restype = ctypes.c_char_p
        return str(self.library.lvc_fake_faults().decode())


@cache
def folder() -> Path:
    """A folder with the driver."""
    made = Path(tempfile.mkdtemp(prefix="lvc-fake-cuda-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    command = ["g++", "-O1", "-g", "-std=c++17", "-Wall", "-Wno-format-truncation", "-shared", "-fPIC", "-pthread"]
    command += [str(SOURCE), "-o", str(made / NAME), f"-Wl,-soname,{NAME}", "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr[:4000]
    return made


def kernels(artefact: Artefact, place: Path) -> Path:
    """The kernels of an artefact that was built here, for the driver: what `LVC_FAKE_KERNELS` names."""
    made = _parts(artefact).compiled.values()
    launches = [launch for compiled in made for launch in compiled.launches]
    return library_file("\n".join(compiled.text for compiled in made), launches, place)


@contextmanager
def fake_gpu(kernels: Path | None, **settings: object) -> Iterator[FakeDriver]:
    """This process has a GPU, as ``driver.cpp`` says: ``capability=80``, ``driver=13000``, ...."""
    given = {f"LVC_FAKE_{name.upper()}": str(value) for name, value in settings.items()}
    given |= {"LVC_FAKE_KERNELS": str(kernels)} if kernels else {}
    driver = FakeDriver(ctypes.CDLL(str(folder() / NAME)))  # found by its name from now on
    driver.library.lvc_fake_reset()
    found_gpu.cache_clear()
    os.environ.update(given)
    try:
        yield driver
    finally:
        for name in given:
            del os.environ[name]
        os.environ["LVC_FAKE_GPUS"] = "0"  # a library that was loaded stays
        found_gpu.cache_clear()
        assert found_gpu() is None
        del os.environ["LVC_FAKE_GPUS"]
        driver.library.lvc_fake_reset()


def _parts(artefact: Artefact) -> Parts:
    parts = artefact.parts
    assert isinstance(parts, Parts)
    return parts
