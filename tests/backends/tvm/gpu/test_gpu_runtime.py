"""What is built for a GPU is loaded and run by a driver that runs its kernels on the CPU and watches every call."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_cuda import FakeDriver, fake_gpu, folder, kernels
from gpu_models import build, needs_nvrtc, rewritten

import lvc
from lvc.backends.tvm.gpu import entry
from lvc.backends.tvm.gpu.emission import Parts
from lvc.backends.tvm.gpu.targets import gpu_of
from lvc.backends.tvm.runtime import library
from lvc.backends.tvm.runtime.executable import Executable
from lvc.compiler import container, dlpack
from lvc.compiler.artefact import Artefact
from lvc.compiler.backend import OtherMachine, Place, Target
from lvc.compiler.cli import main
from lvc.compiler.device_array import DeviceArray
from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.loaded import Loaded
from lvc.compiler.pipeline import catalogue

pytestmark = needs_nvrtc


def network() -> torch.nn.Module:
    """A kernel for each way to launch: tiles, sums in parts with scratch between two launches, a reduction."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 256, 4, 4),
        torch.nn.Conv2d(256, 32, 3),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(32, 10),
    )


class Built:
    """A model, its artefact for capability 8.0, an input, and what PyTorch makes of it."""

    def __init__(self, place: Path) -> None:
        self.model, self.input = rewritten(network(), 1, 3, 16, 16)
        (self.output,) = self.model(self.input)
        self.artefact = build(self.model, "cuda:sm_80")
        self.kernels = kernels(self.artefact, place)
        parts = self.artefact.parts
        assert isinstance(parts, Parts)
        self.modules = len(parts.compiled)
        self.launches = sum(len(parts.compiled[name].launches) for name in parts.kernels)
        assert any(parts.scratch.values())
        self.file = place / "net.lvc"
        container.write(self.artefact, self.file)
        np.save(place / "input.npy", self.input)

    def check(self, output: object) -> None:
        assert isinstance(output, np.ndarray)
        np.testing.assert_allclose(output, self.output, rtol=0, atol=2e-6 * np.abs(self.output).max())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(tmp_path_factory.mktemp("gpu"))


@pytest.fixture
def driver(built: Built) -> Iterator[FakeDriver]:
    """A GPU that is used as it should be."""
    with fake_gpu(built.kernels) as driver:
        yield driver
        gc.collect()
        assert not driver.faults()


def test_a_file_is_loaded_and_run(built: Built, driver: FakeDriver) -> None:
    loaded = lvc.load(built.file)
    for turn in (1.0, -1.0, 1.0):
        output = loaded(turn * built.input)
        if turn > 0:
            built.check(output)
    assert driver.launches(built.artefact) == 3 * built.launches
    assert driver.calls("loaded code") == built.modules
    assert driver.calls("cuMemAlloc_v2") == 2
    assert driver.calls("cuStreamSynchronize") == 3 + 1
    with pytest.raises(UsageError, match="must be f32"):
        loaded(built.input[:, :2])


@pytest.mark.parametrize(
    ("capability", "kind"), [(80, "code"), (86, "code"), (89, "code"), (90, "text"), (100, "text"), (120, "text")]
)
def test_device_code_is_taken_where_it_fits_and_text_on_newer_gpus(built: Built, capability: int, kind: str) -> None:
    with fake_gpu(built.kernels, capability=capability) as driver:
        built.check(lvc.load(built.artefact)(built.input))
        gc.collect()
        assert driver.calls(f"loaded {kind}") == built.modules
        assert not driver.faults()


def test_calls_from_several_threads_have_memory_of_their_own(built: Built, driver: FakeDriver) -> None:
    loaded, failed = lvc.load(built.artefact), []

    def work() -> None:
        try:
            for _ in range(5):
                built.check(loaded(built.input))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert driver.calls("cuModuleLoadData") == built.modules
    assert driver.calls("cuDevicePrimaryCtxRetain") == 1


