"""Train each block of the model to give what that block gave in the model as it was loaded.

Between fitting layers by least squares, as `prune-channels` does, and training the whole: a few hundred images are
enough, they need no labels, and it takes minutes. The network is cut where a single value leads on, behind residual
blocks or stages, and all blocks are trained at once, each by itself, on what the block before it gives. It works on
pruned, factored, sparse and fake-quantised graphs.

Blocks that are nearer to what they were need not make a network that is: the state that comes nearest to the teacher's
outputs on images held out stays, which may be the one before. How, and from where, `lvc.passes.training.blocks` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from lvc.compiler.data.access import Access
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.task import is_class_scores
from lvc.compiler.pipeline.passes import Effect, Outcome, option
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.text import counted
from lvc.passes.training.blocks import ByBlocks, Ends
from lvc.passes.training.language import TrainingPass
from lvc.passes.training.objective import Objective
from lvc.passes.training.pairing import Pair
from lvc.passes.training.teaching import frozen_teacher, original_of
from lvc.passes.training.term import TERMS


@dataclass(frozen=True, kw_only=True)
class DistilBlocks(TrainingPass):
    """Train the model block by block to give what the loaded model gave, on a few images without labels."""

    name: ClassVar[str] = "distil-blocks"
    effect: ClassVar[Effect] = Effect.LOSSY
    idempotent: ClassVar[bool] = False

    data: str = option("calib", "the data set to train on, as named by --data NAME=PATH; labels are not needed")
    steps: int = option(200, "so many steps; 0 for epochs=")
    batch: int = option(32, "images in a step")
    lr: float = option(0.005, "the largest learning rate")
    weight_decay: float = option(0.0, "decay of weights; biases and normalisations have none")
    augment: tuple[str, ...] = option(("none",), "none, auto, or augmentations as other training has them")
    batch_norm: Literal["train", "freeze"] = option(
        "freeze", "normalise by the statistics as they are, or by the batch"
    )
    keep: Literal["last", "best"] = option("best", "which state stays: the last, or the best on held-out images")
    every: int = option(25, "judge after so many steps (0: after each epoch)")

    def objective(self, model: Model, samples: Access, workspace: Workspace, outcome: Outcome) -> Objective:
        pair = Pair(model, frozen_teacher(original_of(workspace)), is_descendant=True)
        pair.check()
        images = self.images_at_once(workspace.ranks)
        ends = Ends.of(pair, samples, self.images_at_once())  # all processes match channels by the same images
        is_classifier = len(model.outputs) == 1 and is_class_scores(model.outputs[0].spec.shape)
        last = TERMS.parse("soft-labels" if is_classifier else "outputs")
        blocks, narrower = len(ends.nodes) + 1, sum(partners is not None for partners in ends.partners)
        matched = f", {narrower} with fewer channels than there were" if narrower else ""
        outcome.notes.append(f"learns from '{pair.teacher.name}' in {counted(blocks, 'block')}{matched}")
        return ByBlocks(pair, ends, last, images, workspace.ranks)
