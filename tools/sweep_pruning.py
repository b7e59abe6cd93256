"""Prunes every torchvision model, classification, segmentation and a detection backbone; writes a Markdown table.

Each model runs in a process of its own, with the random weights of `sweep_torchvision`. It is pruned by a pipeline,
whose pass checks at once that removed channels equal zeroed ones; the table has what is left of MACs and parameters,
and the seconds that one thread worked for the analysis alone, and for pruning, its own analyses and the check included.
Results are appended to a file of JSON lines, and a model that stands there for the same pipeline is not run again.
With ``--images`` it is pruned on so many random images, from which it is fitted and judged; ``--size`` makes them, and
the model's input, smaller where the model takes that.

    python tools/sweep_pruning.py --pipeline 'prune-channels{ratio=0.5 ranking=global}' --table table.md
    python tools/sweep_pruning.py --pipeline 'prune-channels{macs=0.6}' --images 16 --size 96 --results with_data.jsonl
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import sweep_torchvision as zoo
import sweeping
import torch
import torchvision

from lvc.compiler.data.seeded import seeded_inputs
from lvc.compiler.driver import optimise
from lvc.compiler.errors import LvcError
from lvc.compiler.ir.model import Model
from lvc.compiler.load import load
from lvc.compiler.load.zoo import find_recipe
from lvc.compiler.measure.comparison.judge import last_loss
from lvc.compiler.measure.inspection import layers
from lvc.compiler.measure.layers import totals
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.text import decibels
from lvc.passes.analysis.channel_groups import channel_groups

T = TypeVar("T")
FORK = multiprocessing.get_context("fork")
DETECTION = ("resnet50_fpn",)
PIPELINES = ("prune-channels{ratio=0.5 ranking=layer}", "prune-channels{ratio=0.5 ranking=global}")
COLUMNS = ("model", "size", "groups", "fixed", "MACs", "parameters", "loss", "analysis s", "pruning s", "ok")
MACS_LEFT = 0.6
"""What a model may keep of its MACs when half of the channels go."""


@dataclass(frozen=True)
class Images:
    """Seeded random images for a model."""

    shape: tuple[int, ...]
    count: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[np.ndarray, int | None]]:
        random = np.random.default_rng(0)
        for _ in range(self.count):
            yield random.standard_normal(self.shape, np.float32), None


def make(name: str) -> Any:
    """Build a model with random weights."""
    if name not in DETECTION:
        return zoo.make(name)
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    return zoo.redraw(resnet_fpn_backbone(backbone_name="resnet50", weights=None, trainable_layers=5).eval())


def measure(name: str, pipelines: Sequence[str], images: int, size: int | None) -> list[dict[str, Any]]:
    """Prune one model by each pipeline; returns what the tables show."""
    model = make_model(name, size)
    return [{"model": name, "pipeline": pipeline, **prune(model, pipeline, images)} for pipeline in pipelines]


def make_model(name: str, size: int | None) -> Model:
    """Load a model for images of a size, or of the size that it was made for if it takes no other."""
    made_for = 224 if name in DETECTION else find_recipe(torchvision.models.get_model_builder(name), {}).size
    for wanted in (size, made_for):
        try:
            if wanted:
                shape = (1, 3, wanted, wanted)
                return load(f"{__file__}:make", arguments={"name": name}, shapes={"": shape})
        except LvcError:
            if wanted == made_for:
                raise
    raise AssertionError("there is a size that a model was made for")


def prune(model: Model, pipeline: str, images: int) -> dict[str, Any]:
    """Run one pipeline on a model; an error is a result too."""
    started = time.process_time()
    channels = channel_groups(model)
    analysed = time.process_time()
    try:
        data = {"calib": lambda: Images(model.inputs[0].spec.shape, images)} if images else {}
        pruned, steps = optimise(model, Pipeline.parse(pipeline), Workspace(data=data, threads=1))
    except LvcError as error:
        return {"ok": False, "error": str(error)}
    finished = time.process_time()
    before, after = totals(layers(model)), totals(layers(pruned))
    outputs = pruned(*seeded_inputs(pruned.inputs, 1))
    loss = last_loss(steps)
    return {
        "size": model.inputs[0].spec.shape[-1],
        "loss": "" if loss is None else decibels(loss.worst.sqnr),
        "groups": len(channels.free),
        "fixed": len(channels.groups) - len(channels.free),
        "MACs": f"{after.macs / before.macs:.3f}",
        "parameters": f"{after.parameters / before.parameters:.3f}",
        "analysis s": round(analysed - started, 1),
        "pruning s": round(finished - analysed, 1),
        "ok": after.macs <= MACS_LEFT * before.macs and all(abs(part).max() > 0 for part in outputs),
    }


def names(only: str) -> list[str]:
    """All models that `sweep_torchvision` knows and the detection backbone, the smallest first."""
    from torchvision.models import get_model_weights

    def parameters(name: str) -> int:
        return 0 if name in DETECTION else int(next(iter(get_model_weights(name))).meta["num_params"])

    return sorted((name for name in [*zoo.names(""), *DETECTION] if re.search(only, name)), key=parameters)


def run_apart(work: Callable[[], T], seconds: float) -> T | str:
    """Do work in a process of its own, so that its memory is free afterwards; or why that did not end."""
    receiver, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=lambda: sender.send(work()))
    process.start()
    sender.close()
    try:
        if receiver.poll(seconds):
            made: T = receiver.recv()
            return made
        return f"took more than {seconds:g} s"
    except EOFError:
        process.join()
        return f"its process ended with {process.exitcode}"
    finally:
        process.kill()
        process.join()


def measure_apart(name: str, pipelines: Sequence[str], options: argparse.Namespace) -> list[dict[str, Any]]:
    found = run_apart(lambda: measure(name, pipelines, options.images, options.size), options.timeout)
    if isinstance(found, list):
        return found
    return [{"model": name, "pipeline": pipeline, "ok": False, "error": found} for pipeline in pipelines]


def main() -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pipeline", action="append", help="pipeline text; may be given several times")
    parser.add_argument("--only", default="", metavar="REGEX", help="only models whose name matches")
    parser.add_argument("--results", type=Path, default=Path("pruning.jsonl"), help="file of JSON lines to go on from")
    parser.add_argument("--table", type=Path, help="write the Markdown tables here")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for one model")
    parser.add_argument("--images", type=int, default=0, help="prune on so many random images")
    parser.add_argument("--size", type=int, help="height and width of the input, where the model takes it")
    options = parser.parse_args()
    pipelines = options.pipeline or PIPELINES
    torch.set_num_threads(1)
    for pipeline in pipelines:
        Pipeline.parse(pipeline)
    lines = options.results.read_text().splitlines() if options.results.exists() else []
    done = {(row["pipeline"], row["model"]): row for row in map(json.loads, lines) if row["ok"]}
    wanted = names(options.only)
    for name in wanted:
        missing = [pipeline for pipeline in pipelines if (pipeline, name) not in done]
        for row in measure_apart(name, missing, options) if missing else []:
            done[row["pipeline"], name] = row
            with options.results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, file=sys.stderr, flush=True)
    tables = [
        (pipeline, sweeping.markdown([done[pipeline, name] for name in sorted(wanted)], COLUMNS))
        for pipeline in pipelines
    ]
    text = "\n".join(f"`{pipeline}`\n\n{table}" for pipeline, table in tables)
    if options.table:
        options.table.write_text(text)
    else:
        print(text)
    return 0 if all(row["ok"] for row in done.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