def test_two_models_share_a_gpu(built: Built, driver: FakeDriver) -> None:
    first, second = lvc.load(built.artefact), lvc.load(built.artefact)
    built.check(first(built.input))
    del first
    gc.collect()
    built.check(second(built.input))


@dataclass
class OnGpu:
    """An array in memory of the driver, as other libraries make them, which ends with it."""

    values: np.ndarray
    shift: int = 0
    strides: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        self.place = ctypes.c_uint64()
        self.cuda("cuMemAlloc_v2", ctypes.byref(self.place), ctypes.c_size_t(self.values.nbytes + self.shift))
        self.copy("cuMemcpyHtoDAsync_v2", self.address, self.values.ctypes.data)

    @property
    def address(self) -> ctypes.c_uint64:
        return ctypes.c_uint64(self.place.value + self.shift)

    def cuda(self, name: str, *arguments: object) -> None:
        library, context = ctypes.CDLL(str(folder() / "libcuda.so.1")), ctypes.c_void_p()
        assert library.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
        assert library.cuCtxPushCurrent_v2(context) == 0
        assert library[name](*arguments) == 0, name
        assert library.cuCtxPopCurrent_v2(ctypes.byref(context)) == 0
        assert library.cuDevicePrimaryCtxRelease_v2(0) == 0

    def copy(self, name: str, to: object, source: object) -> None:
        stream = ctypes.c_void_p()
        self.cuda("cuStreamCreate", ctypes.byref(stream), 0)
        to, source = (at if isinstance(at, ctypes.c_uint64) else ctypes.c_void_p(at) for at in (to, source))  # type: ignore[arg-type]
        self.cuda(name, to, source, ctypes.c_size_t(self.values.nbytes), stream)
        self.cuda("cuStreamSynchronize", stream)
        self.cuda("cuStreamDestroy_v2", stream)

    def read(self) -> np.ndarray:
        made = np.empty_like(self.values)
        self.copy("cuMemcpyDtoHAsync_v2", made.ctypes.data, self.address)
        return made

    def free(self) -> None:
        self.cuda("cuMemFree_v2", self.place)

    @property
    def __cuda_array_interface__(self) -> dict[str, object]:
        typestr = self.values.dtype.str
        given = {"shape": self.values.shape, "typestr": typestr, "data": (self.address.value, False), "version": 3}
        return given | ({"strides": self.strides} if self.strides else {})


def test_arrays_on_the_gpu_are_read_where_they_lie(built: Built, driver: FakeDriver) -> None:
    loaded = lvc.load(built.artefact)
    copied = OnGpu(built.input)
    before = driver.calls("cuMemcpyHtoDAsync_v2")
    built.check(loaded(copied))
    assert driver.calls("cuMemcpyHtoDAsync_v2") == before
    assert driver.calls("cuMemcpyDtoDAsync_v2") == 0
    assert driver.calls("cuCtxSynchronize") == 1
    shifted = OnGpu(built.input, shift=4)
    built.check(loaded(shifted))
    assert driver.calls("cuMemcpyDtoDAsync_v2") == 1
    other = OnGpu(np.ascontiguousarray(built.input[:, :2]))
    with pytest.raises(UsageError, match="must be f32"):
        loaded(other)
    built.check(loaded(built.input))
    for array in (copied, shifted, other):
        array.free()


def test_outputs_may_lie_on_the_gpu(built: Built, driver: FakeDriver) -> None:
    """By the interface in C, at a good place and at a bad one."""
    executable = lvc.load(built.artefact).executable
    assert isinstance(executable, Executable)
    instance = executable._first
    for shift in (0, 4):
        output = OnGpu(np.full_like(built.output, np.nan), shift)
        given = DeviceArray.of(output)
        assert given is not None
        instance.run([built.input], [given])  # type: ignore[list-item]
        built.check(output.read())
        output.free()


