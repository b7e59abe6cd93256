"""What `lvc eval` measures of models that detect or segment."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lvc.compiler.cli.subject import Subject, chosen_preprocess
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.task import DETECT, FIND_OBJECTS, INSTANCE, POSE
from lvc.compiler.text import percent

if TYPE_CHECKING:
    import numpy as np

    from lvc.compiler.cli.console import Console
    from lvc.compiler.data.feed import Feed
    from lvc.compiler.data.labelled import BoxData
    from lvc.compiler.measure.average_precision import AveragePrecision

Run = tuple["Feed", tuple["np.ndarray", ...]]


def evaluate_pictures(subject: Subject, options: argparse.Namespace, console: Console) -> int:
    """Measure average precision or mean intersection over union in the pixels of the pictures, and show it."""
    if options.against:
        raise UsageError(f"--against compares first choices, and '{options.model}' makes none", help="measure each")
    if options.ranks.count > 1:
        raise UsageError(f"a {subject.task} model is measured by one process", help="start lvc without torchrun")
    started = time.perf_counter()
    detects = subject.task in FIND_OBJECTS
    images, rows, told = (_detector if detects else _segmenter)(subject, options, console)
    seconds = time.perf_counter() - started
    console.table(("", options.model), rows, "lr")
    console.say(f"{images} images in {seconds:.1f} s, {seconds / images * 1e3:.2f} ms an image")
    console.json({"model": options.model, "data": options.data, **told, "seconds": round(seconds, 3)})
    return 0


Measured = tuple[int, list[tuple[str, str]], dict[str, object]]


def _detector(subject: Subject, options: argparse.Namespace, console: Console) -> Measured:
    from lvc.compiler.measure.average_precision import (
        Kind,
        average_precision,
        check_pycocotools,
        class_table,
        kinds_of,
    )
    from lvc.compiler.measure.detections import detections

    check_pycocotools()
    data = _boxes(options).first(options.limit)
    kinds = kinds_of(subject.task, data.objects)
    if subject.task != DETECT and kinds == [Kind.BOXES]:
        what = {INSTANCE: "outlines", POSE: "keypoints"}[subject.task]
        console.say(f"note: the labels have no {what} of all objects, so only boxes are measured")
    found = [
        one.packed() if Kind.MASKS in kinds else replace(one, masks=None)
        for feed, outputs in _runs(subject, data.pictures, options, console)
        for one in detections(subject.outputs, outputs, feed.placements)
    ]
    labels = _labels(options, subject)
    if data.names and not labels:
        console.say("note: the model has no names of classes, so its labels are taken for places in the data's classes")
    most = max((int(one.labels.max(initial=0)) for one in found), default=0)
    classes = class_table(labels, data.names, most)
    scores = {kind: average_precision(found, data, classes, kind) for kind in kinds}
    whole = scores[Kind.BOXES]
    rows = [row for kind, score in scores.items() for row in _precision_rows(kind.metric, score)]
    rows += [("objects", str(whole.objects)), ("images", str(whole.images))]
    more = {kind.name.lower(): asdict(score) for kind, score in scores.items() if kind is not Kind.BOXES}
    return whole.images, rows, {**asdict(whole), **more}


def _precision_rows(name: str, score: AveragePrecision) -> list[tuple[str, str]]:
    sizes = {"small": score.small, "medium": score.medium, "large": score.large}
    return [
        (name, f"{score.ap:.4f}"),
        (f"{name}50", f"{score.ap50:.4f}"),
        (f"{name}75", f"{score.ap75:.4f}"),
        *((f"{name}, {size}", f"{share:.4f}") for size, share in sizes.items() if share is not None),
    ]


def _boxes(options: argparse.Namespace) -> BoxData:
    """The pictures and their objects; `UsageError` for labels that are said twice."""
    from lvc.compiler.data.coco import CocoFiles
    from lvc.compiler.data.labelled import open_boxes

    named = CocoFiles.named(options.data)
    if named and options.annotations:
        raise UsageError(f"'{options.data}' names annotations already", help="leave out --annotations")
    if options.annotations:
        named = CocoFiles(Path(options.data), options.annotations)
    return named.read() if named else open_boxes(options.data)


def _segmenter(subject: Subject, options: argparse.Namespace, console: Console) -> Measured:
    from lvc.compiler.data.labelled import open_masks, read_mask
    from lvc.compiler.data.samples import Fit
    from lvc.compiler.measure.detections import class_maps
    from lvc.compiler.measure.mean_iou import Confusion

    if options.annotations:
        raise UsageError("--annotations are boxes, and the model segments", help="give masks in a folder beside images")
    pairs = open_masks(options.data)[: options.limit]
    masks = dict(pairs)
    size = Fit.of(subject.inputs).picture_size
    confusion = Confusion(subject.outputs[0].spec.shape[1])
    for feed, outputs in _runs(subject, [picture for picture, _ in pairs], options, console):
        for name, classes in zip(feed.names, class_maps(outputs[0], size, feed.placements), strict=False):
            mask = masks[Path(name)]
            confusion.add(classes, read_mask(mask), str(mask))
    if not confusion.pixels:
        raise UsageError("no pixel of the masks has a class that is known")
    labels = _labels(options, subject)
    named = {labels[i] if i < len(labels) else str(i): share for i, share in confusion.by_class.items()}
    rows = [
        ("mean IoU", percent(confusion.mean, 2)),
        ("pixels", percent(confusion.right, 2)),
        *((f"IoU, {name}", percent(share, 2)) for name, share in named.items()),
        ("images", str(confusion.images)),
    ]
    told = {"mean_iou": confusion.mean, "pixel_accuracy": confusion.right, "iou": named, "images": confusion.images}
    return confusion.images, rows, told


def _runs(subject: Subject, pictures: Sequence[Path], options: argparse.Namespace, console: Console) -> Iterator[Run]:
    """Run the subject over pictures, batch by batch."""
    from lvc.compiler.data.feed import feeds
    from lvc.compiler.ir.task import detection_outputs

    batch = subject.most or subject.inputs[0].spec.shape[0]
    if subject.task in FIND_OBJECTS and len(detection_outputs(subject.outputs)) != batch:
        raise UsageError(f"the model takes {batch} images, and gives boxes for another number of them")
    runs = feeds(pictures, subject.inputs, chosen_preprocess(options, subject), subject.most)
    for feed in console.progress.track(runs, "evaluating", -(-len(pictures) // batch)):
        yield feed, subject.run(*feed.arrays)


def _labels(options: argparse.Namespace, subject: Subject) -> tuple[str, ...]:
    from lvc.compiler.data.labels import read_labels

    return read_labels(options.labels) if options.labels else subject.labels
