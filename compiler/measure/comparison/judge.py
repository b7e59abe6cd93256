"""What passes cost: each pass that moves outputs is judged against the model as it was loaded, on images held out.

Where the model ends in softmax, log-softmax or sigmoid, the scores in front of them are compared, as long as the
rewritten model has them too. Where it is known what the images show, the metric of the model's task is measured as
well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from lvc.compiler.data.batches import fed_input, takes_data
from lvc.compiler.data.labelled import Known
from lvc.compiler.errors import UsageError
from lvc.compiler.ir.closing import closing_functions, without_closing
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.comparison.loss import OutputLoss, compare_all, objects_lost
from lvc.compiler.measure.comparison.outputs import Images
from lvc.compiler.measure.counts import total_macs
from lvc.compiler.measure.task_metric import TaskMetric
from lvc.compiler.pipeline.held_out import JUDGE, JudgingImages
from lvc.compiler.pipeline.passes import Effect
from lvc.compiler.pipeline.pipeline import Observer, Pipeline, Step
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.running.batches import images_at_once
from lvc.compiler.running.run import Run
from lvc.compiler.text import percent

MOST_IMAGES = 1024
"""As many images of a set that the user named for judging are used."""

_MOST_MACS = 100e9  # of one run over images that were held out
_LEAST_IMAGES = 8
_MOST_BYTES = 128 << 20  # of one model's outputs


@dataclass(frozen=True)
class Loss:
    """What was lost when a pass had run, in all since the model was loaded and by this pass alone.

    ``score`` is that of the model by the ``metric`` of its task, a share of one, ``score_as_loaded`` that of the model
    as it was loaded; None where nothing is known of the images. ``alone`` is empty if it could not be told. ``objects``
    are those that steps of the pipeline make of the outputs, in all; none without such steps.
    """

    in_all: tuple[OutputLoss, ...]
    alone: tuple[OutputLoss, ...]
    images: int
    source: str
    metric: str = ""
    score: float | None = None
    score_as_loaded: float | None = None
    objects: tuple[OutputLoss, ...] = ()

    @property
    def worst(self) -> OutputLoss:
        """The output that has lost most."""
        return min(self.in_all, key=lambda loss: loss.sqnr)

    @property
    def sqnr_alone(self) -> float:
        """The least signal to noise of an output by this pass alone; infinite if it could not be told."""
        return min((loss.sqnr for loss in self.alone), default=math.inf)

    @property
    def agreement_text(self) -> str:
        """The least share of first choices that are those of the model as it was loaded; empty without class scores."""
        shares = [loss.agreement for loss in self.in_all if loss.agreement is not None]
        return percent(min(shares), 2) if shares else ""

    def rounded(self) -> Loss:
        """The same in as many digits as are the same on every machine."""
        in_all, alone, objects = (tuple(map(_rounded, losses)) for losses in (self.in_all, self.alone, self.objects))
        return replace(self, in_all=in_all, alone=alone, objects=objects)


def _rounded(loss: OutputLoss) -> OutputLoss:
    share = loss.agreement if loss.agreement is None else round(loss.agreement, 4)
    return replace(
        loss, sqnr=round(loss.sqnr, 2), agreement=share, lost=round(loss.lost, 4), damaged=round(loss.damaged, 4)
    )


Outputs = list[tuple[torch.Tensor, ...]]
"""All outputs of a model, for each input of the signature's size, without those of padding."""


