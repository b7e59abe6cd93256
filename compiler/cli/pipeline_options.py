"""The options that say which passes to run and how to watch them, shared by `compile` and `opt`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lvc.compiler.cli.device_options import add_device_options
from lvc.compiler.cli.subject import add_task_option, positive
from lvc.compiler.errors import UsageError
from lvc.compiler.pipeline.catalogue import FUSE_PREPROCESS, PRECISIONS
from lvc.compiler.text import counted, si

if TYPE_CHECKING:
    from lvc.compiler.cli.console import Console
    from lvc.compiler.ir.model import Model
    from lvc.compiler.measure.comparison.loss_bound import LossBound
    from lvc.compiler.measure.coverage import Requirement
    from lvc.compiler.measure.device import Device
    from lvc.compiler.pipeline.passes import Pass
    from lvc.compiler.pipeline.pipeline import Observer, Pipeline
    from lvc.compiler.pipeline.workspace import DataSet, Workspace
    from lvc.compiler.report import Report
    from lvc.compiler.running.synthesis import Synthesiser


def add_pipeline_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("pipeline")
    group.add_argument("-O", dest="level", metavar="N", choices="0123", help="preset O0 to O3 (default 2)")
    group.add_argument("-p", "--pipeline", metavar="TEXT", help="passes, such as 'O2' or 'int8'; see 'lvc passes'")
    group.add_argument(
        "--precision", choices=tuple(PRECISIONS), default="fp32", help="what contractions multiply (default fp32)"
    )
    group.add_argument(
        "--postprocess",
        metavar="TEXT",
        help="what is appended to the outputs, such as yolox,nms{iou=0.65}; 'lvc passes' lists the steps",
    )
    group.add_argument(
        f"--{FUSE_PREPROCESS}",
        action="store_true",
        help="take a picture u8[N,H,W,C] of the network's size as input: what --preprocess does besides resizing and "
        "cropping becomes a part of the model",
    )
    group.add_argument(
        "--plugin", metavar="FILE", action="append", default=[], help="a Python file whose passes the text may name"
    )
    group.add_argument(
        "--check", action="store_true", help="measure the drift of every pass and bound it; verify on more inputs"
    )
    group.add_argument("--require", metavar="int8=0.9", help="fail if a smaller share of the MACs runs in integers")
    group.add_argument(
        "--max-loss",
        metavar="20dB",
        help="fail if all passes together lose more: signal to noise in dB, or %% of first choices; of a detector or a "
        "model that segments, percentage points of its metric",
    )
    group.add_argument("--dump", metavar="DIR", type=Path, help="write the graph before and after every pass there")
    group.add_argument("--stop-after", metavar="N", type=int, help="run only the first N passes")
    group.add_argument(
        "--data",
        metavar="NAME=PATH",
        action="append",
        default=[],
        help="a data set for passes; NAME=synthesised: made from the model; on judge=PATH, or else on a held-out part "
        "of calib, what they cost is judged",
    )
    group.add_argument(
        "--checkpoints",
        metavar="DIR",
        type=Path,
        help="where long passes, and stages of a recipe, are kept when they are finished, to go on from there",
    )
    group.add_argument("--threads", metavar="N", type=positive, help="threads to work with (default: all cores)")
    add_device_options(group)
    group.add_argument("--preprocess", metavar="TEXT", help="image preprocessing: imagenet, cifar10 or key=value,...")
    group.add_argument("--labels", metavar="FILE", help="class names: a text or JSON file, or imagenet, cifar10, coco")
    add_task_option(group)
    group.add_argument(
        "--explain", action="store_true", help="say why a pass skipped a place, and why a recipe's stage ran again"
    )
    group.add_argument("--report", metavar="FILE", type=Path, help="write what was done as JSON")


def read_pipeline(options: argparse.Namespace) -> Pipeline:
    from lvc.compiler.pipeline.pipeline import Pipeline

    check_verified(options)
    if options.level is not None and options.pipeline is not None:
        raise UsageError("-O and -p are both given", help=f"write -p 'O{options.level},...' to start from a preset")
    text = options.pipeline if options.pipeline is not None else f"O{options.level or 2}"
    pipeline = Pipeline.parse(text, plugin_passes(options)).with_precision(options.precision)
    return pipeline.with_ends(options.postprocess, preprocess=options.fuse_preprocess)


def check_verified(options: argparse.Namespace) -> None:
    """Raise `UsageError` if more and less is to be verified."""
    if options.check and not options.verify:
        raise UsageError("--check and --no-verify are both given", help="--check verifies more; leave one out")


def plugin_passes(options: argparse.Namespace) -> list[type[Pass]]:
    """Return the passes of all plug-ins that the options name."""
    return [kind for file in options.plugin for kind in passes_of(Path(file))]


def read_requirement(options: argparse.Namespace) -> Requirement | None:
    """Return what must run in integers; None if nothing must."""
    from lvc.compiler.measure.coverage import Requirement

    return Requirement.parse(options.require) if options.require is not None else None


def read_max_loss(options: argparse.Namespace) -> LossBound | None:
    """Return what the passes may lose; None if nothing was said."""
    from lvc.compiler.measure.comparison.loss_bound import LossBound

    return LossBound.parse(options.max_loss) if options.max_loss is not None else None


def passes_of(file: Path) -> list[type[Pass]]:
    """Import a Python file and return the passes that it defines."""
    from lvc.compiler.load.user_code import import_place
    from lvc.compiler.pipeline.passes import Pass

    if file.suffix != ".py":
        raise UsageError(f"'{file}' is not a Python file", help="--plugin takes a file that defines passes")
    module = import_place(str(file))
    sys.modules[module.__name__] = module  # where the types of a dataclass's fields are looked up
    kinds = [item for item in vars(module).values() if isinstance(item, type) and issubclass(item, Pass)]
    own = [kind for kind in kinds if kind.__module__ == module.__name__]
    if not own:
        raise UsageError(f"'{file}' defines no pass", help="a pass is a frozen dataclass that derives from Pass")
    return own


def make_observers(options: argparse.Namespace) -> list[Observer]:
    from lvc.compiler.pipeline.observers import Dump, StopAfter

    observers: list[Observer] = []
    if options.stop_after is not None:
        observers.append(StopAfter(options.stop_after))
    if options.dump:
        observers.append(Dump(options.dump))
    return observers


def read_data_names(options: argparse.Namespace) -> dict[str, str]:
    """Return the places of the data sets by name; `UsageError` for one that is nowhere, before any work is done."""
    from lvc.compiler.data.sources import check_data

    places: dict[str, str] = {}
    for text in options.data:
        name, equals, place = text.partition("=")
        if not equals or not name or not place:
            raise UsageError(f"'--data {text}' is not NAME=PATH", help=f"for example --data calib={text.strip('=')}")
        if name in places:
            raise UsageError(f"two data sets are named '{name}'", why=f"{places[name]} and {place}")
        check_data(place)
        places[name] = place
    return places


@dataclass
class NamedData:
    """A data set that is opened when a pass asks for it; ``was_read`` tells whether one did.

    ``preprocess`` is how its images are prepared if not as the model says, ``limit`` how many are used at most.
    ``synthesiser`` makes the images of one that is made from the model.
    """

    place: str
    model: Model
    preprocess: str | None = None
    limit: int | None = None
    was_read: bool = False
    synthesiser: Synthesiser | None = None

    def __call__(self) -> DataSet:
        from lvc.compiler.pipeline.held_out import Part

        self.was_read = True
        data = self._open()
        return Part(data, frozenset(range(self.limit))) if self.limit and self.limit < len(data) else data

    def _open(self) -> DataSet:
        from lvc.compiler.data.synthesised import is_synthesised

        if self.synthesiser and is_synthesised(self.place):
            return self.synthesiser(self.place, self.preprocess or self.model.preprocessing)
        return open_data_set(self.place, self.model, self.preprocess)

    @property
    def settings(self) -> tuple[object, ...]:
        """What its samples depend on besides the files."""
        return (self.preprocess or self.model.preprocessing, self.limit, self.model.labels)


def say_of_data(workspace: Workspace, console: Console) -> None:
    """Say which data sets no pass asked for, perhaps for a wrong name or a missing pass, and which tell little."""
    from lvc.compiler.data.synthesised import is_synthesised

    for name, data in workspace.data.items():
        if not isinstance(data, NamedData):
            continue
        if not data.was_read:
            console.say(f"note: no pass read the data set '{name}'")
        elif is_synthesised(data.place):
            console.say(f"note: '{name}' was synthesised: what is measured on it need not hold for real images")


def make_workspace(
    options: argparse.Namespace,
    model: Model,
    console: Console,
    device: Device,
    data: Mapping[str, NamedData] | None = None,
) -> Workspace:
    """Return what passes may use: the ``data`` sets, or else those of the options, and what else these say."""
    import torch

    from lvc.compiler.pipeline.workspace import Workspace
    from lvc.compiler.running.synthesis import Synthesiser

    board = device if options.device else None
    if data is None:
        data = {name: NamedData(path, model) for name, path in read_data_names(options).items()}
    synthesiser = Synthesiser(model, options.seed, console.progress, options.checkpoints)
    for named in data.values():
        named.synthesiser = synthesiser
    workspace = Workspace(
        data=data,
        seed=options.seed,
        progress=console.progress,
        checkpoints=options.checkpoints,
        device=board,
        ranks=options.ranks,
    )
    if not options.threads:
        return workspace
    torch.set_num_threads(options.threads)
    return dataclasses.replace(workspace, threads=options.threads)


def describe_data(options: argparse.Namespace, model: Model) -> None:
    """Give the model the preprocessing and the labels that the options name."""
    if options.preprocess:
        from lvc.compiler.data.preprocess import Preprocess

        model.preprocessing = str(Preprocess.parse(options.preprocess))
    if options.labels:
        from lvc.compiler.data.labels import read_labels

        model.labels = read_labels(options.labels)
    model.task = options.task or model.task


def show_passes(options: argparse.Namespace, console: Console, report: Report) -> None:
    """Print the table of passes, with ``--explain`` what each left alone and why, and the notes."""
    headers, rows = report.pass_table()
    if rows:
        console.table(headers, rows, "lr")
    if idle := len(report.passes) - len(rows):
        console.say(f"note: {idle} of {len(report.passes)} passes had nothing to do")
    for line in report.note_lines():
        console.result(line)
    skips = report.skip_lines()
    if options.explain:
        for table in (table for item in report.passes for table in item.tables):
            console.result(f"\n{table.title}")
            console.table(table.headers, [[str(cell) for cell in row] for row in table.rows], "lr")
        for line in skips:
            console.result(line)
    elif skips:
        console.say("note: --explain says why places were skipped")
    for note in report.notes:
        console.say(f"note: {note}")


def written(path: Path) -> str:
    """Say that a file or folder was written, and how large it is."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    count = f"{counted(len(files), 'file')}, " if path.is_dir() else ""
    return f"wrote {path} ({count}{si(sum(file.stat().st_size for file in files), 'B')})"


def open_data_set(path: str, model: Model, preprocess: str | None = None) -> DataSet:
    """Open a data set as the inputs of a model, its images prepared by ``preprocess`` or else as the model says."""
    from lvc.compiler.data import open_data
    from lvc.compiler.data.preprocess import Preprocess

    text = preprocess or model.preprocessing
    return open_data(path, Preprocess.parse(text) if text else None, model.inputs, model.labels or ())
