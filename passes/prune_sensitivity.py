"""How much accuracy each group of channels costs when it alone is pruned.

Each group gives up a share of its units, those that the criterion finds least important, while all others stay whole;
the outputs on the data are then compared with those of the whole model. Units are set to zero, which is exactly what
removing them gives. The model itself is left as it is: the table, and the file that `lvc sensitivity` writes, are the
result. `prune-channels{sensitivity=FILE}` reads that file and takes from each group what costs least.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

import torch

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.closing import without_closing
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.task_metric import TaskMetric, in_parts
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass, Table, option
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.running.images import Calibration
from lvc.compiler.text import percent
from lvc.passes.analysis.channel_groups import Channels, Removal, channel_groups
from lvc.passes.analysis.channels.masking import Masked
from lvc.passes.pruning.choice import choose
from lvc.passes.pruning.criterion import parse_criterion
from lvc.passes.pruning.evidence import Evidence
from lvc.passes.pruning.loss import relative_error
from lvc.passes.pruning.scores import score

COLUMNS = ("group", "channels", "ratio", "removed", "error", "accuracy")


@dataclass(frozen=True, kw_only=True)
class PruneSensitivity(Pass):
    """Measure how much each group of channels costs when it alone is pruned; leaves the model as it is."""

    name: ClassVar[str] = "prune-sensitivity"
    effect: ClassVar[Effect] = Effect.EXACT
    is_divided: ClassVar[bool] = True

    ratios: tuple[float, ...] = option((0.25, 0.5, 0.75, 0.9), "the shares of each group's channels to remove")
    criterion: str = option("l2", "what says which channels of a group go first; see prune-channels")
    skip: tuple[str, ...] = option((), "names of groups to leave out, with * for any characters")
    data: str = option(
        "calib", "the data set, as named by --data NAME=PATH; with labels the metric of the task is measured too"
    )
    images: int = option(128, "use at most so many images of it")

    def __post_init__(self) -> None:
        if not self.ratios or not all(0 < ratio < 1 for ratio in self.ratios):
            raise UsageError("ratios must be shares between 0 and 1", help="for example ratios=0.25,0.5,0.75")
        if self.images < 1:
            raise UsageError(f"images must be at least 1, not {self.images}")
        parse_criterion(self.criterion)

    @property
    def data_sets(self) -> frozenset[str]:
        return frozenset({self.data})

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        outcome = Outcome()
        channels = channel_groups(model)
        groups = [group for group in choose(channels, self.skip, model, outcome) if group.size > 1]
        data = Calibration.read(model, workspace, self.data, self.images)
        evidence = Evidence(model, channels, data, workspace.seed, workspace.progress)
        scores = score(tuple(groups), parse_criterion(self.criterion), evidence).known
        whole, metric = _run(model, channels, {}, data), TaskMetric.of(model, in_parts(data.known, data.size))
        own: list[tuple[str | int | float, ...]] = []
        trials = [(g, ratio) for g in groups if g.name in scores for ratio in self.ratios]
        ours = workspace.ranks.share(len(trials))
        for group, ratio in workspace.progress.track(trials[ours.start : ours.stop], "pruning each group alone"):
            count = min(group.size - 1, max(1, round(ratio * group.size)))
            order = scores[group.name].argsort(stable=True)[:count].tolist()
            found = _run(model, channels, {group.name: order}, data)
            share = round(metric.score(model, found), 6) if metric else ""
            own.append((group.name, group.size, ratio, count, _error(found, whole), share))
        told = workspace.ranks.collect(json.dumps(own).encode())
        rows = [tuple(row) for part in told for row in json.loads(part)]
        outcome.notes.append(
            f"{len({row[0] for row in rows})} groups at {len(self.ratios)} ratios on {data.different} images"
            + (f"; {metric.name} of the whole model {percent(metric.score(model, whole), 2)}" if metric else "")
        )
        outcome.tables.append(Table("sensitivity", COLUMNS, tuple(rows)))
        return outcome


_Outputs = list[tuple[torch.Tensor, ...]]


def _run(model: Model, channels: Channels, removal: Removal, data: Calibration) -> _Outputs:
    """Return the outputs, in front of what closes the model, with some units zero, for each input."""
    run = Masked(without_closing(model), channels.kept(removal)).run
    return [made for batch in data.batches for made in run.each(batch)]


def _error(found: _Outputs, whole: _Outputs) -> float:
    pairs = [[part.double() if part.is_floating_point() else part for part in _joined(made)] for made in (found, whole)]
    return float(f"{relative_error(*pairs):.4g}")


def _joined(outputs: _Outputs) -> list[torch.Tensor]:
    return [torch.cat(parts) if parts[0].ndim else torch.stack(parts) for parts in zip(*outputs, strict=True)]
