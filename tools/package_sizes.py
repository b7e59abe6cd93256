"""What a model adds to a program in C beside its weights: a table for docs/results.md.

python tools/package_sizes.py [TARGET...]

Each model is emitted as a static library and linked into a program without C library, which makes an instance and runs
it: ``cc -nostdlib -static -Wl,--gc-sections``. Counted is all of the program that is loaded, so code, constants, data
and tables of the linker, less the weights.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import lvc
from lvc.backends.tvm.cpu.elf import ObjectFile
from lvc.backends.tvm.cpu.emission import Parts
from lvc.backends.tvm.cpu.toolchain import toolchain_of
from lvc.compiler import container
from lvc.compiler.artefact import Artefact
from lvc.compiler.emission import Emission, emit
from lvc.compiler.load.request import LoadRequest
from lvc.compiler.measure.memory import memory_of
from lvc.compiler.pipeline.workspace import Workspace

EXAMPLES = Path(__file__).parents[1] / "examples"
MODELS = {
    "resnet18": ("torchvision.models:resnet18", (1, 3, 224, 224)),
    "ResNet-20": (f"{EXAMPLES}/cifar_resnet.py:resnet20", (1, 3, 32, 32)),
}
PIPELINES = {"fp32": "O2", "int8": "O1,insert-fake-quant,calibrate{images=2 compare=0}"}
TARGETS = ("native", "x86-64-v3", "cortex-a53", "cortex-a76", "armv7")
ALLOCATED, NO_BITS = 2, 8

PROGRAM = """
#include "net.h"
void *memcpy(void *to, const void *from, __SIZE_TYPE__ count) {
  for (__SIZE_TYPE__ i = 0; i < count; i++) ((volatile char *)to)[i] = ((const char *)from)[i];
  return to;
}
void *memset(void *to, int value, __SIZE_TYPE__ count) {
  for (__SIZE_TYPE__ i = 0; i < count; i++) ((volatile char *)to)[i] = value;
  return to;
}
static _Alignas(64) char memory[NET_MODEL_BYTES(1)], input[NET_INPUT_0_BYTES], output[NET_OUTPUT_0_BYTES];
void start(void) {
  net_model *model;
  const void *inputs[] = {input};
  void *outputs[] = {output};
  if (!net_model_place(memory, sizeof memory, net_weights, 1, 0, &model)) net_run(model, inputs, outputs);
  for (;;) continue;
}
"""


def main(targets: list[str]) -> int:
    print("| model | pipeline | target | beside the weights | weights | instance | of these prepared | `.lvc` |")
    print("|---|---|---|---:|---:|---:|---:|---:|")
    for target in targets or TARGETS:
        for model, (source, shape) in MODELS.items():
            for precision, pipeline in PIPELINES.items():
                artefact = compiled(source, shape, pipeline, target)
                memory = memory_of(artefact)
                assert memory is not None
                assert isinstance(artefact.parts, Parts)
                sizes = [linked(artefact) - memory.weights, memory.weights, artefact.parts.instance_bytes]
                sizes += [memory.prepared, len(container.pack(artefact))]
                print(
                    f"| {model} | {precision} | {target} |", " | ".join(f"{size:,}" for size in sizes), "|", flush=True
                )
    return 0


def compiled(source: str, shape: tuple[int, ...], pipeline: str, target: str) -> Artefact:
    """A model with random weights, calibrated with random images; neither moves a size."""
    images = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
    workspace = Workspace(data={"calib": lambda: [(image, None) for image in images]})
    return lvc.compile(LoadRequest(source, shapes={"": shape}), pipeline, target, verify=False, workspace=workspace)


def linked(artefact: Artefact) -> int:
    """The bytes of a program around a model that are loaded."""
    assert isinstance(artefact.parts, Parts)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        emit(artefact, folder / "net", Emission("static", "net"))
        (folder / "main.c").write_text(PROGRAM)
        command = [
            *toolchain_of(artefact.parts.architecture.triple).command,
            "-Os",
            "-ffreestanding",
            "-fno-asynchronous-unwind-tables",
        ]
        command += [
            "-Inet",
            "main.c",
            "net/libnet.a",
            "-nostdlib",
            "-static",
            "-Wl,--gc-sections,-e,start,--build-id=none",
        ]
        subprocess.run([*command, "-lgcc", "-o", "program"], cwd=folder, check=True)
        sections = ObjectFile.read((folder / "program").read_bytes()).sections
    return sum(section.size for section in sections if section.flags & ALLOCATED and section.type != NO_BITS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
