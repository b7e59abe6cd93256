"""How many multiply-adds this machine can do: a kernel that does nothing else, built as every other one."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

import numpy as np
from tvm import te

from lvc.backends.tvm.build import build_files
from lvc.backends.tvm.cpu.code_generator import CpuCodeGenerator
from lvc.backends.tvm.cpu.executable import CpuExecutable
from lvc.backends.tvm.cpu.host import processor_name
from lvc.backends.tvm.cpu.kernels.register_tile import Accumulators
from lvc.backends.tvm.cpu.targets import vector_of
from lvc.backends.tvm.cpu.vector import Vector
from lvc.backends.tvm.device import Peak
from lvc.backends.tvm.fused import take_apart, write_nest
from lvc.backends.tvm.nest import Expr, Stmt, allocate, load, loop, unrolled
from lvc.backends.tvm.object_cache import ObjectCache
from lvc.backends.tvm.program import Argument, Kind, Place, Program, Step, Storage
from lvc.compiler.backend import Target
from lvc.compiler.pipeline.workspace import Workspace

VECTORS, SCALARS, DEPTH, TURNS = 3, 4, 64, 1 << 12  # a register tile that hides a latency of six cycles
ROUNDS = 300


def peak_flops(target: Target) -> float:
    """Floating-point operations a second of one thread in code for a target, two for each multiply-add of float32.

    Measured once for a machine and kept beside the kernels.
    """
    cache = ObjectCache.of_user()
    machine = f"{processor_name()} {target.cpu} {sorted(target.features)}"
    name = f"peak-{hashlib.sha256(machine.encode()).hexdigest()[:20]}.json"
    try:
        return float(json.loads(cache.read(name))["flops"])
    except (ValueError, KeyError, TypeError):
        found = measure(target)
        cache.write(name, json.dumps({"machine": machine, "flops": found}).encode())
        return found


def measure(target: Target) -> float:
    """Time the kernel in bursts of a millisecond or so; the fastest one counts."""
    peak = built(target)
    run, seconds = CpuExecutable(peak.files, threads=1), []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        run(*peak.inputs)
        seconds.append(time.perf_counter() - started)
    return peak.operations / min(seconds)


def built(target: Target) -> Peak:
    """The kernel, built for a target, and what it runs on."""
    vector = vector_of(target)
    made = program(vector)
    files = build_files(made, CpuCodeGenerator.of(target), target, Workspace(threads=1)).files
    operations = 2.0 * TURNS * DEPTH * VECTORS * SCALARS * vector.lanes
    return Peak(made, files, [np.full(data_shape(vector), 0.5, np.float32)], operations)


def data_shape(vector: Vector) -> tuple[int, int]:
    """Rows of the vectors and, behind them, the scalars of one step."""
    return DEPTH, (VECTORS + 1) * vector.lanes


def program(vector: Vector) -> Program:
    """A product of matrices whose operands stay in the first-level cache, over and over."""
    data = te.placeholder(data_shape(vector), "float32", name="data")
    shape = (VECTORS * SCALARS, vector.lanes)
    result = te.compute(shape, te.compute(shape, lambda i, j: data[i, j], name="anchor"), name="result")
    places = Place(Storage(Kind.INPUT, 0)), Place(Storage(Kind.OUTPUT, 0))
    given, made = Argument(places[0], data_shape(vector), "float32"), Argument(places[1], shape, "float32")
    step = Step("peak", (), te.create_prim_func([data, result]), _schedule, (given, made))
    return Program([given], [made], steps=[step])


def _schedule(schedule: Any, vector: Vector) -> None:
    fused, lanes = take_apart(schedule), vector.lanes
    (data,) = fused.operands
    sums = Accumulators.make(VECTORS, SCALARS, lanes)

    def step(k: Expr) -> Stmt:
        return sums.add_products(
            lambda v: load(data, [k, v * lanes], lanes), lambda s: load(data, [k, VECTORS * lanes + s])
        )

    products = loop(TURNS, lambda _: unrolled(DEPTH, step))
    finish = sums.each(lambda v, s: fused.finish([v * SCALARS + s, 0], sums.at(v, s)))
    write_nest(schedule, allocate(sums.buffers, sums.clear(), products, finish))
