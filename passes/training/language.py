"""The options of passes that train, and the way from them to training."""

from __future__ import annotations

import json
import zlib
from abc import abstractmethod
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal

import torch

from lvc.compiler.data.access import Access, access
from lvc.compiler.data.batches import fed_input
from lvc.compiler.data.samples import Fit
from lvc.compiler.errors import CompileError, UsageError
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.task import is_class_scores
from lvc.compiler.pipeline.checkpoint import Checkpoints
from lvc.compiler.pipeline.passes import Outcome, Pass, option
from lvc.compiler.pipeline.ranks import ALONE, Ranks
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.text import counted
from lvc.passes.training.augmentation import AUTO, PRESETS, STEPS, Augmentation, parse_augmentation
from lvc.passes.training.checkpoint import TrainingCheckpoint
from lvc.passes.training.feed import Feed, Mixing
from lvc.passes.training.form import TrainingForm
from lvc.passes.training.judgement import Judge
from lvc.passes.training.loop import Training
from lvc.passes.training.objective import Objective
from lvc.passes.training.optimisation import OPTIMISERS, Optimisation, Settings
from lvc.passes.training.penalties import Penalties
from lvc.passes.training.schedule import SCHEDULES, Schedule
from lvc.passes.training.speed import Mode, has_bfloat16

_HELD_OUT, _MOST_HELD_OUT = 0.1, 5000
_NOT_NEGATIVE = (
    *("steps", "micro", "lr", "weight_decay", "mixup", "cutmix", "clip", "every", "minutes"),
    *("slimming", "group_lasso", "l1"),
)