@dataclass
class ByDlpack:
    """An array that speaks DLPack and nothing else."""

    array: OnGpu
    device: int = 0
    code: int = 2

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.device

    def __dlpack__(self, stream: int | None = None) -> object:
        assert stream == -1
        values = self.array.values
        self.shape = (ctypes.c_int64 * values.ndim)(*values.shape)
        self.tensor = dlpack._Tensor(
            self.array.address.value, 2, self.device, values.ndim, self.code, 32, 1, self.shape, None, 0
        )
        make = ctypes.pythonapi.PyCapsule_New
        make.restype, make.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        return make(ctypes.addressof(self.tensor), b"dltensor", None)


def test_arrays_of_dlpack_are_read_and_written_where_they_lie(built: Built, driver: FakeDriver) -> None:
    loaded = lvc.load(built.artefact)
    given, made = OnGpu(built.input), OnGpu(np.full_like(built.output, np.nan))
    before = driver.calls("cuMemcpyHtoDAsync_v2"), driver.calls("cuMemcpyDtoHAsync_v2")
    out = ByDlpack(made)
    assert loaded(ByDlpack(given), out=out) is out
    assert (driver.calls("cuMemcpyHtoDAsync_v2"), driver.calls("cuMemcpyDtoHAsync_v2")) == before
    assert driver.calls("cuMemcpyDtoDAsync_v2") == 0
    built.check(made.read())
    with pytest.raises(UsageError, match="lies on GPU 1, and models run on GPU 0"):
        loaded(ByDlpack(given, device=1))
    with pytest.raises(UsageError, match="elements that models do not take"):
        loaded(ByDlpack(given, code=4))
    for array in (given, made):
        array.free()


def test_outputs_are_written_into_given_arrays(built: Built, driver: FakeDriver) -> None:
    loaded = lvc.load(built.artefact)
    place, there = np.full_like(built.output, np.nan), OnGpu(np.full_like(built.output, np.nan))
    assert loaded(built.input, out=place) is place
    built.check(place)
    loaded(built.input, out=[there])
    built.check(there.read())
    there.free()
    wrong = {
        "must be f32": np.empty((1, 9), np.float32),
        "has gaps": np.empty((1, 20), np.float32)[:, ::2],
        "gives 1 output.s., 'out' has 2": [place, place],
    }
    for match, given in wrong.items():
        with pytest.raises(UsageError, match=match):
            loaded(built.input, out=given)


def test_arrays_on_the_gpu_that_cannot_be_read_are_refused(built: Built, driver: FakeDriver) -> None:
    loaded = lvc.load(built.artefact)
    turned = OnGpu(built.input, strides=(4, 4, 4, 4))
    with pytest.raises(UsageError, match="not contiguous"):
        loaded(turned)
    turned.strides = built.input.strides
    built.check(loaded(turned))
    for_cpu = lvc.compile(built.model, "O0", "native", verify=False)
    with pytest.raises(UsageError, match="an input lies on a GPU, and the model runs elsewhere"):
        lvc.load(for_cpu)(turned)
    turned.free()


def test_launches_between_the_same_places_become_a_graph(built: Built, driver: FakeDriver) -> None:
    """Of the second run on; what lies elsewhere in each call is launched one by one."""
    loaded = lvc.load(built.artefact)
    for run in range(4):
        built.check(loaded(built.input))
        assert driver.calls("cuGraphLaunch") == max(0, run)
    assert driver.calls("cuStreamBeginCapture_v2") == driver.calls("cuGraphInstantiateWithFlags") == 1
    assert driver.launches(built.artefact) == 4 * built.launches
    arrays = [OnGpu(built.input) for _ in range(3)]
    for array in arrays:
        built.check(loaded(array))
    assert driver.calls("cuGraphLaunch") == 3
    assert driver.calls("cuGraphExecDestroy") == 1
    built.check(loaded(arrays[-1]))
    built.check(loaded(arrays[-1]))
    assert driver.calls("cuGraphLaunch") == 5
    for array in arrays:
        array.free()


