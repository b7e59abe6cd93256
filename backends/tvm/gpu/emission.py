"""What is written of a model for a GPU beside its artefact: its kernels as CUDA C and device code, its weights, and the
plan of launches, which says what a program that calls the driver would launch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lvc.backends.tvm.c_header import CHeader
from lvc.backends.tvm.device import host_of
from lvc.backends.tvm.entry import macros
from lvc.backends.tvm.gpu.compiled import CompiledKernel
from lvc.backends.tvm.gpu.entry import Entry, embedded
from lvc.backends.tvm.gpu.gpus import Gpu
from lvc.backends.tvm.gpu.nvrtc import version
from lvc.backends.tvm.gpu.printer import PRELUDE
from lvc.backends.tvm.gpu.scratch import scratch_positions
from lvc.backends.tvm.plan import WEIGHTS
from lvc.backends.tvm.program import Argument, Kind, Program, Step
from lvc.compiler.artefact import Artefact
from lvc.compiler.emission import MANIFEST, SHARED, Emission, described
from lvc.compiler.files import Content
from lvc.compiler.measure.memory import Memory


@dataclass(frozen=True)
class Parts:
    """A program with the kernel of each step, those of setup first, and the scratch bytes of each kernel."""

    program: Program
    kernels: tuple[str, ...]
    compiled: Mapping[str, CompiledKernel]
    scratch: Mapping[str, tuple[int, ...]]
    memory: Memory
    gpu: Gpu

    @property
    def text(self) -> str:
        """All kernels in CUDA C."""
        return "\n".join([PRELUDE, *(compiled.text for compiled in self.compiled.values())])


def emitted(artefact: Artefact, emission: Emission) -> dict[str, Content]:
    """The files of a folder."""
    parts = artefact.parts
    assert isinstance(parts, Parts)
    files = _shared(artefact, emission, parts) if emission.form == SHARED else _sources(artefact, emission, parts)
    return files | {MANIFEST: described(artefact, emission, files, {})}


def _shared(artefact: Artefact, emission: Emission, parts: Parts) -> dict[str, Content]:
    """A library with the code for the GPU and what drives it, the header of its interface, and the weights."""
    text = CHeader(artefact, emission)
    capability = parts.gpu.capability.number
    entry = Entry(parts.program, parts.kernels, parts.compiled, parts.memory, parts.scratch, capability, version())
    sources: dict[str, str | Content] = {
        name: text.renamed(content) if isinstance(content, str) else content
        for name, content in entry.sources().items()
    }
    files: dict[str, Content] = {}
    if emission.weights == "linked":
        sources[text.weights_file] = artefact.files[WEIGHTS]
        sources[f"{text.name}_weights.c"] = embedded(f"{text.name}_weights", text.weights_file)
    else:
        files[text.weights_file] = artefact.files[WEIGHTS]
    if labels := text.labels():
        files[f"{text.name}_labels.h"] = labels.encode()
    library = f"lib{text.name}.so"
    (sizes,) = macros({"WEIGHT": parts.memory.weights})
    made = host_of(parts.gpu.host).linker.link({}, sources, text.exported, name=library)
    header = text.header_of(sizes, has_heap=True).encode()
    return {library: made, f"{text.name}.h": header, **files}


def _sources(artefact: Artefact, emission: Emission, parts: Parts) -> dict[str, Content]:
    """Kernels as CUDA C and device code, the plan of launches, and the weights."""
    architecture = parts.gpu.capability.architecture
    files: dict[str, Content] = {
        f"{emission.prefix}.cu": parts.text.encode(),
        f"{emission.prefix}.launches.json": json.dumps(launch_plan(parts), indent=1).encode(),
        f"{emission.prefix}.weights": artefact.files[WEIGHTS],
    }
    for name, compiled in parts.compiled.items():
        files[f"{name}.{architecture}.cubin"] = compiled.code.cubin
        files[f"{name}.ptx"] = compiled.code.ptx
    return files


def launch_plan(parts: Parts) -> dict[str, Any]:
    """Memory, and the launches in order: where each pointer of a kernel points."""
    program, memory = parts.program, parts.memory
    steps = list(zip(parts.kernels, program.called, strict=True))
    setup = len(program.setup)
    return {
        "architecture": parts.gpu.capability.architecture,
        "constant_bytes": memory.weights,
        "prepared_bytes": memory.prepared,
        "workspace_bytes": memory.workspace,
        "scratch_bytes": max((scratch_positions(sizes)[1] for sizes in parts.scratch.values()), default=0),
        "setup": [launch for name, step in steps[:setup] for launch in _launches(parts, name, step)],
        "steps": [launch for name, step in steps[setup:] for launch in _launches(parts, name, step)],
        "kernels": {
            name: asdict(usage) for compiled in parts.compiled.values() for name, usage in compiled.code.usage.items()
        },
    }


def _launches(parts: Parts, name: str, step: Step) -> list[dict[str, Any]]:
    places = [_place(argument) for argument in step.arguments]
    places += [{"kind": "scratch", "position": position} for position in scratch_positions(parts.scratch[name])[0]]
    return [
        {
            "kernel": launch.name,
            "step": step.name,
            "blocks": launch.blocks,
            "threads": launch.threads,
            "arguments": [places[parameter.argument] for parameter in launch.parameters],
        }
        for launch in parts.compiled[name].launches
    ]


def _place(argument: Argument) -> dict[str, Any]:
    storage, offset = argument.place.storage, argument.place.offset
    external = storage.kind in (Kind.INPUT, Kind.OUTPUT)
    if external:
        return {"kind": storage.kind.value, "number": storage.position, "position": offset}
    return {"kind": storage.kind.value, "position": storage.position + offset}
