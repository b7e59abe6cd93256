"""From a program to files: compile each different kernel once, link, write the plan down."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from lvc.backends.tvm.contents import check_plan
from lvc.backends.tvm.device import CodeGenerator
from lvc.backends.tvm.kernel_keys import kernel_keys
from lvc.backends.tvm.memory import live_bytes, plan_constants, plan_prepared, plan_workspace, scratch_bytes
from lvc.backends.tvm.object_cache import Object, ObjectCache
from lvc.backends.tvm.plan import PLAN, PLAN_VERSION, WEIGHTS, checksums
from lvc.backends.tvm.program import Argument, Kind, Program, Step
from lvc.compiler.backend import Target
from lvc.compiler.measure.memory import Memory
from lvc.compiler.pipeline.workspace import Workspace


@dataclass(frozen=True)
class Built:
    """The files of an artefact, its account of memory, what a user should know of its kernels, and the parts that its
    code was made of."""

    files: dict[str, bytes]
    memory: Memory
    remarks: list[str]
    parts: object


def build_files(program: Program, generator: CodeGenerator, target: Target, workspace: Workspace) -> Built:
    """Make the files of an artefact: its code, ``weights.bin`` and ``plan.json``."""
    workspace_bytes, constant_bytes = max(map(plan_workspace, program.variants)), plan_constants(program)
    prepared_bytes = plan_prepared(program, constant_bytes)
    for variant in program.variants:
        check_plan(variant)
    steps = program.called
    names, objects = compile_kernels(steps, generator, workspace)
    memory = Memory(
        weights=constant_bytes,
        prepared=prepared_bytes,
        workspace=workspace_bytes,
        scratch=scratch_bytes(made.scratch for made in objects.values()),
        external=max(sum(value.bytes for value in [*one.inputs, *one.outputs]) for one in program.variants),
        live=max(map(live_bytes, program.variants)),
    )
    assembled = generator.assemble(program, names, objects, memory)
    files = {**assembled.files, WEIGHTS: weights_blob(program, constant_bytes)}
    written = {**plan(program, names, target, memory, generator), "checksums": checksums(files)}
    files[PLAN] = json.dumps(written).encode()
    return Built(files, memory, _remarks(steps, names, objects), assembled.parts)


def _remarks(steps: Sequence[Step], names: Sequence[str], objects: Mapping[str, Object]) -> list[str]:
    """One sentence for each kernel that runs a plain schedule, since it is slow."""
    found = []
    for name, made in objects.items():
        if made.refused:
            users = [step.name for step, kernel in zip(steps, names, strict=True) if kernel == name]
            others = f" and {len(users) - 1} more" if users[1:] else ""
            found.append(
                f"the kernel of {users[0]}{others} is exact but many times slower than it should be: TVM refused its "
                f"schedule, and it got a plain one ({made.refused})"
            )
    return found


def compile_kernels(
    steps: Sequence[Step], generator: CodeGenerator, workspace: Workspace
) -> tuple[list[str], dict[str, Object]]:
    """Compile each different kernel once; return the kernel's name for each step, and the object files by name."""
    keys, cache = kernel_keys(steps, generator.fingerprint), ObjectCache.of_user()
    different = dict(zip(keys, steps, strict=True))
    known = {key: cache.get(key) for key in different}

    def make(key: str) -> Object:
        made = known[key]
        if made is None:
            made = generator.compile(different[key], f"k_{key}")
            cache.put(key, made)
        return made

    with ThreadPoolExecutor(max(1, workspace.threads)) as pool:
        made = workspace.progress.track(pool.map(make, different), "compiling kernels", len(different))
        objects = {f"k_{key}": content for key, content in zip(different, made, strict=True)}
    if None in known.values():
        cache.trim()
    return [f"k_{key}" for key in keys], objects


def weights_blob(program: Program, size: int) -> bytes:
    """All stored tensors, each at its position."""
    parts: list[bytes | memoryview] = []
    end = 0
    for storage, values in program.constants:
        parts += [bytes(storage.position - end), values.reshape(-1).view(np.uint8).data]
        end = storage.position + values.nbytes
    return b"".join([*parts, bytes(size - end)])


def weights_of(program: Program) -> list[dict[str, int]]:
    """For each variant the bytes of stored tensors that it reads, and of those that no other reads: weights lie apart
    where a kernel for another shape reads them in another order."""
    read = [one.stored() for one in program.variants]
    readers = Counter(chain.from_iterable(read))
    return [
        {"weights": sum(s.bytes for s in found), "alone": sum(s.bytes for s in found if readers[s] == 1)}
        for found in read
    ]


def plan(
    program: Program, names: list[str], target: Target, memory: Memory, generator: CodeGenerator
) -> dict[str, Any]:
    """What the runtime must know, as plain data. ``names`` are those of the kernels, of setup's before the others."""
    kernels = iter(names)
    setup = [_step(next(kernels), step) for step in program.setup]
    first, *others = (
        {**_signature(one), "steps": [_step(next(kernels), s) for s in one.steps]} for one in program.variants
    )
    return {
        "version": PLAN_VERSION,
        "target": target.text,
        "kind": target.kind,
        "cpu": target.cpu,
        "features": sorted(target.features),
        "flags": dict(generator.flags),
        **({"host": generator.host} if generator.host else {}),
        "workspace_bytes": memory.workspace,
        "constant_bytes": memory.weights,
        "prepared_bytes": memory.prepared,
        "setup": setup,
        **first,
        **({"variants": others} if others else {}),
    }


def _signature(program: Program) -> dict[str, Any]:
    sides = {"inputs": program.inputs, "outputs": program.outputs}
    return {side: [{"shape": value.shape, "dtype": value.dtype} for value in values] for side, values in sides.items()}


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
