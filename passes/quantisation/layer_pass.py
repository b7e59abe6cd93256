"""What passes have in common that mend quantised layers, one after the other in graph order."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch.fx import Node

from lvc.compiler.comparison.verdict import REMEDY
from lvc.compiler.errors import UsageError
from lvc.compiler.model import Model
from lvc.compiler.passes import Effect, Outcome, Pass, option
from lvc.compiler.workspace import Workspace
from lvc.passes.quantisation.layerwise import Layerwise, quantised_layers

IMAGES = "use at most so many images, and fewer if their activations would not fit into memory"


@dataclass(frozen=True, kw_only=True)
class LayerPass(Pass):
    """Mend each quantised layer on calibration data, with every change to the layers before made."""

    effect: ClassVar[Effect] = Effect.LOSSY
    remedy: ClassVar[str] = REMEDY
    idempotent: ClassVar[bool] = False
    doing: ClassVar[str]

    data: str = option("calib", "the data set, as named by --data NAME=PATH; labels are not needed")
    images: int = option(128, IMAGES)

    def __post_init__(self) -> None:
        if self.images < 1:
            raise UsageError(f"images must be at least 1, not {self.images}")

    @property
    def data_sets(self) -> frozenset[str]:
        return frozenset({self.data})

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        outcome = Outcome()
        layers = self.layers(model, outcome)
        if not layers:
            return outcome
        both = Layerwise.open(model, workspace, self.data, self.images)
        for layer in workspace.progress.track(layers, self.doing, len(layers)):
            self.mend(both, layer)
            outcome.change(layer)
        both.note(outcome)
        return outcome

    def layers(self, model: Model, outcome: Outcome) -> list[Node]:
        """Return the layers to mend, in order."""
        return quantised_layers(model, outcome)

    @abstractmethod
    def mend(self, both: Layerwise, layer: Node) -> None:
        """Change a layer of ``both.model``, which both models have reached."""