class Judge(Observer):
    """Measures the `Loss` after every lossy pass that changed something; puts it into ``step.measured["loss"]``.

    The images are those that the workspace has for judging what was learnt from the data set ``name``. A run over
    images that were held out is kept to `_MOST_MACS` and `_MOST_BYTES`. Once a pass has changed the signature, nothing
    is judged any more. Objects are what the model finds with ``ends`` behind it, the passes of the pipeline that make
    boxes of its outputs.
    """

    def __init__(self, workspace: Workspace, name: str, ends: Pipeline | None = None) -> None:
        self._workspace = workspace
        self._name = name
        self._ends = ends or Pipeline()

    def start(self, model: Model) -> None:
        judging = self._workspace.judging_images(self._name)
        self._images, self._known = _read(model, judging, self._workspace)
        self._source = str(judging)
        self._signature = (model.inputs, model.outputs)
        self._closed = len(closing_functions(model.module.graph))
        self._loaded = {False: self._run(model)}
        if self._closed:
            self._loaded[True] = self._run(without_closing(model))
        ended = self._ended(model)
        self._metric = TaskMetric.of(ended, self._known)
        self._found = self._run(ended) if len(self._ends) else self._loaded[False]
        self._score_as_loaded = self._metric.score(ended, self._found) if self._metric else None
        self._last = (self._closed > 0, self._loaded[self._closed > 0])
        self._before: dict[str, tuple[bool, Outputs]] = {}

    def before(self, step: Step, model: Model) -> bool:
        if step.outer and self._can_judge(step, model):  # the outer pass has changed the model since it ran last
            self._last = self._look(model)
        self._before[step.place] = self._last
        return True

    def after(self, step: Step, model: Model) -> None:
        was_open, earlier = self._before.pop(step.place)
        if not step.outcome.places or not self._can_judge(step, model):
            return
        is_open, found = self._last = self._look(model)
        ended = self._ended(model)
        objects = self._run(ended) if len(self._ends) else found
        step.measured["loss"] = Loss(
            in_all=tuple(compare_all(model, self._loaded[is_open], found)),
            alone=tuple(compare_all(model, earlier, found)) if was_open == is_open else (),
            images=sum(map(len, self._known)),
            source=self._source,
            metric=self._metric.name if self._metric else "",
            score=self._metric.score(ended, objects) if self._metric else None,
            score_as_loaded=self._score_as_loaded,
            objects=tuple(objects_lost(ended, self._found, objects)) if len(self._ends) else (),
        )

    def resume(self, model: Model) -> None:
        if (model.inputs, model.outputs) == self._signature:
            self._last = self._look(model)

    def _can_judge(self, step: Step, model: Model) -> bool:
        return step.item.effect is Effect.LOSSY and (model.inputs, model.outputs) == self._signature

    def _look(self, model: Model) -> tuple[bool, Outputs]:
        """Run a model, in front of what closes it if it still ends as the model that was loaded."""
        is_open = 0 < self._closed == len(closing_functions(model.module.graph))
        return is_open, self._run(without_closing(model) if is_open else model)

    def _run(self, model: Model) -> Outputs:
        run, most = Run(model, frozen=True), images_at_once(model)
        parts = (part for batch in self._images for part in torch.split(batch, most))
        outputs = [made for part in parts for made in run.each(part)]
        size = sum(map(len, self._images)) // len(outputs)
        return [
            tuple(_without_padding(out, size, len(known)) for out in made)
            for made, known in zip(outputs, self._known, strict=True)
        ]

    def _ended(self, model: Model) -> Model:
        """The model with what makes boxes of its outputs."""
        return self._ends.run(model)[0] if len(self._ends) else model


def _without_padding(output: torch.Tensor, batch: int, images: int) -> torch.Tensor:
    return output[:images] if output.ndim and len(output) == batch else output


def last_loss(steps: Sequence[Step]) -> Loss | None:
    """Return what the passes that ran have lost together; None if it was not measured."""
    return next((step.measured["loss"] for step in reversed(steps) if "loss" in step.measured), None)


def judged_set(model: Model, workspace: Workspace) -> str | None:
    """Return the data set that losses are judged by: the one for it, else the calibration data, else the first.

    None if there is none, or none could feed the model.
    """
    if not takes_data(model.inputs):
        return None
    return next((name for name in (JUDGE, "calib", *workspace.data) if name in workspace.data), None)


def _read(
    model: Model, judging: JudgingImages, workspace: Workspace
) -> tuple[list[torch.Tensor], list[Sequence[Known]]]:
    """Read the images in batches of as many as run at once, and what is known of those that are no padding, for each
    input of the signature's size; `UsageError` if there are none."""
    if not len(judging.data):
        raise UsageError(f"the data set '{judging.name}' is empty")
    size = fed_input(model.inputs).spec.shape[0]
    bytes_of_an_image = max(1, sum(output.spec.bytes for output in model.outputs) // size)
    most = MOST_IMAGES
    if judging.name != JUDGE:
        macs_of_an_image = max(1.0, total_macs(model.module.graph) / size)
        most = max(_LEAST_IMAGES, int(_MOST_MACS / macs_of_an_image))
    most = max(1, min(most, _MOST_BYTES // bytes_of_an_image))
    images = Images(judging.data, images_at_once(model), most, workspace.seed, workspace.progress, fill=size)
    read = list(images)
    return [batch for batch, _ in read], images.known((labels for _, labels in read), size)
