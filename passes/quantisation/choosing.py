"""The better of several forms of a quantised model, by images held out from what they were fitted to."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from lvc.compiler.ir.layers import set_bias
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.passes import Table
from lvc.compiler.text import decibels
from lvc.passes.quantisation.judging import FEWEST, Judging
from lvc.passes.quantisation.layerwise import (
    find,
    set_scale,
    set_weight,
    stored_bias,
    stored_scale,
    stored_weight,
)


@dataclass(frozen=True)
class Form:
    """A form of a model, and what it is called. ``is_fit`` if as much was fitted to data as weights are."""

    name: str
    model: Model
    is_fit: bool = False


@dataclass
class Choice:
    """The best form so far; ``first`` is how the model is before anything is tried."""

    judging: Judging
    first: Form
    tried: list[tuple[Form, torch.Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.best, self.errors = self.first, self.judging.errors(self.first.model)
        self.tried.append((self.first, self.errors))

    @property
    def can_judge(self) -> bool:
        """Whether enough images are held out to judge what was fitted to others."""
        return self.judging.is_apart and self.judging.images >= FEWEST

    def try_form(self, form: Form) -> None:
        """Take a form if it is nearer than the best so far; a fit only if other images are likely to say so too."""
        errors = self.judging.errors(form.model)
        self.tried.append((form, errors))
        gain = self.judging.gain(errors, self.errors)
        if gain.is_likely if form.is_fit else gain.decibels > 0:
            self.best, self.errors = form, errors

    @property
    def note(self) -> str:
        """What was found, and what was taken."""
        judging = self.judging
        found = ", ".join(
            f"{decibels(judging.decibels(errors))} {form.name}" for form, errors in self.tried if form is not self.best
        )
        kept = f"kept {self.best.name}: {decibels(judging.decibels(self.errors))} {judging}"
        return f"{kept}, against {found}" if found else kept

    @property
    def table(self) -> Table:
        rows = tuple(
            (form.name, round(self.judging.decibels(errors), 2), round(gain.decibels, 2), round(gain.error, 2))
            for form, errors in self.tried
            for gain in [self.judging.gain(errors, self.tried[0][1])]
        )
        return Table(f"forms {self.judging}", ("form", "SQNR, dB", "gain, dB", "standard error"), rows)


def adopt(model: Model, donor: Model, layer: str) -> bool:
    """Give a layer the weight, scale and bias that it has in another form of the model; whether that changes it."""
    ours, theirs = find(model, layer), find(donor, layer)
    changed = False
    for stored, put in ((stored_weight, set_weight), (stored_scale, set_scale), (stored_bias, set_bias)):
        value = stored(donor, theirs)
        if not torch.equal(value, stored(model, ours)):
            put(model.module, ours, value)
            changed = True
    return changed