@pytest.mark.parametrize(
    "call", ["cuStreamBeginCapture_v2 1 801", "cuStreamEndCapture 1 901", "cuGraphInstantiateWithFlags 1 801"]
)
def test_without_graphs_kernels_are_launched_one_by_one(built: Built, call: str) -> None:
    with fake_gpu(built.kernels, fail=call) as driver:
        loaded = lvc.load(built.artefact)
        for _ in range(3):
            built.check(loaded(built.input))
        assert driver.calls("cuGraphLaunch") == 0
        assert driver.calls("cuStreamBeginCapture_v2") == 1
        assert driver.launches(built.artefact) == 3 * built.launches
        del loaded
        gc.collect()
        assert not driver.faults()


@pytest.mark.parametrize("fail", ["", "cuMemAllocHost_v2 1 2"])
def test_arrays_of_the_host_go_by_way_of_pinned_memory_where_there_is_some(built: Built, fail: str) -> None:
    with fake_gpu(built.kernels, fail=fail) as driver:
        built.check(lvc.load(built.artefact)(built.input))
        gc.collect()
        assert driver.calls("cuMemAllocHost_v2") == 1
        assert driver.calls("cuMemFreeHost") == (0 if fail else 1)
        assert not driver.faults()


def test_steps_are_timed_one_by_one(built: Built, driver: FakeDriver) -> None:
    times = lvc.load(built.artefact).executable.time_steps([built.input], 2)  # type: ignore[attr-defined]
    assert len(times) == 5
    assert all(seconds > 0 for _, _, seconds in times)


