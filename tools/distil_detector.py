"""How much of what pruning cost a detector distillation from itself brings back, on pictures without labels.

    python tools/distil_detector.py --macs 0.7 --checkpoints work
    python tools/distil_detector.py --training 'distil{epochs=20 batch=8 lr=0.005 augment=flip}'

Half of the pictures of the assets, every second one, prune and train YOLOX-nano, and their labels are never read; the
average precision is that on the other half.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from compare_quantisation import ASSETS, NETWORKS, ROOT, Samples, coco

from lvc.compiler.cli.console import Console
from lvc.compiler.driver import optimise
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.counts import total_macs
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.text import table

sys.path.insert(0, str(ROOT / "tests"))
from coco_score import score

TRAINING = (
    "distil-blocks{steps=500 batch=8 optimiser=adamw lr=0.002 clip=1 augment=flip},"
    "distil{epochs=25 batch=8 optimiser=adamw lr=0.0005 clip=1 augment=flip losses=outputs+features}"
)


def main() -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--macs", type=float, default=0.7)
    parser.add_argument("--training", default=TRAINING, help="the passes that train (default %(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--checkpoints", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pictures = Samples(coco(1).items[::2])
    space = Workspace(
        data={"calib": lambda: pictures, "train": lambda: pictures, "judge": lambda: pictures},
        threads=options.threads,
        checkpoints=options.checkpoints,
        progress=Console().progress,
    )
    float_model, _ = Pipeline.parse("O1").run(NETWORKS["yolox_nano"].request.load())
    pruned, _ = optimise(float_model, Pipeline.parse(f"prune-channels{{macs={options.macs}}}"), space)
    trained, steps = optimise(pruned, Pipeline.parse(options.training), replace(space, original=float_model))
    for note in steps[-1].outcome.notes:
        print(note)
    rows = []
    for name, model in (("as loaded", float_model), ("pruned", pruned), ("and distilled", trained)):
        coarse, fine = unseen_precision(model)
        share = total_macs(model.module.graph) / total_macs(float_model.module.graph)
        rows.append((name, f"{share:.3f}", f"{coarse:.3f}", f"{fine:.3f}"))
    print(table(("yolox_nano", "MACs", "AP50", "AP"), rows, "lrrr"))


def unseen_precision(model: Model) -> tuple[float, float]:
    """The average precision on the pictures that nothing was learnt from, at IoU 0.50 and over 0.50 to 0.95."""

    def detect(image: np.ndarray) -> np.ndarray:
        return model(image)[0]

    with tempfile.TemporaryDirectory() as folder:
        for kind in ("images", "labels"):
            (Path(folder) / kind).mkdir()
        for file in sorted((ASSETS / "coco" / "images").iterdir())[1::2]:
            (Path(folder) / "images" / file.name).symlink_to(file)
            label = ASSETS / "coco" / "labels" / f"{file.stem}.txt"
            (Path(folder) / "labels" / label.name).symlink_to(label)
        return score(detect, Path(folder))


if __name__ == "__main__":
    main()