@dataclass(frozen=True, kw_only=True)
class TrainingPass(Pass):
    """A pass that trains the model: the options of training, and what is done with them.

    A subclass says by `objective` what is minimised.
    """

    is_divided: ClassVar[bool] = True

    data: str = option("train", "the data set to train on, as named by --data NAME=PATH")
    validation: str = option("", "the data set to judge on while training (default: a tenth of the data, held out)")
    epochs: float = option(10.0, "so many times each image is seen")
    steps: int = option(0, "so many steps, in place of epochs=")
    batch: int = option(128, "images in a step")
    micro: int = option(0, "images that run at once, whose gradients are added up to a batch (default: batch)")
    optimiser: Literal["sgd", "adamw"] = option("sgd", "sgd, with momentum, or adamw")
    lr: float = option(0.0, "the largest learning rate (default: 0.01 for sgd, 0.0001 for adamw)")
    momentum: float = option(0.9, "of sgd")
    nesterov: bool = option(True, "Nesterov's form of momentum")
    weight_decay: float = option(5e-4, "decay of weights; biases and normalisations have none")
    schedule: str = option("cosine", f"how the learning rate changes: {', '.join(SCHEDULES)}")
    warmup: float = option(0.05, "the share of the steps over which the learning rate rises")
    augment: tuple[str, ...] = option((AUTO,), f"auto, or some of {', '.join([*PRESETS, *STEPS])}")
    mixup: float = option(0.0, "mix images in pairs: the parameter of the beta distribution; 0 for not")
    cutmix: float = option(0.0, "put rectangles of images into others, as mixup=")
    average: float = option(0.0, "the decay of an exponential moving average of the weights, such as 0.999; 0 for none")
    clip: float = option(0.0, "the largest norm of the gradients; 0 for any")
    slimming: float = option(0.0, "L1 penalty on the scales of batch normalisations")
    group_lasso: float = option(0.0, "penalty on the norm of all weights that make one channel, by channel group")
    l1: float = option(0.0, "L1 penalty on the weights of layers")
    zeros: Literal["keep", "train"] = option("keep", "whether weights of layers that are zero stay so")
    batch_norm: Literal["train", "freeze"] = option("train", "normalise by the batch, or by the statistics as they are")
    scales: Literal["learn", "average", "keep"] = option(
        "learn", "scales of fake quantisation are learned, follow a moving average of what fits the batches, or stay"
    )
    freeze_scales: float = option(1.0, "the share of the steps after which scales stay as they are")
    precision: Literal["auto", "fp32", "bf16"] = option(
        "auto", "what products are computed in (auto: bf16 where the processor multiplies it)"
    )
    device: Literal["cpu", "cuda"] = option("cpu", "what computes steps: cpu, or cuda for an NVIDIA GPU")
    keep: Literal["last", "best"] = option(
        "last", "which state stays: the last, or the best on held-out images, which the model must never have seen"
    )
    every: int = option(0, "judge after so many steps (default: after each epoch)")
    minutes: float = option(5.0, "with --checkpoints, keep the state at least so often")

    def __post_init__(self) -> None:
        self._check_numbers()
        if self.schedule not in SCHEDULES:
            raise UsageError(f"there is no schedule '{self.schedule}'", help="known: " + ", ".join(SCHEDULES))
        if self.augment != (AUTO,):
            parse_augmentation(self.augment)
        if self.micro and self.batch % self.micro:
            raise UsageError(f"batch={self.batch} is no multiple of micro={self.micro}")

    def _check_numbers(self) -> None:
        if self.batch < 1:
            raise UsageError(f"batch must be at least 1, not {self.batch}")
        if self.epochs <= 0:
            raise UsageError(f"epochs must be above 0, not {self.epochs:g}")
        for name in _NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise UsageError(f"{name} must not be negative, and is {getattr(self, name):g}")
        if not 0 <= self.freeze_scales <= 1:
            raise UsageError(f"freeze_scales must be from 0 to 1, not {self.freeze_scales:g}")
        for name in ("momentum", "warmup", "average"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} must be from 0 to below 1, not {getattr(self, name):g}")

    @property
    def data_sets(self) -> frozenset[str]:
        return frozenset(name for name in (self.data, self.validation) if name)

    @property
    def outside(self) -> int:
        """What targets hold where augmentation leaves no image."""
        return 0

    @abstractmethod
    def objective(self, model: Model, samples: Access, workspace: Workspace, outcome: Outcome) -> Objective:
        """Return what is minimised on those samples."""

    def images_at_once(self, ranks: Ranks = ALONE) -> int:
        """How many images run through the model together in each process; `UsageError` unless all have as many."""
        together = self.micro or self.batch
        if together % ranks.count:
            fitting = max(ranks.count, together // ranks.count * ranks.count)
            raise UsageError(
                f"{together} images at once are not to be divided over {ranks.count} processes alike",
                help=f"give {'micro' if self.micro else 'batch'}={fitting}, or start another number of processes",
            )
        return together // ranks.count

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        outcome = Outcome()
        training = self.prepare(model, workspace, outcome)
        try:
            training.run()
        except RuntimeError as error:
            if "memory" not in str(error):
                raise
            raise CompileError(
                "there is not enough memory to train", why=str(error).splitlines()[0], help=self._smaller()
            ) from error
        self._tell(model, training, outcome)
        return outcome

    def prepare(self, model: Model, workspace: Workspace, outcome: Outcome) -> Training:
        """Return the training of a model, which has not begun; it holds the model's own tensors."""
        samples, held_out = self._samples(workspace)
        objective = self.objective(model, samples, workspace, outcome)
        return self._training(model, workspace, samples, held_out, objective)

    def _samples(self, workspace: Workspace) -> tuple[Access, Access]:
        """The samples to train on, and those that choose the best state."""
        samples = access(workspace.data_set(self.data))
        if not len(samples):
            raise UsageError(f"the data set '{self.data}' is empty")
        if self.validation:
            return samples, access(workspace.whole_set(self.validation))
        count = min(_MOST_HELD_OUT, round(_HELD_OUT * len(samples)))
        order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(workspace.seed)).tolist()
        return samples.only(sorted(order[count:])), samples.only(sorted(order[:count]))

    def _training(
        self, model: Model, workspace: Workspace, samples: Access, held_out: Access, objective: Objective
    ) -> Training:
        ranks = workspace.ranks
        device = _device(self.device, ranks)
        form = TrainingForm.of(
            model,
            self.images_at_once(ranks),
            objective.watched,
            objective.apart,
            freeze_batch_norm=self.batch_norm == "freeze",
            keep_zeros=self.zeros == "keep",
            scales=self.scales,
            freeze_scales=self.freeze_scales,
            ranks=ranks,
        )
        feed = self._feed(model, workspace, samples)
        every = self.every or feed.steps_an_epoch
        steps = self.steps or max(1, round(self.epochs * feed.steps_an_epoch))
        work = self._work(workspace, samples, held_out)
        _refuse_others(work, ranks)
        checkpoints = Checkpoints.of(workspace.checkpoints, work, model)
        settings = Settings(
            optimiser=self.optimiser,
            rate=self.lr or OPTIMISERS[self.optimiser],
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            clip=self.clip,
        )
        penalties = Penalties(slimming=self.slimming, group_lasso=self.group_lasso, l1=self.l1).of(model, form)
        parameters = {**form.trained, **{f"own.{name}": value for name, value in objective.parameters.items()}}
        optimisation = Optimisation(parameters, settings, Schedule(self.schedule, steps, self.warmup), penalties)
        counts = objective.knows_labels and _counts_right(model, held_out)
        judge = Judge(held_out, objective, counts) if len(held_out) else None
        return Training(
            name=self.name,
            form=form,
            feed=feed,
            objective=objective,
            optimisation=optimisation,
            judge=judge,
            checkpoint=TrainingCheckpoint(checkpoints, ranks),
            progress=workspace.progress,
            steps=steps,
            every=min(every, steps),
            average=self.average,
            keep_best=self.keep == "best",
            minutes=self.minutes,
            mode=_agreed(self._mode(model, form), ranks),
            device=device,
        )

    def _feed(self, model: Model, workspace: Workspace, samples: Access) -> Feed:
        fit = Fit.of(model.inputs)
        shape = fit.shape
        size = None
        if len(shape) == 4:
            size = (shape[1], shape[2]) if fit.is_channels_last else (shape[2], shape[3])
        if samples.picture is None and fit.is_channels_last:
            size = None
        return Feed(
            samples=samples,
            fit=fit,
            augmentation=Augmentation.of(
                self.augment, size, has_pictures=samples.picture is not None, outside=self.outside
            ),
            mixing=Mixing(self.mixup, self.cutmix),
            batch=self.batch,
            micro=self.micro or self.batch,
            classes=model.outputs[0].spec.shape[1] if is_class_scores(model.outputs[0].spec.shape) else 0,
            seed=workspace.seed,
            threads=workspace.threads,
            ranks=workspace.ranks,
        )

    def _mode(self, model: Model, form: TrainingForm) -> Mode:
        """How steps are computed; what is rounded to integers needs all digits of float32."""
        is_quantised = bool(form.places.places)
        if is_quantised and self.precision == "bf16":
            raise UsageError(
                "precision=bf16 does not go with fake quantisation",
                why="an integer of 8 bits times its scale has more digits than bfloat16",
                help="leave precision= out",
            )
        has_images = len(fed_input(model.inputs).spec.shape) == 4
        automatic = "bf16" if not is_quantised and has_bfloat16(self.device) else "fp32"
        return Mode(automatic if self.precision == "auto" else self.precision, has_images, self.device)

    def _work(self, workspace: Workspace, samples: Access, held_out: Access) -> str:
        """What is done, in words: the same words mean the same training."""
        labels = zlib.crc32(repr([samples.targets(), held_out.targets()]).encode())
        return f"{self} seed={workspace.seed} images={len(samples)}+{len(held_out)} labels={labels:08x}"

    def _smaller(self) -> str:
        return f"give micro={max(1, (self.micro or self.batch) // 2)}: the gradients of a batch are then added up"

    def _tell(self, model: Model, training: Training, outcome: Outcome) -> None:
        """Say what was trained and what came of it."""
        stays = self.keep == "best" and training.judge is not None and not training.best_step
        names = set() if stays else set(training.form.trained)
        for node in model.module.graph.nodes:
            if node.op == "get_attr" and str(node.target) in names:
                outcome.change(node)
        epochs = training.steps / training.feed.steps_an_epoch
        outcome.notes.append(
            f"{counted(training.steps, 'step')} of {training.feed.batch} images, {epochs:.3g} epochs; "
            f"computed in {training.mode}"
        )
        outcome.notes += _judged(training)
        if training.form.places.places:
            outcome.notes.append(training.form.places.told())
        if self.device != "cpu":
            outcome.notes.append("a GPU sums in any order: the same training gives other last digits")
        if training.form.masks:
            outcome.notes.append(f"the zeros of {counted(len(training.form.masks), 'sparse layer')} stay zero")
        outcome.tables.append(training.table())


