"""What a model is for: to classify images, to segment them, or to detect objects in them. Imports nothing heavy.

Objects may have masks, as of a model for instance segmentation, or keypoints, as of one for poses.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lvc.compiler.errors import UsageError, did_you_mean
from lvc.compiler.ir.counts import visible
from lvc.compiler.ir.signature import Value

if TYPE_CHECKING:
    from lvc.compiler.ir.model import Model

CLASSIFY, DETECT, SEGMENT, INSTANCE, POSE = TASKS = ("classify", "detect", "segment", "instance", "pose")
FIND_OBJECTS = (DETECT, INSTANCE, POSE)
"""The tasks of models that give boxes."""

_BOXES = re.compile(r"(.*)boxes(.*)")
_OF_BOXES = ("scores", "labels", "masks", "keypoints")
_IMAGE_CHANNELS = (1, 3)


@dataclass(frozen=True)
class DetectionOutputs:
    """The places among the outputs of what was detected in one image: ``boxes [n, 4]``, corners in pixels of the
    network's input, ``scores [n]`` and ``labels [n]``, integers; perhaps ``masks [n, 1, H, W]`` over all of the input,
    and ``keypoints [n, k, 3]``, x and y in its pixels and whether there is one."""

    boxes: int
    scores: int
    labels: int
    masks: int | None = None
    keypoints: int | None = None


def detection_outputs(outputs: Sequence[Value]) -> list[DetectionOutputs]:
    """What a detector gives for each image: outputs called boxes, scores and labels, as torchvision calls them, with
    the same text before and behind; none where an output is missing or of another shape."""
    places = {value.name: place for place, value in enumerate(outputs)}
    found = []
    for place, value in enumerate(outputs):
        named = _BOXES.fullmatch(value.name)
        others = [places.get(f"{named[1]}{word}{named[2]}") for word in _OF_BOXES] if named else [None] * len(_OF_BOXES)
        scores, labels, masks, keypoints = others
        if scores is not None and labels is not None:
            rows, specs = value.spec.shape[:1], [outputs[at].spec for at in (scores, labels)]
            is_whole = specs[1].element[0] in "iu"
            if value.spec.shape == (*rows, 4) and all(spec.shape == rows for spec in specs) and is_whole:
                shapes = [outputs[at].spec.shape if at is not None else () for at in (masks, keypoints)]
                masks = masks if len(shapes[0]) == 4 and shapes[0][:2] == (*rows, 1) else None
                keypoints = keypoints if len(shapes[1]) == 3 and shapes[1][::2] == (*rows, 3) else None
                found.append(DetectionOutputs(place, scores, labels, masks, keypoints))
    return found


def is_class_scores(shape: tuple[int, ...], images: int | None = None) -> bool:
    """Whether an output can be scores of classes: ``[N,C]``, or with further dimensions of one.

    With ``images``, one row for each of so many: there may be several, as of crops of an image.
    """
    is_table = len(shape) >= 2 and shape[1] > 1 and all(size == 1 for size in shape[2:])
    return is_table and images in (None, shape[0])


def is_class_map(shape: tuple[int, ...]) -> bool:
    """Whether an output can be scores of classes for each pixel: ``[N,C,H,W]``."""
    return len(shape) == 4 and shape[1] > 1 and shape[2] * shape[3] > 1


def task_of(inputs: Sequence[Value], outputs: Sequence[Value]) -> str:
    """The task of a model with a signature, where it can be told for sure, else nothing.

    Scores of classes for each image are of a classifier, and `detection_outputs` of a detector, whose objects may all
    have masks or keypoints. A first output ``[N,C,H,W]`` of the height and width of an input of images segments, unless
    it has as many channels as an image.
    """
    given = _first_shape(inputs)
    if len(outputs) == 1 and is_class_scores(outputs[0].spec.shape, *given[:1]):
        return CLASSIFY
    if found := detection_outputs(outputs):
        return next(task for task in (INSTANCE, POSE, DETECT) if gives(found, task))
    made = outputs[0].spec.shape if outputs else ()
    if is_class_map(made) and made[1] not in _IMAGE_CHANNELS and len(given) == 4:
        first, last = (given[1] in _IMAGE_CHANNELS, given[2:]), (given[3] in _IMAGE_CHANNELS, given[1:3])
        return SEGMENT if (True, made[2:]) in (first, last) else ""
    return ""


def gives(found: Sequence[DetectionOutputs], task: str) -> bool:
    """Whether there are objects, and each image's have what a task of `FIND_OBJECTS` asks for besides boxes."""
    wanted = {INSTANCE: "masks", POSE: "keypoints"}.get(task, "boxes")
    return bool(found) and all(getattr(one, wanted) is not None for one in found)


def task_of_model(model: Model) -> str:
    """The task that a model is said to have, or that its outputs tell, else nothing."""
    return model.task or task_of(model.inputs, visible(model.outputs, model.counts))


def check_task(task: str, inputs: Sequence[Value], outputs: Sequence[Value]) -> str:
    """Return a task that a user names; `UsageError` if there is none of that name, or for outputs that cannot be of
    such a model."""
    if task not in TASKS:
        raise UsageError(f"there is no task '{task}'", help=f"{did_you_mean(task, TASKS)}known: {', '.join(TASKS)}")
    given, shape = _first_shape(inputs), outputs[0].spec.shape if outputs else ()
    found = detection_outputs(outputs)
    boxes = "it must give boxes [n,4], scores [n] and labels [n], integers"
    fits = {
        CLASSIFY: (is_class_scores(shape, *given[:1]), "its first output must be scores [N,classes]"),
        DETECT: (gives(found, DETECT), boxes),
        INSTANCE: (gives(found, INSTANCE), f"{boxes}, and masks [n,1,height,width]"),
        POSE: (gives(found, POSE), f"{boxes}, and keypoints [n,k,3]"),
        SEGMENT: (is_class_map(shape), "its first output must be scores [N,classes,height,width]"),
    }
    is_fit, wanted = fits[task]
    if not is_fit:
        help = "--postprocess makes boxes of a detector's raw head" if task in FIND_OBJECTS and not found else ""
        there = ", ".join(map(str, outputs))
        does = {INSTANCE: "segment instances", POSE: "estimate poses"}.get(task, task)
        raise UsageError(f"the model does not {does}", why=f"{wanted}; its outputs are: {there}", help=help)
    return task


def _first_shape(inputs: Sequence[Value]) -> tuple[int, ...]:
    """The shape of the first input that is no number."""
    return next((value.spec.shape for value in inputs if value.spec.shape), ())
