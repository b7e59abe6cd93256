"""Factors every layer of whole models by each method at full ranks, where nothing may be lost; writes a Markdown table.

Each model and method runs in a process of its own, with the random weights of `sweep_torchvision` or the file given.
All layers that the method takes are factored so that each is exact, however much more they cost, and products of
attention are written in other bases of each head. The model's outputs are compared with those of the model as it was:
in PyTorch, exported in ONNX Runtime, and in native code. Results are appended to a file of JSON lines, and what stands
there is not run again.

With ``--latency`` models are brought to such shares of their time on this machine instead, by all methods, without
data; the table has the share measured, in turns with the model as it was.

    python tools/sweep_factoring.py --models resnet18,vgg11_bn,yolox_nano.onnx --table table.md
    python tools/sweep_factoring.py --models resnet18 --latency 0.8,0.6 --results latency.jsonl
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import sweep_pruning
import sweeping
import torch

import lvc
from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.driver import optimise
from lvc.compiler.errors import LvcError
from lvc.compiler.ir.graph import calls
from lvc.compiler.ir.layers import LAYERS
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.verify import verify
from lvc.compiler.load import load
from lvc.compiler.pipeline.observers import relative_difference
from lvc.compiler.pipeline.passes import Outcome
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.passes.low_rank.blocks import layers_of
from lvc.passes.low_rank.factorisation import METHODS, Factorisation, Parts
from lvc.passes.low_rank.heads import bases_of
from lvc.passes.low_rank.joint import METHOD as JOINT
from lvc.passes.low_rank.joint import find_heads
from lvc.passes.low_rank.layer import layer_of, refusal
from lvc.passes.low_rank.narrowing import Narrow, narrow, place_of
from lvc.passes.low_rank.placing import put_in_place
from lvc.passes.low_rank.statistics import Statistics

MODELS = "resnet18,resnet50,vgg11_bn,mobilenet_v2,vit_b_16,convnext_tiny"
BOUND = 1e-4
COLUMNS = ("model", "method", "size", "layers", "PyTorch", "ONNX Runtime", "native", "s", "ok")
LATENCY_COLUMNS = ("model", "latency", "size", "found", "factored", "s", "ok")
TOLERANCE = 0.05
"""How far beyond the wanted share of the time a result may be."""


def make_model(name: str, size: int | None) -> Model:
    model = load(name) if name.endswith(".onnx") else sweep_pruning.make_model(name, size)
    folded, _ = Pipeline.parse("O1").run(model)
    return folded


def full_ranks(name: str, method_name: str, size: int | None) -> dict[str, Any]:
    """Factor all layers exactly; how far the outputs are from those before, by who computes them."""
    started = time.perf_counter()
    model = make_model(name, size)
    inputs = seeded_inputs(model.inputs, 0)
    wanted = model(*inputs)
    count = turn_heads(model) if method_name == JOINT else factor_layers(model, METHODS.parse(method_name))
    verify(model)
    row = {"model": name, "method": method_name, "size": model.inputs[0].spec.shape[-1], "layers": count}
    if not count:
        return row | {"ok": True}
    found = {"PyTorch": model(*inputs), **run_elsewhere(model, inputs)}
    apart = {by: max(map(relative_difference, values, wanted)) for by, values in found.items()}
    return row | apart | {"s": round(time.perf_counter() - started), "ok": max(apart.values()) <= BOUND}


def factor_layers(model: Model, method: Factorisation) -> int:
    """Factor all layers that a method takes at full ranks; return how many."""
    count = 0
    for node in list(calls(model.module.graph, *LAYERS)):
        if refusal(model.module, node):
            continue
        layer = layer_of(model.module, node)
        if method.refusal(layer.kernel) is None:
            parts = Parts.of(method, layer.kernel, Statistics())
            put_in_place(model.module, node, parts.factor(method.full_ranks(layer.kernel)))
            count += 1
    model.module.recompile()
    return count


def turn_heads(model: Model) -> int:
    """Write the heads of all products of attention in other bases, with all dimensions; return how many."""
    found = find_heads(model, [], (), (), Outcome())
    bases = {place_of(one.product): bases_of(model, one, dict.fromkeys(layers_of(one), Statistics())) for one in found}
    narrow(model, {place: Narrow(both.first, both.second) for place, both in bases.items()})
    return len(found)


def run_elsewhere(model: Model, inputs: Any) -> dict[str, Any]:
    """The outputs in ONNX Runtime, of the model exported, and in native code."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "factored.onnx"
        lvc.write_model(model, path)
        session = onnxruntime.InferenceSession(path)
        feeds = {given.name: value for given, value in zip(session.get_inputs(), inputs, strict=True)}
        exported = session.run(None, feeds)
    native = lvc.load(lvc.compile(model, pipeline="O2", target="native"))(*inputs)
    return {"ONNX Runtime": exported, "native": native if isinstance(native, tuple) else (native,)}


def to_latency(name: str, share: str, size: int | None) -> dict[str, Any]:
    """Bring a model to a share of its time; what was found is from the pass's own notes."""
    started = time.perf_counter()
    model = make_model(name, size)
    row = {"model": name, "latency": share, "size": model.inputs[0].spec.shape[-1]}
    pipeline = Pipeline.parse(f"factor-low-rank{{latency={share}}}")
    try:
        _, steps = optimise(model, pipeline, Workspace(threads=1))
    except LvcError as error:
        return row | {"found": str(error), "ok": "cannot be reached" in str(error)}
    notes = "; ".join(note for step in steps for note in step.outcome.notes)
    found = re.search(r"latency on .*? ([0-9.]+)x, in turns", notes)
    missed = "misses the target" in notes
    reached = float(found[1]) if found else 1.0
    return row | {
        "found": f"{reached:.3f}" + (" (told as a miss)" if missed else "") if found else "left as it is",
        "factored": next((part for part in notes.split("; ") if "layers factored" in part), ""),
        "s": round(time.perf_counter() - started),
        "ok": reached <= 1 and (missed or not found or reached <= float(share) * (1 + TOLERANCE)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default=MODELS, help="names of torchvision and ONNX files, separated by commas")
    parser.add_argument("--methods", default=",".join((*METHODS.names(), JOINT)), help="which, separated by commas")
    parser.add_argument("--latency", help="shares of the time to come down to, separated by commas")
    parser.add_argument("--size", type=int, help="height and width of the input, where the model takes it")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for one model and method")
    parser.add_argument(
        "--results", type=Path, default=Path("factoring.jsonl"), help="file of JSON lines to go on from"
    )
    parser.add_argument("--table", type=Path, help="write the Markdown table here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    measure, columns = (to_latency, LATENCY_COLUMNS) if options.latency else (full_ranks, COLUMNS)
    second = "latency" if options.latency else "method"
    lines = options.results.read_text().splitlines() if options.results.exists() else []
    done = {(row["model"], row[second]): row for row in map(json.loads, lines) if second in row}
    wanted = [
        (name, other) for name in options.models.split(",") for other in (options.latency or options.methods).split(",")
    ]
    for name, other in wanted:
        if (name, other) not in done:
            found = sweep_pruning.run_apart(partial(measure, name, other, options.size), options.timeout)
            row = {"model": name, second: other, "found": found, "ok": False} if isinstance(found, str) else found
            done[name, other] = row
            with options.results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, file=sys.stderr, flush=True)
    rows = [done[key] for key in wanted]
    text = sweeping.markdown(rows, columns)
    if options.table:
        options.table.write_text(text)
    else:
        print(text)
    return 0 if all(row["ok"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
