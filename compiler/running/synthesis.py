"""Images made from what a trained model remembers, for where there are none.

Noise is changed by gradients until the model takes it for images: the means and variances of what arrives at each batch
normalisation are those that it remembers of its training data, the scores of a classifier name a class drawn for the
image, and neighbouring pixels are alike. The images are moved by a few pixels and flipped at random while they are
made, so that they do not fit to the raster of the strides.

Source: Yin et al., "Dreaming to distill: data-free knowledge transfer via DeepInversion", 2020, sections 3.1 and 3.2.
Statistics are compared relative to the deviation that is remembered, which makes one weight right for all networks.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch.fx import GraphModule, Node
from torch.nn import functional

from lvc.compiler.data.npy import open_npz
from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.data.samples import Fit, Samples
from lvc.compiler.data.synthesised import Synthesis, samples_of
from lvc.compiler.errors import UsageError
from lvc.compiler.files import write_atomically
from lvc.compiler.ir.closing import without_closing
from lvc.compiler.ir.dialect import aten
from lvc.compiler.ir.graph import arguments, calls, tensor
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.checkpoint import Checkpoints
from lvc.compiler.pipeline.workspace import Progress, Silence
from lvc.compiler.running.memory import activation_bytes

_MOST_BYTES = 3 << 30
"""Of all values of a batch, which derivatives take."""

_SHARE_MOVED = 16  # the images are moved by at most this part of their side
_PRIME = 1_000_003
_BETAS = (0.5, 0.9)


@dataclass
class Synthesiser:
    """Makes images for a model, which must have its batch normalisations; each kind once.

    With a folder for ``checkpoints`` what was made is kept there, in a ``.npz`` file, and is not made again.
    """

    model: Model
    seed: int = 0
    progress: Progress = field(default_factory=Silence)
    checkpoints: Path | None = None
    _made: dict[tuple[str, str | None], Samples] = field(default_factory=dict, init=False)

    def __call__(self, text: str, preprocess: str | None) -> Samples:
        """Return the data set that a text names; ``preprocess`` says how its images are prepared, None that they are
        ready inputs. `UsageError` for a model from which none can be made."""
        key = (text, preprocess)
        if key not in self._made:
            self._made[key] = self._samples(Synthesis.parse(text), preprocess)
        return self._made[key]

    def _samples(self, settings: Synthesis, preprocess: str | None) -> Samples:
        prepared = Preprocess.parse(preprocess) if preprocess else None
        prepared = prepared and replace(prepared, letterbox=None, resize=None, crop=None)
        fits = Fit.of(self.model.inputs)
        check(self.model, fits)
        work = f"{settings} seed={self.seed} preprocess={prepared}"
        kept = Checkpoints.of(self.checkpoints, work, self.model)
        path = kept.folder / f"{kept.key}.npz" if kept.folder else None
        return samples_of(self._images(settings, _Scale.of(prepared, fits), path), prepared, fits)

    def _images(self, settings: Synthesis, scale: _Scale, path: Path | None) -> np.ndarray:
        """Make the images, batch after batch; those that are kept already are not made again."""
        most = min(settings.batch, max(1, _MOST_BYTES // max(1, activation_bytes(self.model.with_batch(1)))))
        count = math.ceil(settings.images / most)
        size = math.ceil(settings.images / count)
        parts = [open_npz(path)["x"].stack()] if path and path.exists() else []
        done = sum(map(len, parts)) // size if parts and len(parts[0]) < settings.images else count * bool(parts)
        graph = _Remembering.of(self.model, size) if done < count else None
        for batch in self.progress.track(range(done, count), "synthesising images", count - done):
            assert graph is not None
            parts.append(scale.stored(graph.make(settings, scale, self.seed * _PRIME + batch)))
            if path:
                content = io.BytesIO()
                np.savez(content, x=np.concatenate(parts)[: settings.images])
                write_atomically(path, content.getvalue())
        return np.concatenate(parts)[: settings.images]


def check(model: Model, fits: Fit) -> None:
    """Raise `UsageError` unless images can be made from a model."""
    if not _normalisations(model):
        raise UsageError(
            f"no images can be synthesised from '{model.name}'",
            why="they are made from what batch normalisations remember of the training data, and it has none",
            help="load the model before they are folded, as a .pt2 file or a factory with --weights; or give any "
            "pictures: calibration and distillation need no labels",
        )
    if fits.dtype.kind != "f":
        raise UsageError(
            f"no images can be synthesised for input '{fits.name}'",
            why=f"it takes {fits.dtype}, through which there are no gradients",
            help="give pictures",
        )


def _normalisations(model: Model) -> list[Node]:
    """The batch normalisations whose statistics are stored."""
    found = []
    for node in calls(model.module.graph, aten.batch_norm.default):
        args = arguments(node)
        if all(tensor(model.module, args[name]) is not None for name in ("running_mean", "running_var")):
            found.append(node)
    return found


@dataclass(frozen=True)
class _Scale:
    """From values around 0 with a deviation of about 1, ``f32[N,...]``, to inputs of the model.

    ``low`` and ``high`` are the inputs of black and of white pixels, ``[1,C,1,1]``, where inputs are images.
    """

    fits: Fit
    preprocess: Preprocess | None
    low: torch.Tensor | None = None
    high: torch.Tensor | None = None

    @classmethod
    def of(cls, preprocess: Preprocess | None, fits: Fit) -> _Scale:
        if preprocess is None:
            return cls(fits, None)
        ends = (np.full((1, 1, 1, preprocess.channels), byte, np.uint8) for byte in (0, 255))
        low, high = (torch.from_numpy(preprocess.to_planes(end)) for end in ends)
        return cls(fits, preprocess, low, high)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one value, images with channels first."""
        shape = self.fits.shape[1:]
        return (shape[2], *shape[:2]) if self.fits.is_channels_last else shape

    def inputs(self, values: torch.Tensor) -> torch.Tensor:
        if self.low is not None and self.high is not None:
            values = (self.high + self.low) / 2 + values * (self.high - self.low) / 4
        values = values.movedim(1, -1) if self.fits.is_channels_last else values
        return values.to(torch.from_numpy(np.empty(0, self.fits.dtype)).dtype)

    @torch.no_grad()
    def keep_valid(self, values: torch.Tensor) -> None:
        """Bring values to between black and white."""
        if self.preprocess:
            values.clamp_(-2, 2)

    def stored(self, values: torch.Tensor) -> np.ndarray:
        """What is kept of them: pixels ``uint8[N,H,W,C]``, or inputs."""
        if self.preprocess is None:
            return np.ascontiguousarray(self.inputs(values).numpy())
        pixels = ((values + 2) / 4 * 255).round().clamp(0, 255).to(torch.uint8).movedim(1, -1).numpy()
        return np.ascontiguousarray(pixels[..., ::-1] if self.preprocess.layout == "bgr" else pixels)


