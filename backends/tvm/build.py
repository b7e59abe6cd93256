"""From a program to files: compile each different kernel once, link, write the plan down."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from lvc.backends.tvm.entry import ENTRY, SETUP, entry_source
from lvc.backends.tvm.link import link
from lvc.backends.tvm.memory import plan_constants, plan_prepared, plan_workspace
from lvc.backends.tvm.objects import ObjectCache, compile_kernel, kernel_key
from lvc.backends.tvm.program import Argument, Kind, Program, Step
from lvc.backends.tvm.targets import llvm_options, vector_of
from lvc.compiler.backend import Target
from lvc.compiler.workspace import Workspace

PLAN_VERSION = 2


def build_files(program: Program, target: Target, workspace: Workspace) -> dict[str, bytes]:
    """Make the files of an artefact: ``model.so``, ``weights.bin`` and ``plan.json``."""
    bytes_needed, constant_bytes = plan_workspace(program), plan_constants(program)
    prepared_bytes = plan_prepared(program, constant_bytes)
    names, objects = compile_kernels([*program.setup, *program.steps], target, workspace)
    entry = entry_source(program, names, bytes_needed, constant_bytes + prepared_bytes)
    sizes = {
        "workspace_bytes": bytes_needed,
        "constant_bytes": constant_bytes,
        "prepared_bytes": prepared_bytes,
    }
    return {
        "model.so": link(objects, entry),
        "weights.bin": weights_blob(program, constant_bytes),
        "plan.json": json.dumps(plan(program, names, target, sizes), indent=1).encode(),
    }


def compile_kernels(steps: Sequence[Step], target: Target, workspace: Workspace) -> tuple[list[str], dict[str, bytes]]:
    """Compile each different kernel once; return the kernel's name for each step, and the object files by name."""
    options, vector, cache = llvm_options(target), vector_of(target), ObjectCache.of_user()
    keys = [kernel_key(step, vector, options) for step in steps]
    different = dict(zip(keys, steps, strict=True))

    def make(key: str) -> bytes:
        known = cache.get(key)
        if known is None:
            known = compile_kernel(different[key], f"k_{key}", vector, options, workspace.progress.say)
            cache.put(key, known)
        return known

    with ThreadPoolExecutor(max(1, workspace.threads)) as pool:
        made = workspace.progress.track(pool.map(make, different), "compiling kernels", len(different))
        objects = {f"k_{key}": content for key, content in zip(different, made, strict=True)}
    return [f"k_{key}" for key in keys], objects


def weights_blob(program: Program, size: int) -> bytes:
    """All stored tensors, each at its position."""
    blob = np.zeros(size, np.uint8)
    for storage, values in program.constants:
        blob[storage.position : storage.position + values.nbytes] = values.reshape(-1).view(np.uint8)
    return blob.tobytes()


def plan(program: Program, names: list[str], target: Target, sizes: dict[str, int]) -> dict[str, Any]:
    """What the runtime must know, as plain data. ``names`` are those of the kernels, of setup's before the others."""
    external = sum(argument.bytes for argument in [*program.inputs, *program.outputs])
    setup = len(program.setup)
    return {
        "version": PLAN_VERSION,
        "entry": ENTRY,
        "setup_entry": SETUP,
        "target": target.text,
        "cpu": target.cpu,
        "features": sorted(target.features),
        **sizes,
        "peak_bytes": sum(sizes.values()) + external,
        "inputs": [{"shape": argument.shape, "dtype": argument.dtype} for argument in program.inputs],
        "outputs": [{"shape": argument.shape, "dtype": argument.dtype} for argument in program.outputs],
        "setup": [_step(*item) for item in zip(names[:setup], program.setup, strict=True)],
        "steps": [_step(*item) for item in zip(names[setup:], program.steps, strict=True)],
    }


def _step(kernel: str, step: Step) -> dict[str, Any]:
    arguments = [_written(argument) for argument in step.arguments]
    return {"kernel": kernel, "name": step.name, "nodes": step.nodes, "arguments": arguments}


def _written(argument: Argument) -> dict[str, Any]:
    storage, offset = argument.place.storage, argument.place.offset
    external = storage.kind in (Kind.INPUT, Kind.OUTPUT)
    return {
        "kind": storage.kind.value,
        "position": storage.position if external else storage.position + offset,
        "shape": argument.shape,
        "dtype": argument.dtype,
    }
