"""Every way to learn from a teacher beside training by labels alone, each with the same processor time.

    python tools/compare_distillation.py --weights resnet56.th --data cifar/train.npz --test cifar/test.npz \\
        --calib train400.npz --steps 650 --results distillation.jsonl

The student is ResNet-56 pruned to the work of ResNet-20, and the teacher what it was. Each method may take as long as
so many steps by labels alone; how many of its own these are is measured before, in turns with steps by labels alone, so
that a machine that does something else at times moves both. Making images counts. The images of the test judge each
student once and choose nothing. Rows are appended to a file of JSON lines as they are measured, and those that stand
there are not measured again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.data.samples import Samples
from lvc.compiler.data.sources import open_data
from lvc.compiler.driver import optimise
from lvc.compiler.ir.model import Model
from lvc.compiler.load.request import LoadRequest
from lvc.compiler.measure.counts import total_macs
from lvc.compiler.measure.evaluation import evaluate
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.running.synthesis import Synthesiser
from lvc.compiler.text import table

_NETWORK = Path(__file__).parents[1] / "examples" / "cifar_resnet.py"
_PREPROCESS = "cifar10"
_BATCH = 50
_FEW, _MORE = 4, 14  # steps; the difference of both runs is the time of those between
_ROUNDS = 3


@dataclass(frozen=True)
class Method:
    """One way to train: a pass without its ``steps=``, and the data set that it reads."""

    name: str
    text: str
    data: str = "train"

    def pipeline(self, steps: int, lr: float) -> Pipeline:
        name, options = self.text.split("{")
        blocks = name == "distil-blocks"
        rate = "" if blocks or "lr=" in options else f" lr={lr:g}"
        rate += " teacher_kernels=lvc" if name == "distil" else ""
        return Pipeline.parse(f"{name}{{steps={steps} data={self.data} validation=calib every={steps}{rate} {options}")


LABELS_ALONE = Method("labels alone", "finetune{}")
METHODS = (
    LABELS_ALONE,
    Method("soft labels", 'distil{losses="0.9*soft-labels+0.1*labels"}'),
    Method("decoupled", 'distil{losses="0.2*decoupled+labels"}'),
    Method("features", 'distil{losses="labels+features"}'),
    Method("attention", 'distil{losses="labels+attention"}'),
    Method("relations", 'distil{losses="labels+relations"}'),
    Method("similarity", 'distil{losses="labels+similarity"}'),
    Method("soft labels and features", 'distil{losses="0.9*soft-labels+0.1*labels+features"}'),
    Method("unlabelled", "distil{losses=soft-labels}"),
    Method("data-free", "distil{losses=soft-labels batch_norm=freeze lr=0.001 clip=1 augment=none}", "synthesised"),
    Method("block by block", "distil-blocks{batch=128}"),
)


@dataclass(frozen=True)
class Row:
    """What a method came to: ``right`` of the ``images`` of the test, and the minutes of processor time it took."""

    method: str
    steps: int
    right: int
    images: int
    minutes: float


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    request = LoadRequest(f"{_NETWORK}:resnet56", str(options.weights), shapes={"": (1, 3, 32, 32)})
    teacher = request.load()
    teacher.preprocessing = _PREPROCESS
    synthesiser = Synthesiser(teacher)

    def opened(place: object) -> Callable[[], Samples]:
        return lambda: open_data(str(place), Preprocess.parse(_PREPROCESS), teacher.inputs)

    space = Workspace(
        data={
            "calib": opened(options.calib),
            "train": opened(options.data),
            "synthesised": lambda: synthesiser(options.synthesised, _PREPROCESS),
        },
        threads=1,
        original=teacher,
    )
    student, _ = optimise(teacher, Pipeline.parse(f"prune-channels{{macs={options.macs}}}"), space)
    test = opened(options.test)
    rows = _known(options.results)
    if "untrained" not in rows:
        rows["untrained"] = _keep(options.results, _judged("untrained", student, test(), 0, 0.0))
    for method in METHODS:
        if method.name not in rows and (not options.only or method.name in options.only):
            row = _measure(method, student, space, test(), options)
            rows[method.name] = _keep(options.results, row)
    share = total_macs(student.module.graph) / total_macs(teacher.module.graph)
    print(f"student: {share:.3f} of the teacher's MACs")
    lines = [(r.method, str(r.steps), f"{r.right / r.images:.2%}", f"{r.minutes:.1f}") for r in rows.values()]
    print(table(("method", "steps", "right", "minutes"), lines, "lrrr"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", required=True, type=Path, help="of ResNet-56")
    for name, what in (("data", "to train on"), ("test", "that judge"), ("calib", "to prune by")):
        parser.add_argument(f"--{name}", required=True, type=Path, help=f"a .npz file of the images {what}")
    parser.add_argument("--synthesised", default="synthesised,images=512,steps=100")
    parser.add_argument("--macs", type=float, default=0.324, help="of the student as a share of the teacher's")
    parser.add_argument("--steps", type=int, default=650, help="of training by labels alone, whose time each may take")
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--only", action="append", choices=[m.name for m in METHODS], help="these methods alone")
    parser.add_argument("--results", type=Path, default=Path("distillation.jsonl"))
    return parser.parse_args()


def _measure(method: Method, student: Model, space: Workspace, test: Samples, options: argparse.Namespace) -> Row:
    """Train a copy of the student for the time of so many steps by labels alone, and judge it."""
    started = time.process_time()
    space.data_set(method.data)  # images are made when they are asked for
    spent = time.process_time() - started
    plain, own = _step_seconds((LABELS_ALONE, method), student, space, options.lr)
    steps = options.steps if method is LABELS_ALONE else max(1, int((options.steps * plain - spent) / own))
    print(f"{method.name}: a step takes {own / plain:.2f} of one by labels alone, {steps} steps", flush=True)
    trained, seconds = _seconds(method, student, space, steps, options.lr)
    return _judged(method.name, trained, test, steps, (spent + seconds) / 60)


def _step_seconds(methods: Sequence[Method], student: Model, space: Workspace, lr: float) -> list[float]:
    """What a step of each takes: the difference of the fastest runs of few steps and of more, all of them in turns."""
    fastest: dict[tuple[int, int], float] = {}
    for _ in range(_ROUNDS):
        for key in itertools.product(range(len(methods)), (_FEW, _MORE)):
            seconds = _seconds(methods[key[0]], student, space, key[1], lr)[1]
            fastest[key] = min(seconds, fastest.get(key, seconds))
    return [(fastest[place, _MORE] - fastest[place, _FEW]) / (_MORE - _FEW) for place in range(len(methods))]


def _seconds(method: Method, student: Model, space: Workspace, steps: int, lr: float) -> tuple[Model, float]:
    """Train a copy of the student; return it with the seconds of processor time."""
    started = time.process_time()
    trained, _ = optimise(student, method.pipeline(steps, lr), space)
    return trained, time.process_time() - started


def _judged(name: str, model: Model, test: Samples, steps: int, minutes: float) -> Row:
    folded, _ = Pipeline.parse("fold-batch-norm").run(model)
    score = evaluate(folded.with_batch(_BATCH), test, _BATCH)
    return Row(name, steps, score.top1, score.labelled, round(minutes, 2))


def _known(results: Path) -> dict[str, Row]:
    if not results.exists():
        return {}
    rows = [Row(**json.loads(line)) for line in results.read_text().splitlines()]
    return {row.method: row for row in rows}


def _keep(results: Path, row: Row) -> Row:
    with results.open("a") as file:
        file.write(json.dumps(asdict(row)) + "\n")
    print(f"{row.method}: {row.right / row.images:.2%} right, {row.minutes:.1f} minutes", flush=True)
    return row


if __name__ == "__main__":
    main()