def _device(name: str, ranks: Ranks) -> torch.device:
    """The device of a kind that is this process's; `UsageError` if there is none."""
    if name == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if ranks.local >= count:
        whom = f"process {ranks.local} of this machine" if ranks.count > 1 else "training"
        raise UsageError(
            f"there is no GPU for {whom}",
            why=f"PyTorch {torch.__version__} finds {counted(count, 'GPU')} with CUDA here",
            help="leave device=cuda out" if not count else f"start {counted(count, 'process')} at most",
        )
    return torch.device(name, ranks.local)


def _agreed(mode: Mode, ranks: Ranks) -> Mode:
    """How all processes compute steps: as suits the leading one."""
    return Mode(**json.loads(ranks.hear(json.dumps(asdict(mode)).encode())))


def _refuse_others(work: str, ranks: Ranks) -> None:
    """Raise `UsageError` unless all processes train on the same images."""
    works = ranks.collect(work.encode())
    if others := [rank for rank, other in enumerate(works) if other != works[0]]:
        raise UsageError(
            f"processes 0 and {others[0]} see other images",
            why=f"{works[0].decode()} and {works[others[0]].decode()}",
            help="give the same files on all machines",
        )


def _judged(training: Training) -> list[str]:
    """Say how the model did on images held out, before and after."""
    before, after = training.first, training.best or training.last
    if before is None or after is None:
        return []
    what = f"on {before.images} images held out"
    if training.best and not training.best_step:
        return [f"{what} training gained nothing, and the state before it stays: {before}"]
    told = f"{what}: {before} -> {after}" + (f", after step {training.best_step}" if training.best else "")
    worse = "; if the model was trained on these images before, it knew them by heart, and they tell little"
    return [told + (worse if before.is_better_than(after) else "")]


def _counts_right(model: Model, held_out: Access) -> bool:
    targets = held_out.targets()
    shape = model.outputs[0].spec.shape
    return is_class_scores(shape) and all(isinstance(target, int) for target in targets)
