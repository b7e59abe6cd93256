"""From a program to files: compile each different kernel once, link, write the plan down."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from lvc.backends.tvm.entry import ENTRY, entry_source
from lvc.backends.tvm.link import link
from lvc.backends.tvm.memory import plan_constants, plan_workspace
from lvc.backends.tvm.objects import ObjectCache, compile_kernel, kernel_key
from lvc.backends.tvm.program import Argument, Kind, Program
from lvc.backends.tvm.targets import llvm_options, vector_of
from lvc.compiler.backend import Target
from lvc.compiler.workspace import Workspace

PLAN_VERSION = 1


def build_files(program: Program, target: Target, workspace: Workspace) -> dict[str, bytes]:
    """Make the files of an artefact: ``model.so``, ``weights.bin`` and ``plan.json``."""
    bytes_needed, constant_bytes = plan_workspace(program), plan_constants(program)
    names, objects = compile_kernels(program, target, workspace)
    entry = entry_source(program, names, bytes_needed, constant_bytes)
    return {
        "model.so": link(objects, entry),
        "weights.bin": weights_blob(program, constant_bytes),
        "plan.json": json.dumps(plan(program, names, target, bytes_needed, constant_bytes), indent=1).encode(),
    }


def compile_kernels(program: Program, target: Target, workspace: Workspace) -> tuple[list[str], dict[str, bytes]]:
    """Compile each different kernel once; return the kernel's name for each step, and the object files by name."""
    options, vector, cache = llvm_options(target), vector_of(target), ObjectCache.of_user()
    keys = [kernel_key(step, vector, options) for step in program.steps]
    steps = dict(zip(keys, program.steps, strict=True))

    def make(key: str) -> bytes:
        known = cache.get(key)
        if known is None:
            known = compile_kernel(steps[key], f"k_{key}", vector, options, workspace.progress.say)
            cache.put(key, known)
        return known

    with ThreadPoolExecutor(max(1, workspace.threads)) as pool:
        made = workspace.progress.track(pool.map(make, steps), "compiling kernels", len(steps))
        objects = {f"k_{key}": content for key, content in zip(steps, made, strict=True)}
    return [f"k_{key}" for key in keys], objects


def weights_blob(program: Program, size: int) -> bytes:
    """All stored tensors, each at its position."""
    blob = np.zeros(size, np.uint8)
    for storage, values in program.constants:
        blob[storage.position : storage.position + values.nbytes] = values.reshape(-1).view(np.uint8)
    return blob.tobytes()


def plan(program: Program, names: list[str], target: Target, workspace: int, constants: int) -> dict[str, Any]:
    """What the runtime must know, as plain data."""
    external = sum(argument.bytes for argument in [*program.inputs, *program.outputs])
    return {
        "version": PLAN_VERSION,
        "entry": ENTRY,
        "target": target.text,
        "cpu": target.cpu,
        "features": sorted(target.features),
        "workspace_bytes": workspace,
        "constant_bytes": constants,
        "peak_bytes": workspace + constants + external,
        "inputs": [{"shape": argument.shape, "dtype": argument.dtype} for argument in program.inputs],
        "outputs": [{"shape": argument.shape, "dtype": argument.dtype} for argument in program.outputs],
        "steps": [
            {
                "kernel": name,
                "name": step.name,
                "nodes": step.nodes,
                "arguments": [_written(argument) for argument in step.arguments],
            }
            for name, step in zip(names, program.steps, strict=True)
        ],
    }


def _written(argument: Argument) -> dict[str, Any]:
    storage, offset = argument.place.storage, argument.place.offset
    external = storage.kind in (Kind.INPUT, Kind.OUTPUT)
    return {
        "kind": storage.kind.value,
        "position": storage.position if external else storage.position + offset,
        "shape": argument.shape,
        "dtype": argument.dtype,
    }
