"""How much accuracy each group of channels costs when it alone is pruned.

Each group gives up a share of its units, those that the criterion finds least important, while all others stay whole;
the outputs on the data are then compared with those of the whole model. Units are set to zero, which is exactly what
removing them gives. The model itself is left as it is: the table, and the file that `lvc sensitivity` writes, are the
result. `prune-channels{sensitivity=FILE}` reads that file and takes from each group what costs least.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.closing import without_closing
from lvc.compiler.ir.graph import spec
from lvc.compiler.ir.model import Model
from lvc.compiler.measure.task_metric import TaskMetric, in_parts
from lvc.compiler.pipeline.catalogue import PASSES, POSTPROCESS
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass, Table, option
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.text import with_option
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.running.batches import images_at_once
from lvc.compiler.running.images import Calibration
from lvc.compiler.text import percent
from lvc.passes.analysis.channel_groups import Channels, Removal, channel_groups
from lvc.passes.analysis.channels.masking import Masked
from lvc.passes.analysis.channels.proof import Kept
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
    postprocess: str = option("", "what makes boxes of the outputs for the metric, such as yolox,nms")

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
        ended = _ended(model, self.postprocess, workspace)
        watched = _watched(model, ended) if self.postprocess else without_closing(model)
        metric = TaskMetric.of(ended, in_parts(data.known, data.size))
        if metric is None and self.postprocess:
            raise _no_metric(data.name)
        kept, results = partial(_kept, watched, channels), len(ended.output_nodes)
        raw = results if self.postprocess else 0
        whole = _run(watched, kept({}), data)
        behind = _rest(whole, raw)
        own: list[tuple[str | int | float, ...]] = []
        trials = [(g, ratio) for g in groups if g.name in scores for ratio in self.ratios]
        ours = workspace.ranks.share(len(trials))
        for group, ratio in workspace.progress.track(trials[ours.start : ours.stop], "pruning each group alone"):
            count = min(group.size - 1, max(1, round(ratio * group.size)))
            order = scores[group.name].argsort(stable=True)[:count].tolist()
            found = _run(watched, kept({group.name: order}), data)
            share = round(metric.score(ended, _first(found, results)), 6) if metric else ""
            own.append((group.name, group.size, ratio, count, _error(_rest(found, raw), behind), share))
        told = workspace.ranks.collect(json.dumps(own).encode())
        rows = [tuple(row) for part in told for row in json.loads(part)]
        outcome.notes.append(
            f"{len({row[0] for row in rows})} groups at {len(self.ratios)} ratios on {data.different} images"
            + (
                f"; {metric.name} of the whole model {percent(metric.score(ended, _first(whole, results)), 2)}"
                if metric
                else ""
            )
        )
        outcome.tables.append(Table(f"sensitivity{f', {metric.name}' if metric else ''}", COLUMNS, tuple(rows)))
        return outcome


_Outputs = list[tuple[torch.Tensor, ...]]


def _ended(model: Model, steps: str, workspace: Workspace) -> Model:
    """A model with what makes boxes of its outputs, if any."""
    if not steps:
        return model
    return Pipeline((with_option(PASSES.get(POSTPROCESS)(), "steps", steps),)).run(model, workspace)[0]


def _watched(model: Model, ended: Model) -> Model:
    """The model that gives what ``ended`` does and after that its raw outputs, in front of what closes it, but for
    those that nothing is made of."""
    watched = ended.copy(share_tensors=True)
    graph = watched.module.graph
    names = [node.name for node in without_closing(model).output_nodes]
    nodes = {node.name: node for node in graph.nodes}
    output = graph.output_node()
    raw = tuple(nodes[name] for name in names if name in nodes)
    output.args = ((*watched.output_nodes, *raw),)
    watched.output_names = (*ended.output_names, *(f"raw_{place}" for place in range(len(raw))))
    watched.module.recompile()
    return watched


def _kept(watched: Model, channels: Channels, removal: Removal) -> Kept:
    """What stays of the values of a model, of which those behind the raw outputs have all."""
    all_of_it = {
        node.name: (None,) * len(spec(node).shape) for node in watched.module.graph.nodes if node.op != "output"
    }
    return {**all_of_it, **channels.kept(removal)}


def _run(model: Model, kept: Kept, data: Calibration) -> _Outputs:
    """Return the outputs with some units zero, for each input."""
    run, most = Masked(model, kept).run, images_at_once(model)
    parts = (part for batch in data.batches for part in torch.split(batch, most))
    return [made for part in parts for made in run.each(part)]


def _first(outputs: _Outputs, count: int) -> _Outputs:
    return [made[:count] for made in outputs]


def _rest(outputs: _Outputs, count: int) -> _Outputs:
    return [made[count:] for made in outputs]


def _no_metric(name: str) -> UsageError:
    return UsageError(
        "nothing can be measured behind the steps of postprocess",
        why=f"'{name}' does not tell what its pictures show, or they make no boxes for each of them",
        help="give pictures with labels: a folder with 'images' and 'labels' in it, or FOLDER:FILE.json",
    )


def _error(found: _Outputs, whole: _Outputs) -> float:
    pairs = [[part.double() if part.is_floating_point() else part for part in _joined(made)] for made in (found, whole)]
    return float(f"{relative_error(*pairs):.4g}")


def _joined(outputs: _Outputs) -> list[torch.Tensor]:
    return [torch.cat(parts) if parts[0].ndim else torch.stack(parts) for parts in zip(*outputs, strict=True)]
