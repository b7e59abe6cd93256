"""Loads every torchvision model, runs a pipeline and compares with eager PyTorch; writes a Markdown table.

Weights are random and seeded. Fresh ones hide mistakes: batch normalisation that does nothing, scales of 1e-6, heads of
zeros. So every parameter whose elements are all equal is drawn anew, around one where it was one and around zero where
it was not, and running statistics likewise. Each model runs in a process of its own; results are appended to a file of
JSON lines, and a model that stands there is not run again.

    python tools/sweep_torchvision.py --pipeline O2 --only '^resnet' --table table.md
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Sequence
from typing import Any

BOUND = 1e-4
SEGMENTATION = ("deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large", "fcn_resnet50")
LARGEST = ("regnet_y_128gf", "vit_h_14", "vit_l_16", "vit_l_32")
COLUMNS = ("model", "input", "nodes", "parameters", "load s", "passes s", "difference", "ok")


def make(name: str) -> Any:
    """Build a model without trained weights and draw what its initialisation leaves constant."""
    import torchvision

    arguments: dict[str, Any] = {"weights": None}
    if name in SEGMENTATION:
        arguments["weights_backbone"] = None
    if name in ("googlenet", "inception_v3"):
        arguments["init_weights"] = False
    return redraw(torchvision.models.get_model(name, **arguments).eval())


def redraw(module: Any) -> Any:
    """Draw anew what an initialisation leaves constant."""
    import torch

    with torch.no_grad():
        for parameter in filter(torch.numel, module.parameters()):
            first = parameter.reshape(-1)[0]
            if bool((parameter == first).all()):
                parameter.uniform_(0.5, 1.5) if first == 1 else parameter.normal_(0, 0.05)
        for key, buffer in module.named_buffers():
            if key.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
            elif key.endswith("running_mean"):
                buffer.normal_(0, 0.05)
    return module


def measure(name: str, pipeline: str, target: str) -> dict[str, Any]:
    """Load one model and compare it; returns what the table shows."""
    import torch
    import torchvision

    from lvc.compiler.data.seeded import seeded_inputs
    from lvc.compiler.load import load
    from lvc.compiler.load.zoo import find_recipe
    from lvc.compiler.pipeline.observers import Verifier
    from lvc.compiler.pipeline.pipeline import Pipeline

    size = find_recipe(torchvision.models.get_model_builder(name), {}).size
    shape = (1, 3, size, size)
    started = time.perf_counter()
    model = load(f"{__file__}:make", arguments={"name": name}, shapes={"": shape})
    loaded = time.perf_counter()
    rewritten, _ = Pipeline.parse(pipeline).run(model, observers=[Verifier()])
    finished = time.perf_counter()
    inputs = seeded_inputs(model.inputs, 0)
    found = rewritten(*inputs)
    result = {
        "input": size,
        "nodes": len(list(rewritten.module.graph.nodes)),
        "parameters": model.parameters,
        "load s": round(loaded - started, 1),
        "passes s": round(finished - loaded, 1),
    }
    if target:
        result |= _compile(model, pipeline, target, inputs)
        found = result.pop("found")
    del model, rewritten
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        eager = make(name)(torch.from_numpy(inputs[0]))
    wanted = [part.numpy() for part in (eager.values() if isinstance(eager, dict) else [eager])]
    return result | _compare(found, wanted)


def _compile(model: Any, pipeline: str, target: str, inputs: Any) -> dict[str, Any]:
    import lvc

    started = time.perf_counter()
    artefact = lvc.compile(model, pipeline=pipeline, target=target)
    built = time.perf_counter()
    outputs = lvc.load(artefact)(*inputs)
    return {
        "build s": round(built - started, 1),
        "found": outputs if isinstance(outputs, tuple) else (outputs,),
    }


def _compare(found: Any, wanted: Any) -> dict[str, Any]:
    from lvc.compiler.pipeline.observers import relative_difference

    difference = max(relative_difference(ours, theirs) for ours, theirs in zip(found, wanted, strict=True))
    spread = min(float(part.std() / (abs(part).max() or 1)) for part in wanted)
    return {"difference": difference, "spread": spread, "ok": difference <= BOUND and spread > 1e-3}


def names(only: str) -> list[str]:
    """All classification models and the segmentation models, the largest last."""
    import torchvision

    known = [*torchvision.models.list_models(module=torchvision.models), *SEGMENTATION]
    return [name for name in sorted(known, key=lambda name: name in LARGEST) if re.search(only, name)]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Write results as Markdown, in the order of the models' names."""
    import sweeping

    columns = [*COLUMNS[:-2], *(["build s"] if any("build s" in row for row in rows) else []), *COLUMNS[-2:]]
    return sweeping.markdown(sorted(rows, key=lambda row: str(row["model"])), columns)


def main() -> int:
    import sweeping  # here, for this file is loaded by its path too

    parser = argparse.ArgumentParser(allow_abbrev=False, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pipeline", default="O2", help="pipeline text (default O2; empty for none)")
    parser.add_argument("--target", default="", help="also compile for a target, and compare what that computes")
    sweeping.add_options(parser, "sweep.jsonl")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.pipeline, options.target)))
        return 0
    key = {"pipeline": options.pipeline, "target": options.target}
    return sweeping.sweep(names(options.only), key, options, table)


if __name__ == "__main__":
    sys.exit(main())