@dataclass(frozen=True)
class _Remembering:
    """A model for ``images`` at once that gives its first output, before a last softmax, and the values that arrive at
    its batch normalisations; ``means`` and ``variances`` are what these remember."""

    module: GraphModule
    images: int
    classes: int
    means: Sequence[torch.Tensor]
    variances: Sequence[torch.Tensor]
    tolerances: Sequence[float]

    @classmethod
    def of(cls, model: Model, images: int) -> _Remembering:
        from lvc.compiler.ir.task import is_class_scores

        batched = without_closing(model.with_batch(images))
        module, nodes = batched.module, _normalisations(batched)
        scores = batched.output_nodes[0]
        shape = batched.outputs[0].spec.shape
        classes = shape[1] if len(batched.outputs) == 1 and is_class_scores(shape, images) else 0
        args = [arguments(node) for node in nodes]
        module.graph.output_node().args = ((scores, *(item["input"] for item in args)),)
        module.graph.eliminate_dead_code()
        module.recompile()
        stored = ([tensor(module, item[name]) for item in args] for name in ("running_mean", "running_var"))
        means, variances = ([value.detach().float() for value in values if value is not None] for values in stored)
        return cls(module, images, classes, means, variances, [float(item["eps"]) for item in args])

    def make(self, settings: Synthesis, scale: _Scale, seed: int) -> torch.Tensor:
        """Make a batch of values; the same seed gives the same ones."""
        random = torch.Generator().manual_seed(seed)
        values = torch.randn((self.images, *scale.shape), generator=random)
        if values.ndim == 4:
            values = values.contiguous(memory_format=torch.channels_last)
        values.requires_grad_()
        targets = torch.randperm(self.images, generator=random) % max(1, self.classes)
        optimiser = torch.optim.Adam([values], lr=settings.rate, betas=_BETAS)
        for step in range(settings.steps):
            for group in optimiser.param_groups:
                group["lr"] = settings.rate * (1 + math.cos(math.pi * step / settings.steps)) / 2
            scale.keep_valid(values)
            loss = self._loss(_moved(values, random), targets, settings, scale)
            (values.grad,) = torch.autograd.grad(loss, [values])
            optimiser.step()
        scale.keep_valid(values)
        return values.detach()

    def _loss(self, values: torch.Tensor, targets: torch.Tensor, settings: Synthesis, scale: _Scale) -> torch.Tensor:
        scores, *arriving = self.module(scale.inputs(values))
        loss = settings.statistics * self._apart(arriving) + settings.l2 * values.square().mean()
        if self.classes:
            loss = loss + settings.classes * functional.cross_entropy(scores.flatten(1).float(), targets)
        if values.ndim == 4:
            loss = loss + settings.variation * _variation(values)
        return loss

    def _apart(self, arriving: Sequence[torch.Tensor]) -> torch.Tensor:
        """How far means and deviations of a batch are from those that are remembered: squared, relative to the
        latter, the mean over the channels and then over the normalisations."""
        found = []
        for value, mean, variance, tolerance in zip(arriving, self.means, self.variances, self.tolerances, strict=True):
            rows = value.float().movedim(1, 0).flatten(1)
            deviation = (variance + tolerance).sqrt()
            means = ((rows.mean(1) - mean) / deviation).square()
            deviations = ((rows.var(1, correction=0) + tolerance).sqrt() / deviation - 1).square()
            found.append((means + deviations).mean())
        return torch.stack(found).mean()


def _moved(values: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Images, moved by a few pixels and flipped or not, all alike; anything else as it is."""
    if values.ndim != 4:
        return values
    shifts = [
        int(torch.randint(-(side // _SHARE_MOVED), side // _SHARE_MOVED + 1, (), generator=random))
        for side in values.shape[2:]
    ]
    moved = torch.roll(values, shifts, (2, 3))
    return moved.flip(3) if torch.rand((), generator=random) < 0.5 else moved


def _variation(values: torch.Tensor) -> torch.Tensor:
    """The mean squared difference of neighbouring pixels, down and across."""
    down, across = values.diff(dim=2), values.diff(dim=3)
    return sum((part.square().mean() for part in (down, across) if part.numel()), torch.zeros(()))
