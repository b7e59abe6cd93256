"""Whole models, and programs in C and C++, over the driver that runs kernels on the CPU."""

from __future__ import annotations

import gc
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from fake_cuda import fake_gpu, folder, kernels
from gpu_models import build, integer_resnet20, needs_nvrtc, rewritten
from programs import SHAPE, network

import lvc
from lvc.backends.tvm.entry import RUNTIME
from lvc.compiler import container
from lvc.compiler.artefact import Artefact
from lvc.compiler.emission import Emission, emit
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace

pytestmark = needs_nvrtc
ROOT = Path(__file__).parents[4]
USE = ROOT / "tests" / "backends" / "tvm" / "cpu" / "cxx" / "use.cpp"


def run_file(artefact: Artefact, place: Path, x: np.ndarray) -> np.ndarray:
    """What the artefact's file gives, by a driver that has nothing to complain of."""
    container.write(artefact, place / "model.lvc")
    with fake_gpu(kernels(artefact, place)) as driver:
        output = lvc.load(place / "model.lvc")(x)
        gc.collect()
        assert not driver.faults()
        assert driver.launches(artefact) > 0
    assert isinstance(output, np.ndarray)
    return output


def check(network: torch.nn.Module, place: Path, *shape: int) -> None:
    model, x = rewritten(network, *shape)
    with torch.no_grad():
        expected = network(torch.from_numpy(x)).numpy()
    found = run_file(build(model), place, x)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_resnet20(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import cifar_resnet

    torch.manual_seed(0)
    check(cifar_resnet.resnet20(), tmp_path, 1, 3, 32, 32)
    sys.modules.pop("cifar_resnet")


def test_resnet20_in_integers(tmp_path: Path) -> None:
    """Every byte of the integer graph."""
    model, x = integer_resnet20()
    np.testing.assert_array_equal(run_file(build(model), tmp_path, x), *model(x))


@pytest.mark.targets
def test_squeezenet(tmp_path: Path) -> None:
    torch.manual_seed(0)
    check(torchvision.models.squeezenet1_1(), tmp_path, 1, 3, 64, 64)


def test_a_program_in_cxx(tmp_path: Path) -> None:
    """The same file, on threads, by the headers that read any artefact; two models in one process share the GPU."""
    model, _ = Pipeline.parse("O2").run(network(), Workspace(threads=1))
    artefact = build(model)
    container.write(artefact, tmp_path / "model.lvc")
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    (tmp_path / "input.bin").write_bytes(x.tobytes())
    use = str(tmp_path / "use")
    command = ["g++", "-std=c++17", "-O1", f"-I{RUNTIME / 'include'}", str(USE), "-o", use, "-pthread", "-ldl"]
    subprocess.run(command, check=True, timeout=240)
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(folder()),
        "LVC_FAKE_KERNELS": str(kernels(artefact, tmp_path)),
        "LVC_FAKE_FAULTS": str(tmp_path / "faults"),
    }
    given = [str(tmp_path / "model.lvc"), str(tmp_path / "input.bin")]
    for what in (["run", *given, str(tmp_path / "result")], ["share", *given]):
        done = subprocess.run([use, *what], env=environment, capture_output=True, text=True, check=False, timeout=240)
        assert not done.returncode, done.stderr
        assert (tmp_path / "faults").read_text() == ""
    (expected,) = model(x)
    found = np.frombuffer((tmp_path / "result").read_bytes(), np.float32).reshape(expected.shape)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())
    environment["LVC_FAKE_GPUS"] = "0"
    done = subprocess.run(
        [use, "run", *given, "none"], env=environment, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode
    assert "an instance cannot be made: the driver finds no NVIDIA GPU" in done.stderr


PROGRAM = """
#include "net.h"
#include <stdio.h>
#include <stdlib.h>

int main(int count, char **arguments) {
  net_model *model;
  void *weights = (void *)WEIGHTS, *input = malloc(NET_INPUT_0_BYTES), *output = malloc(NET_OUTPUT_0_BYTES);
  if (count > 1) {
    FILE *file = fopen(arguments[1], "rb");
    weights = aligned_alloc(64, (NET_WEIGHT_BYTES + 63) / 64 * 64);
    if (fread(weights, 1, NET_WEIGHT_BYTES, file) != NET_WEIGHT_BYTES) return 2;
  }
  int status = net_model_create(weights, 1, 0, &model);
  if (!status && fread(input, 1, NET_INPUT_0_BYTES, stdin) != NET_INPUT_0_BYTES) return 3;
  const void *inputs[] = {input};
  void *outputs[] = {output};
  if (!status) status = net_run(model, inputs, outputs);
  if (status) return fprintf(stderr, "%s", net_status_text(status)), 1;
  fwrite(output, 1, NET_OUTPUT_0_BYTES, stdout);
  net_model_destroy(model);
  return 0;
}
"""


@pytest.mark.parametrize("weights", ["linked", "file"])
def test_a_program_with_an_emitted_library(weights: str, tmp_path: Path) -> None:
    """Names are those of the model, and nothing else is shown."""
    model, _ = Pipeline.parse("O2").run(network(), Workspace(threads=1))
    artefact = build(model)
    emit(artefact, tmp_path / "net", Emission("shared", "net", weights=weights))
    is_linked = weights == "linked"
    names = {"libnet.so", "net.h", "manifest.json", *([] if is_linked else ["net_weights.bin"])}
    assert {file.name for file in (tmp_path / "net").iterdir()} == names
    command = ["nm", "-D", "--defined-only", "libnet.so"]
    shown = subprocess.run(command, cwd=tmp_path / "net", capture_output=True, check=True)
    assert all(line.split()[2].startswith(b"net_") for line in shown.stdout.splitlines())
    (tmp_path / "main.c").write_text(PROGRAM.replace("WEIGHTS,", "net_weights," if is_linked else "0,", 1))
    command = ["cc", "-std=c11", "main.c", "-Inet", "-Lnet", "-lnet", "-Wl,-rpath,net", "-o", "main"]
    subprocess.run(command, check=True, cwd=tmp_path)
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(folder()),
        "LVC_FAKE_KERNELS": str(kernels(artefact, tmp_path)),
        "LVC_FAKE_FAULTS": str(tmp_path / "faults"),
    }
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    command = ["./main", *([] if is_linked else ["net/net_weights.bin"])]
    done = subprocess.run(command, env=environment, cwd=tmp_path, input=x.tobytes(), capture_output=True, check=False)
    assert not done.returncode, done.stderr
    assert (tmp_path / "faults").read_text() == ""
    (expected,) = model(x)
    found = np.frombuffer(done.stdout, np.float32).reshape(expected.shape)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def test_a_program_in_c(tmp_path: Path) -> None:
    """Linked with the library of the artefact, over ``lvc.h`` alone."""
    model, _ = Pipeline.parse("O2").run(network(), Workspace(threads=1))
    artefact = build(model)
    for name in ("model.so", "weights.bin"):
        (tmp_path / name).write_bytes(artefact.files[name])
    serve = RUNTIME / "c" / "serve.c"
    command = ["cc", "-std=gnu11", f"-I{RUNTIME / 'include'}", str(serve), "model.so", "-o", "serve", "-Wl,-rpath,."]
    subprocess.run(command, check=True, cwd=tmp_path)
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(folder()),
        "LVC_FAKE_KERNELS": str(kernels(artefact, tmp_path)),
    }
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    command, calls = ["./serve", "weights.bin", "1"], (struct.pack("<i", 0) + x.tobytes()) * 2
    done = subprocess.run(command, env=environment, cwd=tmp_path, input=calls, capture_output=True, check=True)
    (expected,) = model(x)
    size = 4 + expected.nbytes
    for answer in (done.stdout[:size], done.stdout[size:]):
        assert struct.unpack_from("<i", answer) == (0,)
        found = np.frombuffer(answer, np.float32, offset=4).reshape(expected.shape)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())