_ELSEWHERE = "this artefact was built for cuda:sm_80, and this machine cannot run it"
FAILURES = {
    "no GPU by its count": ({"gpus": 0}, _ELSEWHERE, "the driver finds no NVIDIA GPU"),
    "no GPU by an error": ({"fail": "cuInit 1 100"}, _ELSEWHERE, "the driver finds no NVIDIA GPU"),
    "a stub of a driver": ({"fail": "cuInit 1 34"}, _ELSEWHERE, "there is no driver for NVIDIA GPUs"),
    "parts that differ": ({"fail": "cuInit 1 803"}, _ELSEWHERE, "the driver is older than CUDA 13.0"),
    "an old GPU": ({"capability": 75}, _ELSEWHERE, "the GPU is older than capability 8.0, which the code is for"),
    "an old driver": ({"driver": 12040}, _ELSEWHERE, "the driver is older than CUDA 13.0, which made the code"),
    "old, of a newer GPU": ({"driver": 12040, "capability": 90}, _ELSEWHERE, "the driver is older than CUDA 13.0"),
    "little memory": ({"memory": 1000}, "the model cannot be run", "there is not enough memory on the GPU"),
    "no memory left": ({"fail": "cuMemAlloc_v2 2 2"}, "the model cannot be run", "there is not enough memory on the"),
    "no context": ({"fail": "cuDevicePrimaryCtxRetain 1 101"}, "the model cannot be run", "an unknown error (101)"),
    "no stream": ({"fail": "cuStreamCreate 1 999"}, "the model cannot be run", "reports an unknown error (999)"),
    "no function": ({"fail": "cuModuleGetFunction 3 500"}, "the model cannot be run", "reports an unknown error (500)"),
    "no copy": ({"fail": "cuMemcpyHtoDAsync_v2 1 1"}, "the model cannot be run", "CUDA_ERROR_INVALID_VALUE (1)"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_what_fails_as_it_is_loaded_is_one_sentence_and_leaves_nothing(built: Built, name: str) -> None:
    settings, what, why = FAILURES[name]
    with fake_gpu(built.kernels, **settings) as driver:
        with pytest.raises(CompileError) as caught:
            lvc.load(built.artefact)
        assert caught.value.what == what
        assert why in caught.value.why
        assert isinstance(caught.value, OtherMachine) == (what == _ELSEWHERE) == bool(caught.value.help)
        assert not driver.faults() or settings.get("fail", "").startswith("cuInit")


def complaint(loaded: Loaded, x: np.ndarray) -> str:
    with pytest.raises(CompileError, match="the model cannot be run") as caught:
        loaded(x)
    return caught.value.why


@pytest.mark.parametrize("call", ["cuLaunchKernel 3 719", "cuStreamSynchronize 2 719", "cuMemcpyDtoHAsync_v2 1 719"])
def test_a_launch_that_fails_is_told_by_every_call_from_then_on(built: Built, call: str) -> None:
    with fake_gpu(built.kernels, fail=call):
        loaded = lvc.load(built.artefact)
        why = "the driver of the GPU reports CUDA_ERROR_LAUNCH_FAILED (719): unspecified launch failure"
        assert [complaint(loaded, built.input) for _ in range(2)] == [why, why]
        del loaded
        gc.collect()


def test_without_a_driver_there_is_one_clear_error(built: Built) -> None:
    """In a process of its own, since a library that was loaded stays."""
    if lvc_has_gpu():
        pytest.skip("this machine has an NVIDIA GPU")
    done = said(["run", str(built.file)], {})
    assert done.returncode == 1
    assert done.stderr.splitlines()[:2] == [
        f"error: {_ELSEWHERE}",
        "  why   there is no driver for NVIDIA GPUs: libcuda.so.1 cannot be opened",
    ]


def lvc_has_gpu() -> bool:
    command = [sys.executable, "-c", "from lvc.backends.tvm.gpu.driver import found_gpu; print(found_gpu())"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() != "None"


def said(arguments: list[str], settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lvc", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **settings})


def fake(built: Built, faults: Path) -> dict[str, str]:
    """The environment of a program that has a GPU."""
    return {"LD_LIBRARY_PATH": str(folder()), "LVC_FAKE_KERNELS": str(built.kernels), "LVC_FAKE_FAULTS": str(faults)}


def test_the_commands_take_it_as_any_other(built: Built, tmp_path: Path) -> None:
    environment = fake(built, tmp_path / "faults")
    output = tmp_path / "out.npy"
    done = said(["run", str(built.file), str(built.file.parent / "input.npy"), "-o", str(output)], environment)
    assert not done.returncode, done.stderr
    built.check(np.load(output)["output"])
    assert (tmp_path / "faults").read_text() == ""
    done = said(["bench", str(built.file), "--repeats", "2", "--per-op", "--json"], environment)
    assert not done.returncode, done.stderr
    assert json.loads(done.stdout)["steps"][0]["nodes"] == ["conv2d", "relu"]


def test_it_is_compiled_for_this_machine_and_checked_on_it(built: Built, capsys: pytest.CaptureFixture[str]) -> None:
    """The kernels are those of the model that was built before, so that the driver has them."""
    with fake_gpu(built.kernels, name="NVIDIA A100-SXM4-40GB") as driver:
        target = Target.parse("native-gpu")
        assert target.cpu == "a100"
        backend = catalogue.BACKENDS.get("tvm")
        assert backend.place(target) is Place.HERE
        assert backend.place(Target.parse("cuda:sm_90")) is Place.ELSEWHERE
        assert backend.spelling(target) == "cuda:a100"
        artefact = lvc.compile(built.model, "O0", "cuda:sm_80")
        assert driver.launches(built.artefact) > 0
        assert "skipped" not in json.dumps(artefact.metadata["report"]["built"])
        assert main(["targets", "--json"]) == 0
        found = {one["target"]: one["runs"] for one in json.loads(capsys.readouterr().out)}
        assert (found["native-gpu"], found["cuda:sm_80"], found["cuda:sm_90"]) == ("yes", "yes", "no")


@pytest.mark.parametrize(
    ("name", "capability", "cpu"),
    [
        ("NVIDIA GeForce RTX 4090", 89, "rtx4090"),
        ("NVIDIA H100 80GB HBM3", 90, "h100"),
        ("NVIDIA RTX A6000", 86, "sm_86"),
        ("NVIDIA Something", 121, "sm_120"),
        ("Tesla T4", 75, "t4"),
    ],
)
def test_the_gpu_of_this_machine_is_detected(name: str, capability: int, cpu: str) -> None:
    with fake_gpu(None, name=name, capability=capability):
        assert gpu_of(Target.parse("native-gpu")).capability.number <= capability
        assert Target.parse("native-gpu").cpu == cpu


def test_a_gpu_that_is_too_old_is_no_target() -> None:
    with fake_gpu(None, name="Tesla P100", capability=60), pytest.raises(UsageError, match="not supported") as caught:
        Target.parse("native-gpu")
    assert caught.value.why == "the Tesla P100 has capability 6.0"


def test_a_process_that_was_forked_is_told_to_load_for_itself(built: Built, driver: FakeDriver) -> None:
    loaded = lvc.load(built.artefact)
    read, write = os.pipe()
    if not (child := os.fork()):
        try:
            loaded(built.input)
            os.write(write, b"it ran")
        except CompileError as error:
            os.write(write, error.why.encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 1000).decode().startswith("it was loaded before this process was forked")
    built.check(loaded(built.input))


SABOTAGE = {
    "nothing is waited for": (
        "lvc_cuda.cuStreamSynchronize(model->stream)",
        "0",
        "a stream is destroyed that has work",
    ),
    "memory is kept": ("lvc_cuda.cuMemFree_v2(model->memory)", "0", "bytes of memory are not freed"),
    "code is kept": ("lvc_cuda.cuModuleUnload(gpu->modules[i])", "0", "modules are not unloaded"),
    "the context is kept": ("lvc_cuda.cuDevicePrimaryCtxRelease_v2(gpu->device)", "0", "the context is not released"),
    "no context": ("lvc_status_of(lvc_cuda.cuCtxPushCurrent_v2(model->gpu->context))", "0", "without a context"),
    "memory too small": ("bytes += lvc_placed(lvc_staged(i))", "bytes += 0", "are not all in one allocation"),
    "pinned memory is kept": ("lvc_cuda.cuMemFreeHost(model->pinned)", "0", "bytes of pinned memory are not freed"),
    "a graph is kept": ("lvc_forget(&model->graphs[i])", "0", "instances of graphs are not destroyed"),
    "a recording is kept": ("lvc_cuda.cuGraphDestroy(recorded)", "0", "graphs are not destroyed"),
    "a wrong place": ("model->bases[pointer->base] + pointer->offset", "pointer->offset", "not all in one allocation"),
    "other threads": ("launch->threads, 1, 1, 0", "32, 1, 1, 0", "is launched in"),
}


@pytest.mark.parametrize("name", SABOTAGE)
def test_a_runtime_that_is_wrong_is_found(built: Built, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right, wrong, fault = SABOTAGE[name]
    original = entry.texts

    def texts(names: object) -> dict[str, str]:
        made = original(names)  # type: ignore[arg-type]
        assert made["gpu.h"].count(right) == 1
        return made | {"gpu.h": made["gpu.h"].replace(right, wrong)}

    monkeypatch.setattr(entry, "texts", texts)
    artefact = build(built.model, "cuda:sm_80")
    with fake_gpu(built.kernels) as driver:
        try:
            loaded = lvc.load(artefact)
            loaded(built.input)
            loaded(built.input)
            del loaded
        except CompileError:
            pass
        gc.collect()
        assert fault in driver.faults()


def test_statuses_of_python_are_those_of_c() -> None:
    text = (Path(library.__file__).parent / "include" / "lvc.h").read_text()
    numbers = {name: int(value) for name, value in re.findall(r"LVC_(\w+) = (\d+)", text)}
    assert set(library._HELP_ELSEWHERE) == {numbers[n] for n in ("NO_DRIVER", "NO_GPU", "OLD_GPU", "OLD_DRIVER")}


def test_an_artefact_for_another_processor_beside_the_gpu_is_refused(built: Built) -> None:
    plan = json.loads(bytes(built.artefact.files["plan.json"]))
    files = {**built.artefact.files, "plan.json": json.dumps({**plan, "host": "sparc"}).encode()}
    a = built.artefact
    with pytest.raises(OtherMachine, match="this machine cannot run it") as caught:
        lvc.load(Artefact(a.name, a.backend, a.target, a.inputs, a.outputs, files))
    assert "for sparc" in caught.value.why
