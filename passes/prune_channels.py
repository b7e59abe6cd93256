"""Remove channels until the model is as small as wanted.

A step judges the units of every group by a criterion, lines all of them up, takes as many as bring the model down to
its target, removes them, and proves at once that removal was exact: the outputs equal those of the model with the same
channels set to zero, and the signature is what it was. Then the layers that lost inputs may be fitted to what they gave
before (`reconstruct`) and batch normalisations to the values that arrive (`recalibrate`), on calibration data.

With data the defaults are what keeps most accuracy without training: the criterion `output-error`, the ranking
`sensitivity` or, where the outputs are then nearer on images held out, the same share of each `layer`, and
reconstruction; three steps where much is to go, each of which judges what those before it have left. Without, they are
`l2` and the same share of each layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch

from lvc.compiler.errors import UsageError
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.verify import verify
from lvc.compiler.pipeline.checkpoint import Checkpoints
from lvc.compiler.pipeline.passes import Effect, Outcome, Pass, option
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.running.images import Calibration
from lvc.passes.analysis.channel_groups import ChannelGroup, Removal, channel_groups
from lvc.passes.analysis.channels.masking import check_removal
from lvc.passes.analysis.channels.surgery import remove
from lvc.passes.fitting.batch_norm import recalibrate
from lvc.passes.pruning.account import Account
from lvc.passes.pruning.budget import SHARES, Cost, check_reachable, cost_of, take
from lvc.passes.pruning.choice import choose, find_multiple
from lvc.passes.pruning.criterion import CRITERIA, Criterion, parse_criterion
from lvc.passes.pruning.curves_file import read_curves
from lvc.passes.pruning.evidence import Evidence
from lvc.passes.pruning.latency_search import share_of_latency, take_until_fast
from lvc.passes.pruning.ranking import Queue, global_prices, isomorphic_prices, layer_prices, make_queue
from lvc.passes.pruning.reconstruction import reconstruct
from lvc.passes.pruning.scores import Scores, score
from lvc.passes.pruning.sensitivity import Curve, measure_curves
from lvc.passes.pruning.teacher import Teacher
from lvc.passes.pruning.trials import Trial, best, too_dear

_MEANING = {"ratio": "the share of all channels to remove", **SHARES}


DATA = "calib"
"""The data set that is used if there is one."""

_MUCH, _STEPS = 0.75, 3
"""To less than this share a model comes down in so many steps, unless the options say how it is done."""


@dataclass(frozen=True)
class Goal:
    """What a step comes down to: of which cost how much is ``allowed``, and the least width of each group.

    ``today`` is the cost of the original, ``last`` what is allowed after the last step. Latency counts as a share of
    that of the original.
    """

    kind: str
    today: float
    last: float
    allowed: float
    least: Mapping[str, int]
    original: Model


@dataclass(frozen=True)
class Setting:
    """What a step goes by: the groups that may shrink, what it comes down to, and what it can look at.

    What is left is fitted to the teacher.
    """

    groups: tuple[ChannelGroup, ...]
    goal: Goal
    cost: Cost
    evidence: Evidence
    workspace: Workspace
    teacher: Teacher

    @property
    def shrinking(self) -> tuple[ChannelGroup, ...]:
        """The groups that are not yet at their least width."""
        return tuple(group for group in self.groups if group.size > self.goal.least[group.name])


@dataclass(frozen=True, kw_only=True)
class PruneChannels(Pass):
    """Remove channels, those that matter least, until the model is as small as wanted."""

    name: ClassVar[str] = "prune-channels"
    effect: ClassVar[Effect] = Effect.LOSSY
    idempotent: ClassVar[bool] = False
    remedy: ClassVar[str] = "a larger share to keep, more calibration images, or training afterwards"

    ratio: float | None = option(None, _MEANING["ratio"])
    macs: float | None = option(None, _MEANING["macs"])
    params: float | None = option(None, _MEANING["params"])
    bytes: float | None = option(None, _MEANING["bytes"])
    latency: float | None = option(None, _MEANING["latency"])
    criterion: str = option("auto", f"what says which channels matter: auto, {', '.join(CRITERIA.names())}")
    ranking: Literal["layer", "global", "isomorphic", "sensitivity"] | None = option(
        None, "how groups compare: layer, global, isomorphic, sensitivity (default: sensitivity or layer, the better)"
    )
    sensitivity: str = option("", "a file of 'lvc sensitivity' for that ranking, in place of an estimate")
    reduction: Literal["sum", "mean", "max", "min", "first"] = option(
        "mean", "how the scores of coupled layers become one: sum, mean, max, min, first"
    )
    normalise: Literal["auto", "none", "mean", "max", "sum", "deviation"] = option(
        "auto", "divide a group's scores by their mean, max, sum or deviation (auto: mean, if the criterion needs it)"
    )
    reconstruct: bool | None = option(None, "fit the layers that lost inputs by least squares (default: with data)")
    recalibrate: bool | None = option(None, "estimate batch norms anew (default: with data, without reconstruct)")
    skip: tuple[str, ...] = option((), "names of groups to leave alone, with * for any characters")
    heads: bool = option(False, "attention loses whole heads, in place of becoming narrower in each")
    keep: float = option(0.1, "the share of each group's channels that stays in any case")
    multiple: int | None = option(None, "round widths to multiples of this (default: 1; for latency, the vectors')")
    steps: int | None = option(
        None, "come down to the target in so many steps (default: 3 with data if less than 3/4 shall stay, else 1)"
    )
    between: str = option("", "a pipeline to run after each step, such as a training pass")
    data: str = option(DATA, "the calibration data, as named by --data NAME=PATH")
    images: int = option(512, "use at most so many images of it")

    def __post_init__(self) -> None:
        for name, value in self._targets().items():
            if not 0 < value < 1:
                raise UsageError(f"{name} must be between 0 and 1, not {value:g}", help=f"it is {_MEANING[name]}")
        if len(self._targets()) > 1:
            raise UsageError(f"{' and '.join(self._targets())} are both given", help="give one target")
        for name in ("multiple", "steps", "images"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 <= self.keep < 1:
            raise UsageError(f"keep must be from 0 to below 1, not {self.keep:g}")
        Pipeline.parse(self.between)
        if self.criterion != "auto":
            parse_criterion(self.criterion)

    @property
    def data_sets(self) -> frozenset[str]:
        return frozenset[str]().union(*(item.data_sets for item in Pipeline.parse(self.between)))

    @property
    def dtypes(self) -> frozenset[torch.dtype]:
        return Pipeline.parse(self.between).dtypes

    def _targets(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in _MEANING if getattr(self, name) is not None}

    def _target(self) -> tuple[str, float]:
        """Return what is limited, and the share of today's that stays."""
        if not self._targets():
            raise UsageError(
                "prune-channels was not told how small the model shall become",
                help="give a target, for example prune-channels{macs=0.5} to halve the multiply-accumulates",
            )
        ((name, value),) = self._targets().items()
        return name, 1 - value if name == "ratio" else value

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        outcome = Outcome()
        kind, share = self._target()
        channels = channel_groups(model, heads=self.heads)
        groups = choose(channels, self.skip, model, outcome)
        if not groups:
            outcome.notes.append("nothing changed, because no group of channels may shrink; --explain says why")
            return outcome
        original = model.copy(share_tensors=True)
        full = 1.0 if kind == "latency" else cost_of(kind, model, channels, groups).measure({})
        account = Account.open(model, groups)
        least = {group.name: max(1, round(self.keep * group.size)) for group in groups}
        checkpoints = Checkpoints.of(workspace.checkpoints, str(self), model)
        done = checkpoints.last()
        data = self._calibration(model, workspace)
        steps = self.steps or self._default_steps(model, data)
        if done:
            model.module = done[1].module
            channels = channel_groups(model, heads=self.heads)
            outcome.notes.append(f"went on from step {done[0]} of {steps} in {workspace.checkpoints}")
        teacher = Teacher.of(model)
        for step in range(done[0] + 1 if done else 1, steps + 1):
            before = model.copy(share_tensors=True)
            goal = Goal(kind, full, full * share, full * (1 - (1 - share) * step / steps), least, original)
            evidence = Evidence(model, channels, data, workspace.seed, workspace.progress)
            found = Outcome()
            if removal := self._step(evidence, goal, workspace, teacher, found):
                account.follow(before, channels.kept(removal))
                teacher = teacher.after(channels.kept(removal))
            outcome.notes += [f"step {step} of {steps}: {note}" if steps > 1 else note for note in found.notes]
            outcome.skipped += [skip for skip in found.skipped if skip not in outcome.skipped]
            if self.between:
                Pipeline.parse(self.between).run_inside(model, workspace)
                verify(model)
                teacher = Teacher.of(model)
            channels = channel_groups(model, heads=self.heads)
            checkpoints.save(step, model)
        if self.data not in workspace.data:
            outcome.notes.append("by weights alone; a few images, --data calib=PATH, would keep more accuracy")
        account.close(model, outcome)
        if kind == "latency":
            account.time(original, model, workspace.target_stopwatch(), share, outcome)
        return outcome

    def _default_steps(self, model: Model, data: Calibration | None) -> int:
        """Several where much is to go, and each can learn from data what the one before has left."""
        kind, share = self._target()
        is_open = not (self.ranking or self.sensitivity or self.between or kind == "latency")
        return _STEPS if is_open and share < _MUCH and data is not None and not too_dear(model, data) else 1

    def _step(
        self, evidence: Evidence, goal: Goal, workspace: Workspace, teacher: Teacher, outcome: Outcome
    ) -> Removal:
        """Bring the model of the evidence down to a goal; return what was removed."""
        model, channels = evidence.model, evidence.channels
        groups = tuple(group for group in channels.free if group.name in goal.least)
        cost = cost_of("macs" if goal.kind == "latency" else goal.kind, model, channels, groups)
        setting = Setting(groups, goal, cost, evidence, workspace, teacher)
        scores = self._scores(setting.shrinking, evidence, outcome)
        trials: list[Trial] = []
        for ranking in self._rankings(setting, outcome):
            removal = self._removal(self._queue(ranking, scores, setting), setting)
            if removal and all(removal != other.removal for other in trials):
                trials.append(self._carry_out(ranking, removal, setting))
        if not trials:
            return {}
        chosen = trials[0]
        if len(trials) > 1:
            chosen = best(trials, goal.original, workspace, self.data, outcome)
        model.module = chosen.model.module
        outcome.notes += chosen.outcome.notes
        outcome.skipped += chosen.outcome.skipped
        return chosen.removal

    def _rankings(self, setting: Setting, outcome: Outcome) -> tuple[str, ...]:
        """Return how groups compare: as the options say, else both ways between which the outputs decide."""
        evidence = setting.evidence
        if self.ranking or self.sensitivity or not evidence.has_data:
            return (self.ranking or ("sensitivity" if self.sensitivity else "layer"),)
        reason = too_dear(evidence.model, evidence.data)
        if setting.goal.kind == "latency":
            reason = "that would be measured on the target once more"
        if reason:
            outcome.notes.append(f"not compared with ranking=layer, which may be better: {reason}")
        return ("sensitivity",) if reason else ("sensitivity", "layer")

    def _removal(self, queue: Queue, setting: Setting) -> Removal:
        goal, evidence, workspace = setting.goal, setting.evidence, setting.workspace
        multiple = self.multiple or (workspace.target_stopwatch().channel_multiple if goal.kind == "latency" else 1)
        multiples = {group.name: find_multiple(group, multiple) for group in setting.groups}
        if goal.kind != "latency":
            check_reachable(queue, setting.cost, goal.last, multiples, goal.today)
            return take(queue, setting.cost, goal.allowed, multiples)
        timed = share_of_latency(evidence.model, evidence.channels, goal.original, workspace.target_stopwatch())
        return take_until_fast(queue, setting.cost, goal.allowed, multiples, timed)

    def _carry_out(self, ranking: str, removal: Removal, setting: Setting) -> Trial:
        """Remove units from a copy of the model, prove it, and mend what is left."""
        evidence, outcome = setting.evidence, Outcome()
        before, channels = evidence.model, evidence.channels
        after = before.copy(share_tensors=True)
        remove(after, channels, removal)
        difference = check_removal(before, after, channels, removal, setting.workspace.seed)
        outcome.notes.append(f"proof: removed and zeroed channels give outputs {difference:.1e} apart, relative")
        if self._reconstructs(evidence):
            teacher = setting.teacher.after(channels.kept(removal))
            reconstruct(teacher.model, after, teacher.kept, evidence.data, outcome)
        if self._recalibrates(evidence):
            renewed = Outcome()
            recalibrate(after, evidence.data, renewed)
            outcome.notes.append(f"{len(renewed.changed)} batch normalisations estimated anew")
        return Trial(ranking, removal, after, outcome)

    def _calibration(self, model: Model, workspace: Workspace) -> Calibration | None:
        """Read the data set if there is one; `UsageError` if one was named that is not there."""
        if self.data == DATA and DATA not in workspace.data:
            return None
        return Calibration.read(model, workspace, self.data, self.images)

    def _scores(self, groups: tuple[ChannelGroup, ...], evidence: Evidence, outcome: Outcome) -> Scores:
        found = score(groups, self._criterion(evidence), evidence, self.reduction, self.normalise)
        for name, reason in found.unknown.items():
            outcome.skip(evidence.node(evidence.channels[name].producers[0].layer), reason)
        return found

    def _queue(self, ranking: str, found: Scores, setting: Setting) -> Queue:
        goal, cost = setting.goal, setting.cost
        judged = [group for group in setting.shrinking if group.name in found.known]
        if ranking == "sensitivity":
            curves = self._curves(judged, found.known, setting.evidence)
            judged = [group for group in judged if group.name in curves]
            prices = {group.name: curves[group.name].prices(group.size) / cost.of_a_unit(group) for group in judged}
        elif ranking == "isomorphic":
            prices = isomorphic_prices(judged, found.known)
        else:
            prices = (layer_prices if ranking == "layer" else global_prices)(found.known)
        return make_queue(judged, found.known, prices, goal.least)

    def _curves(
        self, groups: Sequence[ChannelGroup], scores: Mapping[str, torch.Tensor], evidence: Evidence
    ) -> dict[str, Curve]:
        if self.sensitivity:
            return read_curves(Path(self.sensitivity), groups)
        return measure_curves(groups, scores, evidence, reconstruct=self._reconstructs(evidence))

    def _reconstructs(self, evidence: Evidence) -> bool:
        return evidence.has_data if self.reconstruct is None else self.reconstruct

    def _recalibrates(self, evidence: Evidence) -> bool:
        """By default only without reconstruction, whose weights are fitted to the statistics as they were."""
        if self.recalibrate is None:
            return evidence.has_data and not self._reconstructs(evidence)
        return self.recalibrate

    def _criterion(self, evidence: Evidence) -> Criterion:
        if self.criterion != "auto":
            return parse_criterion(self.criterion)
        return parse_criterion("output-error" if evidence.has_data else "l2")
