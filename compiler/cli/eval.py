"""Measure on labelled images what the task has a measure for: accuracy, average precision, intersection over union."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lvc.compiler.cli.device_options import add_device_options, on_device
from lvc.compiler.cli.model_options import add_model_options
from lvc.compiler.cli.subject import Subject, add_run_options, chosen_preprocess, open_subject, positive
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.task import FIND_OBJECTS, SEGMENT
from lvc.compiler.text import percent

if TYPE_CHECKING:
    from lvc.compiler.cli.console import Console
    from lvc.compiler.measure.device import Device
    from lvc.compiler.measure.evaluation import Run, Score

SUMMARY = "measure accuracy, average precision or intersection over union on labelled images"


def configure(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser)
    parser.add_argument(
        "--data",
        metavar="PATH",
        required=True,
        help="a folder or .zip with a folder of images for each class, a .npz with x and y, or module:callable; for "
        "boxes and masks a folder with 'images' and 'labels' (as YOLO has them) or 'masks', or COCO's FOLDER:FILE.json",
    )
    parser.add_argument(
        "--annotations", metavar="FILE", type=Path, help="COCO's JSON of the pictures in the folder --data"
    )
    parser.add_argument("--labels", metavar="FILE", help="class names, if not those that the model has")
    parser.add_argument("--against", metavar="OTHER", help="a model or artefact whose first choices to compare with")
    parser.add_argument("--limit", metavar="N", type=positive, help="use only the first N images")
    add_run_options(parser)
    add_device_options(parser)


def execute(options: argparse.Namespace, console: Console) -> int:
    if options.device and options.ranks.count > 1:
        raise UsageError(
            f"--device goes with one process, not with {options.ranks.count}", help="start lvc without torchrun"
        )
    return on_device(options, console, lambda device: _evaluate_on(device, options, console), [options.model])


def _evaluate_on(device: Device, options: argparse.Namespace, console: Console) -> int:
    import time

    from lvc.compiler.data import open_data
    from lvc.compiler.measure.evaluation import evaluate

    subject = open_subject(options, options.model, device)
    if subject.task in (*FIND_OBJECTS, SEGMENT):
        from lvc.compiler.cli.eval_tasks import evaluate_pictures

        return evaluate_pictures(subject, options, console)
    if options.annotations:
        found = ", ".join(map(str, subject.outputs))
        raise UsageError("--annotations are for a detector", why=f"the model's outputs are: {found}")
    data = open_data(options.data, chosen_preprocess(options, subject), subject.inputs, subject.labels)
    if not len(data):
        raise UsageError(f"the data set '{options.data}' is empty")
    other = _other(options, subject, device)
    if data.unlabelled and not other:
        raise _no_labels(options.data, data.unlabelled)
    _check_classes(console, data.classes, subject)
    started = time.perf_counter()
    images, runs = _together([subject, other] if other else [subject])
    score = evaluate(
        runs[0],
        data,
        images,
        against=runs[1] if other else None,
        limit=options.limit,
        progress=console.progress,
        ranks=options.ranks,
    )
    seconds = time.perf_counter() - started
    if not score.labelled and not other:
        raise _no_labels(options.data, "without labels there is no accuracy")
    _show(console, options, score, seconds)
    return 0


def _together(subjects: Sequence[Subject]) -> tuple[int, list[Run]]:
    """How many images run at once, and what runs each subject on them: models as many as they like, others as many as
    their signature has."""
    from lvc.compiler.measure.evaluation import in_parts

    size = min(subject.most for subject in subjects) or subjects[0].inputs[0].spec.shape[0]
    if not any(subject.model for subject in subjects):
        return size, [in_parts(subject.run, size) for subject in subjects]
    from lvc.compiler.measure.classifier import Classifier

    found = [Classifier(subject.model) if subject.model else None for subject in subjects]
    images = min((classifier.images for classifier in found if classifier), default=size)
    return images, [known or in_parts(subject.run, size) for known, subject in zip(found, subjects, strict=True)]


def _no_labels(data: str, why: str) -> UsageError:
    help = "put each class into a folder of its own, or compare two models with --against"
    return UsageError(f"the images of '{data}' have no labels", why=why, help=help)


def _other(options: argparse.Namespace, subject: Subject, device: Device) -> Subject | None:
    if not options.against:
        return None
    other = open_subject(options, options.against, device)
    if [value.spec for value in other.inputs] != [value.spec for value in subject.inputs]:
        ours, theirs = (", ".join(map(str, item.inputs)) for item in (subject, other))
        raise UsageError("the two models take different inputs", why=f"{ours} against {theirs}")
    return other


def _check_classes(console: Console, folders: tuple[str, ...], subject: Subject) -> None:
    """Warn when folders were numbered in order, and there are fewer or more of them than the model has classes."""
    shape = subject.outputs[0].spec.shape
    if folders and len(shape) > 1 and len(folders) != shape[1] and not set(folders) <= set(subject.labels):
        console.say(
            f"note: {len(folders)} class folders, and the model has {shape[1]} classes; "
            f"folders are numbered in sorted order unless they are named by index or label"
        )


def _show(console: Console, options: argparse.Namespace, score: Score, seconds: float) -> None:
    rows = []
    if score.labelled:
        rows.append(("top-1", percent(score.top1 / score.labelled, 2), f"{score.top1} of {score.labelled}"))
    if score.labelled and score.classes > 5:
        rows.append(("top-5", percent(score.top5 / score.labelled, 2), f"{score.top5} of {score.labelled}"))
    if score.agreed is not None:
        rows.append(("agreement", percent(score.agreed / score.images, 2), f"{score.agreed} of {score.images}"))
    console.table(("", options.model, "images"), rows, "lr")
    way = ", with the way to the board" if options.device else ""
    console.say(f"{score.images} images in {seconds:.1f} s, {seconds / score.images * 1e3:.2f} ms an image{way}")
    console.json(
        {
            "model": options.model,
            "data": options.data,
            "against": options.against,
            "images": score.images,
            "labelled": score.labelled,
            "top1": score.top1 / score.labelled if score.labelled else None,
            "top5": score.top5 / score.labelled if score.labelled else None,
            "top1_count": score.top1,
            "top5_count": score.top5,
            "agreement": None if score.agreed is None else score.agreed / score.images,
            "seconds": round(seconds, 3),
        }
    )
