"""tools/runtime_wheel.py: the wheel is small, and runs models in an environment that has NumPy and nothing else."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from device_servers import KEY, serving
from picture_classifier import picture_classifier
from PIL import Image

import lvc
from lvc.backends.tvm.cpu.host import machine_architecture
from lvc.backends.tvm.cpu.processors import CPUS
from lvc.compiler import container, driver
from lvc.compiler.remote.board import Board

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not (ROOT / "compiler").is_dir(), reason="the suite runs against an installed wheel")

CALL = """
import sys, numpy
import lvc_runtime as lvc
loaded = lvc.load("a.lvc", threads=2)
numpy.save("result.npy", loaded(numpy.load("x.npy")))
assert isinstance(loaded, lvc.Loaded)
assert loaded.artefact.metadata["labels"] == ["a", "b", "c", "d"]
import lvc as same
assert same.load is lvc.load
"""
ONLY_NUMPY = """
import sys
outside = {name.partition(".")[0] for name in sys.modules} - sys.stdlib_module_names - {"__main__", "_virtualenv"}
assert outside <= {"lvc", "lvc_runtime", "numpy"}, outside
"""
ALL_MODULES = """
import importlib, lvc_runtime
for name in %r:
    importlib.import_module(name)
"""


@dataclass(frozen=True)
class Device:
    """An environment with NumPy and the wheel, and a folder with ``a.lvc``, an array and a photograph."""

    python: Path
    folder: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.python), *arguments]
        return subprocess.run(command, cwd=self.folder, env={}, capture_output=True, text=True, check=False)

    def runs(self, *arguments: str) -> str:
        found = self.run(*arguments)
        assert found.returncode == 0, found.stderr
        return found.stdout

    def refuses(self, *arguments: str) -> str:
        found = self.run("-m", "lvc_runtime", *arguments)
        assert found.returncode in (1, 2), found.stderr
        assert "Traceback" not in found.stderr
        return found.stderr


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        import runtime_wheel
    return runtime_wheel


@pytest.fixture(scope="module")
def wheel(tool: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("runtime-wheel")
    tool.main([str(made)])
    (found,) = made.iterdir()
    return found


@pytest.fixture(scope="module")
def artefact() -> lvc.Artefact:
    model = picture_classifier()
    model.labels = ("a", "b", "c", "d")
    return driver.compile(model, "O2", "native", verify=False)


@pytest.fixture(scope="module")
def device(wheel: Path, artefact: lvc.Artefact, tmp_path_factory: pytest.TempPathFactory) -> Device:
    place = tmp_path_factory.mktemp("device")
    venv.create(place / "environment", symlinks=os.name != "nt")
    (packages,) = (place / "environment").glob("lib/python*/site-packages")
    numpy = Path(np.__file__).parent
    for part in (numpy, *numpy.parent.glob("numpy.libs")):
        (packages / part.name).symlink_to(part)
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(packages), str(wheel)]
    subprocess.run([sys.executable, *install], check=True)
    folder = place / "folder"
    folder.mkdir()
    container.write(artefact, folder / "a.lvc")
    np.save(folder / "x.npy", np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32))
    Image.new("RGB", (9, 7), (30, 90, 200)).save(folder / "x.png")
    return Device(place / "environment" / "bin" / "python", folder)


def test_the_wheel_is_small_and_needs_numpy_alone(wheel: Path) -> None:
    assert wheel.stat().st_size < 300_000
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith("/METADATA"))
    needs = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
    assert [line.split()[1].partition(">")[0] for line in needs] == ["numpy"]
    assert f"\nVersion: {lvc.__version__}\n" in metadata
    assert any(name.endswith("include/lvc.h") for name in names)
    assert not any(Path(name).suffix == ".so" for name in names)
    assert {name.partition("/")[0] for name in names} == {"lvc_runtime", f"lvc_runtime-{lvc.__version__}.dist-info"}


def test_a_model_gives_what_it_gives_in_all_of_lvc(device: Device, artefact: lvc.Artefact) -> None:
    device.runs("-c", CALL + ONLY_NUMPY)
    found, data = (np.load(device.folder / name) for name in ("result.npy", "x.npy"))
    np.testing.assert_array_equal(found, lvc.load(artefact, 2)(data))


def test_a_frame_is_prepared_as_in_all_of_lvc(device: Device, artefact: lvc.Artefact) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (30, 45, 3), np.uint8)
    np.save(device.folder / "frame.npy", frame)
    code = "import numpy, lvc_runtime; model = lvc_runtime.load('a.lvc')\n"
    code += "numpy.save('input.npy', model.prepare(numpy.load('frame.npy')))\n"
    device.runs("-c", code + ONLY_NUMPY)
    np.testing.assert_array_equal(np.load(device.folder / "input.npy"), lvc.load(artefact).prepare(frame))


def test_the_guide_runs_as_it_stands(device: Device) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "devices.md").read_text(), re.M | re.S)
    shutil.copy(device.folder / "a.lvc", device.folder / "model.lvc")
    device.runs("-c", example + "assert scores.shape == (1, 4) and labels == list('abcd')\n" + ONLY_NUMPY)


def test_every_module_of_it_can_be_imported(device: Device, tool: ModuleType) -> None:
    names = tool.modules(tool.STARTS)
    device.runs("-c", ALL_MODULES % (names,) + ONLY_NUMPY)


def test_a_module_that_needs_more_is_not_packed(tool: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"imports torch.*: lvc-runtime has NumPy alone"):
        tool.modules(["lvc.compiler.driver"])


def test_what_it_cannot_do_is_said(device: Device) -> None:
    found = device.run("-c", "import lvc_runtime, lvc; lvc.compile")
    assert "AttributeError: lvc-runtime only runs models: install lvc for 'lvc.compile'" in found.stderr


def test_any_folder_called_lvc_is_not_taken_for_it(device: Device) -> None:
    (device.folder / "lvc").mkdir()
    device.runs("-c", CALL)


def test_beside_all_of_lvc_there_is_one_of_each_class(device: Device) -> None:
    packages = next(device.python.parents[1].glob("lib/python*/site-packages"))
    code = (
        f"import sys; sys.path.append({str(packages)!r})\n"
        "import importlib.util, lvc_runtime, lvc\n"
        "assert lvc_runtime.Loaded is lvc.Loaded\n"
        "assert not any(name.startswith('lvc_runtime.') for name in sys.modules)\n"
        "assert importlib.util.find_spec('lvc.compiler.driver') and 'lvc_runtime' not in lvc.__file__\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_command_runs_a_model_on_an_array(device: Device, artefact: lvc.Artefact) -> None:
    found = json.loads(device.runs("-m", "lvc_runtime", "a.lvc", "x.npy", "--json"))
    scores = lvc.load(artefact)(np.load(device.folder / "x.npy"))
    assert isinstance(scores, np.ndarray)
    best = found["results"][0]["top"][0]
    assert (best["index"], best["label"]) == (scores.argmax(), "abcd"[scores.argmax()])
    device.runs("-m", "lvc_runtime", "a.lvc", "x.npy", "-o", "out.npz")
    np.testing.assert_array_equal(np.load(device.folder / "out.npz")["scores"], scores)


def test_it_serves_workstations_with_numpy_alone(device: Device, artefact: lvc.Artefact, tmp_path: Path) -> None:
    """A workstation runs and times there what it made, and the modules that served it were those of the wheel."""
    code = "import sys; from lvc_runtime.serve import main\nmain()\n" + ONLY_NUMPY
    command = [str(device.python), "-I", "-c", code]
    data = np.load(device.folder / "x.npy")
    with serving(tmp_path, command=command) as server:
        with Board(server.address, KEY) as board:
            model = board.load(artefact, 1)
            np.testing.assert_array_equal(model(data)[0], lvc.load(artefact, 1)(data))
            (timing,) = board.time([(model, (data,))], repeats=4)
            assert len(timing.samples) == 4
            assert model.time_steps((data,), 2)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0, server.said
        assert server.said.endswith("stopped\n")


def test_headers_and_the_cmake_package_are_found(device: Device) -> None:
    include, cmake = (Path(device.runs("-m", "lvc_runtime", f"--{kind}-dir").strip()) for kind in ("include", "cmake"))
    runtime = ROOT / "backends" / "tvm" / "runtime"
    for found in (include, cmake):
        wanted = {file.relative_to(runtime) for file in (runtime / found.name).rglob("*") if file.is_file()}
        assert {file.relative_to(found.parent) for file in found.rglob("*") if file.is_file()} == wanted
    assert (include / "lvc.h").is_file()


OTHER_MACHINE = next(cpu for cpu in CPUS.values() if cpu.architecture is not machine_architecture())


def planned(**changes: Any) -> Callable[[lvc.Artefact], lvc.Artefact]:
    """An artefact with another plan."""

    def change(artefact: lvc.Artefact) -> lvc.Artefact:
        plan = {**json.loads(artefact.files["plan.json"]), **changes}
        return replace(artefact, files={**artefact.files, "plan.json": json.dumps(plan).encode()})

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            planned(kind=OTHER_MACHINE.kind, target="another"),
            f"built for another, and this machine cannot run it\n  why   it is code for {OTHER_MACHINE.kind}, "
            f"and the processor is {platform.machine()}",
        ),
        (planned(kind="tomorrow"), "a kind of device that is not known: 'tomorrow'"),
        (planned(features=["telepathy"]), "the processor lacks telepathy"),
        (lambda artefact: replace(artefact, backend="reference"), "no backend 'reference'"),
    ],
)
def test_a_model_for_something_else_is_refused(
    change: Callable[[lvc.Artefact], lvc.Artefact], says: str, device: Device, artefact: lvc.Artefact
) -> None:
    container.write(change(artefact), device.folder / "b.lvc")
    assert says in device.refuses("b.lvc", "x.npy")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["a.lvc", "x.png"], "pip install pillow"),
        (["none.lvc"], "'none.lvc' does not exist"),
        (["x.npy"], "'x.npy' is not a compiled model"),
        (["a.lvc", "none.npy"], "there is no file 'none.npy'"),
        (["cut.lvc", "x.npy"], "not a sound lvc artefact"),
        (["a.lvc", "--threads", "-1"], "--threads"),
    ],
)
def test_mistakes_are_one_error(arguments: list[str], says: str, device: Device) -> None:
    shutil.copy(device.folder / "a.lvc", device.folder / "cut.lvc")
    os.truncate(device.folder / "cut.lvc", 1000)
    assert says in device.refuses(*arguments)
