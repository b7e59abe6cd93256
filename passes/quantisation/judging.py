"""Which of several quantised forms of a model is nearest to the floating-point one, on images held out from the fits.

What counts is the error of the outputs in front of closing functions: the mean over outputs of decibels. Images differ,
and few of them say little; so a gain comes with its standard error, by the jackknife over images::

    gain = mean over outputs of 10 log10(sum of errors of one / sum of errors of the other)
    error^2 = (n - 1) / n * sum over images i of (gain without i - mean of these)^2

Source: Efron and Stein 1981, "The jackknife estimate of variance".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lvc.compiler.data.batches import fed_input
from lvc.compiler.ir.closing import closing_functions, without_closing
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.counts import total_macs
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.running.images import Calibration
from lvc.compiler.running.run import Run

FEWEST = 4
"""Fewer images held out do not say whether weights that were fitted serve others too."""

_MOST_IMAGES = 64
_MOST_MACS = 60e9  # of one run over the images
_LEAST_IMAGES = 8
_MOST_BYTES = 256 << 20  # of the outputs
_NOTHING = 1e-12  # of the power of an output


@dataclass(frozen=True)
class Gain:
    """By how many decibels one form is nearer than another, and what the choice of images leaves open."""

    decibels: float
    error: float

    @property
    def is_likely(self) -> bool:
        """Whether other images would show a gain too, by odds of about seven to three."""
        return self.decibels > self.error / 2


@dataclass(frozen=True)
class Judging:
    """Images and what the floating-point model gives for them. Errors are ``f64[images,outputs]``, squared sums.

    ``is_apart`` unless passes were fitted to the images as well.
    """

    drawn: Calibration
    images: int
    wanted: Sequence[Sequence[torch.Tensor]]
    power: torch.Tensor
    closed: int
    source: str
    is_apart: bool

    @classmethod
    def open(cls, floating: Model, model: Model, workspace: Workspace, data: str) -> Judging:
        """Run the floating-point model over the images that are for judging what was learnt from a data set."""
        judging = workspace.judging_images(data)
        drawn = Calibration.draw(model, judging.data, judging.name, workspace.seed, most_images(floating))
        closed = len(closing_functions(floating.module.graph))
        is_open = closed == len(closing_functions(model.module.graph))
        run = Run(without_closing(floating) if is_open else floating, frozen=True)
        wanted = [_compared(outputs) for batch in drawn.batches for outputs in run.each(batch)]
        images = drawn.different
        squares = [_by_image([y.double().square() for y in outputs], drawn.size) for outputs in wanted]
        power = torch.cat(squares)[:images].nan_to_num(nan=0.0, posinf=0.0).sum(0)
        return cls(drawn, images, wanted, power, closed if is_open else -1, str(judging), judging.is_apart)

    def __str__(self) -> str:
        return f"over {self.images} images {self.source}"

    def errors(self, model: Model) -> torch.Tensor:
        """Return the error of each output for each image, or for each input where outputs do not tell images apart.

        Images that only fill the last batch are left out.
        """
        run = Run(without_closing(model) if self.closed >= 0 else model, frozen=True)
        found = [_compared(outputs) for batch in self.drawn.batches for outputs in run.each(batch)]
        rows = [_errors(y, z, self.drawn.size) for y, z in zip(self.wanted, found, strict=True)]
        return torch.cat(rows)[: self.images].nan_to_num(nan=1e30, posinf=1e30)

    def decibels(self, errors: torch.Tensor) -> float:
        """Return the signal-to-noise ratio, the mean over outputs."""
        return float((10 * (self.power.clamp(min=_NOTHING) / self._total(errors.sum(0))).log10()).mean())

    def gain(self, errors: torch.Tensor, before: torch.Tensor) -> Gain:
        """Return by how much a form is nearer than one before it; the error is infinite if there is but one row."""

        def decibels(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
            return (10 * (self._total(theirs) / self._total(ours)).log10()).mean(-1)

        ours, theirs, count = errors.sum(0), before.sum(0), len(errors)
        without = decibels(ours - errors, theirs - before)
        error = ((count - 1) / count * (without - without.mean()).square().sum()).sqrt()
        return Gain(float(decibels(ours, theirs)), float(error) if count > 1 else math.inf)

    def _total(self, errors: torch.Tensor) -> torch.Tensor:
        return errors.maximum(_NOTHING * self.power.clamp(min=_NOTHING))


def most_images(model: Model) -> int:
    """Return how many images are worth their time and their memory."""
    batch = fed_input(model.inputs).spec.shape[0]
    work = max(1.0, total_macs(model.module.graph) / batch)
    size = max(1, sum(output.spec.bytes for output in model.outputs) // batch)
    return min(_MOST_IMAGES, max(_LEAST_IMAGES, int(_MOST_MACS / work)), max(FEWEST, _MOST_BYTES // size))


def _compared(outputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return the floating-point outputs, or all if there are none."""
    return [y for y in outputs if y.is_floating_point()] or list(outputs)


def _errors(wanted: Sequence[torch.Tensor], found: Sequence[torch.Tensor], batch: int) -> torch.Tensor:
    """Return squared errors; what is not finite in both alike is none."""
    pairs = zip(wanted, found, strict=True)
    errors = [torch.where((y == z) | (y.isnan() & z.isnan()), 0.0, y.double() - z.double()).square() for y, z in pairs]
    return _by_image(errors, batch)


def _by_image(values: Sequence[torch.Tensor], batch: int) -> torch.Tensor:
    """Return sums ``[images,outputs]``, or one row for the input if an output does not tell images apart."""
    rows = batch if all(value.ndim and len(value) == batch for value in values) else 1
    return torch.stack([value.reshape(rows, -1).sum(1) for value in values], 1)
