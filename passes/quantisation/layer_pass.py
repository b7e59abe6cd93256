"""What passes have in common that mend quantised layers, one after the other in graph order.

A pass mends a copy of the model. Images held out from the pass tell whether the outputs came nearer to those of the
floating-point model; otherwise all is taken back (`lvc.passes.quantisation.choosing`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch.fx import Node

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass, option
from lvc.compiler.pipeline.workspace import Workspace
from lvc.passes.quantisation.choosing import Choice, Form, adopt
from lvc.passes.quantisation.judging import FEWEST, Judging
from lvc.passes.quantisation.layerwise import Layerwise, find, quantised_layers


@dataclass(frozen=True)
class Mending:
    """A way to mend layers: ``mend`` changes a layer of ``both.model``, which both models have reached.

    ``doing`` and ``done`` tell of it and of a model that it has mended. ``is_fit`` if so much is fitted to the data
    that other images must judge it.
    """

    doing: str
    done: str
    images: int
    mend: Callable[[Layerwise, Node], None]
    is_fit: bool = False

    def mended(self, both: Layerwise, layers: Sequence[str], workspace: Workspace) -> Model:
        """Return a copy of the model with all layers mended."""
        fresh = both.restarted(self.images)
        for layer in workspace.progress.track(layers, self.doing, len(layers)):
            self.mend(fresh, find(fresh.model, layer))
        fresh.model.module.recompile()
        return fresh.model


IMAGES = "use at most so many images, and fewer if their activations would not fit into memory"


@dataclass(frozen=True, kw_only=True)
class LayerPass(Pass):
    """Mend each quantised layer on calibration data, with every change to the layers before made."""

    effect: ClassVar[Effect] = Effect.LOSSY
    idempotent: ClassVar[bool] = False

    data: str = option("calib", "the data set, as named by --data NAME=PATH; labels are not needed")
    images: int = option(128, IMAGES)
    always: bool = option(False, "also where images held out speak against it, or are too few to judge by")

    def __post_init__(self) -> None:
        if self.images < 1:
            raise UsageError(f"images must be at least 1, not {self.images}")

    @property
    def data_sets(self) -> frozenset[str]:
        return frozenset({self.data})

    @property
    @abstractmethod
    def mendings(self) -> Sequence[Mending]:
        """The ways to mend that are tried, the last of which is what the pass is for."""

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        outcome = Outcome()
        layers = [layer.name for layer in self.layers(model, outcome)]
        if not layers:
            return outcome
        both = Layerwise.open(model, workspace, self.data, self.images)
        before = both.losses()
        found = self._mended(both, layers, workspace, outcome)
        for layer in layers:
            if adopt(model, found, layer):
                outcome.change(layer)
        model.module.recompile()
        both.note(outcome, before)
        return outcome

    def _mended(self, both: Layerwise, layers: Sequence[str], workspace: Workspace, outcome: Outcome) -> Model:
        if self.always:
            return self.mendings[-1].mended(both, layers, workspace)
        return self.chosen(both, layers, workspace, outcome)

    def chosen(self, both: Layerwise, layers: Sequence[str], workspace: Workspace, outcome: Outcome) -> Model:
        """Return the form of the model that is best on images held out; say which it is."""
        judging = Judging.open(both.floating, both.model, workspace, self.data)
        choice = Choice(judging, Form("as it was", both.model))
        for item in self.mendings:
            if item.is_fit and not choice.can_judge:
                few = f"fewer than {FEWEST} images are held out to judge by"
                outcome.notes.append(f"{few}, so {item.doing} is left out; give more, or always=true")
                continue
            choice.try_form(Form(item.done, item.mended(both, layers, workspace), item.is_fit))
        outcome.notes.append(choice.note)
        outcome.tables.append(choice.table)
        return choice.best.model

    def layers(self, model: Model, outcome: Outcome) -> list[Node]:
        """Return the layers to mend, in order."""
        return quantised_layers(model, outcome)
