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
from lvc.compiler.pipeline.passes import Effect, Outcome, option
from lvc.compiler.pipeline.pipeline import Pipeline
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.running.images import Calibration
from lvc.passes.analysis.channel_groups import ChannelGroup, Removal, channel_groups
from lvc.passes.analysis.channels.masking import check_removal
from lvc.passes.analysis.channels.surgery import remove
from lvc.passes.budget.language import SHARES, BudgetedPass, out_of_reach, tell_of_missing_data
from lvc.passes.budget.latency import until_fast
from lvc.passes.fitting.batch_norm import recalibrate
from lvc.passes.pruning.account import Account
from lvc.passes.pruning.choice import choose, find_multiple
from lvc.passes.pruning.criterion import CRITERIA, Criterion, parse_criterion
from lvc.passes.pruning.curves_file import read_curves
from lvc.passes.pruning.evidence import Evidence
from lvc.passes.pruning.history import History, Removed
from lvc.passes.pruning.ranking import Queue, global_prices, isomorphic_prices, layer_prices, make_queue
from lvc.passes.pruning.reconstruction import reconstruct
from lvc.passes.pruning.remaining import RATIO, Remaining, race_after, remaining
from lvc.passes.pruning.scores import Scores, score
from lvc.passes.pruning.sensitivity import Curve, measure_curves
from lvc.passes.pruning.teacher import Teacher
from lvc.passes.pruning.trials import Trial, best, too_dear

_MUCH, _STEPS = 0.75, 3
"""To less than this share a model comes down in so many steps, unless the options say how it is done."""


@dataclass(frozen=True)
class Goal:
    """What a step comes down to: of which cost how much is ``allowed``, and the least width of each group.

    ``kind`` and ``value`` are the goal as it was given, ``today`` is the cost of the original, ``last`` what is allowed
    after the last step. Latency counts as a share of that of the original.
    """

    kind: str
    value: float
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
    cost: Remaining
    evidence: Evidence
    workspace: Workspace
    teacher: Teacher

    @property
    def shrinking(self) -> tuple[ChannelGroup, ...]:
        """The groups that are not yet at their least width."""
        return tuple(group for group in self.groups if group.size > self.goal.least[group.name])


@dataclass(frozen=True, kw_only=True)
class PruneChannels(BudgetedPass):
    """Remove channels, those that matter least, until the model is as small as wanted."""

    name: ClassVar[str] = "prune-channels"
    effect: ClassVar[Effect] = Effect.LOSSY
    idempotent: ClassVar[bool] = False
    remedy: ClassVar[str] = "a larger share to keep, more calibration images, or training afterwards"

    meanings: ClassVar[Mapping[str, str]] = {"ratio": RATIO, **SHARES}
    counts: ClassVar[tuple[str, ...]] = ("multiple", "steps", "images")

    ratio: float | None = option(None, RATIO)
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.keep < 1:
            raise UsageError(f"keep must be from 0 to below 1, not {self.keep:g}")
        Pipeline.parse(self.between)
        if self.criterion != "auto":
            parse_criterion(self.criterion)

    @property
    def data_sets(self) -> frozenset[str]:
        return frozenset[str]().union(*(item.data_sets for item in Pipeline.parse(self.between)))

    @property
    def elements(self) -> frozenset[str]:
        return Pipeline.parse(self.between).elements

    @property
    def _share(self) -> float:
        """The share of today's cost that stays."""
        name, value = self.goal
        return 1 - value if name == "ratio" else value

    def apply(self, model: Model, workspace: Workspace) -> Outcome:
        outcome = Outcome()
        (kind, value), share = self.goal, self._share
        channels = channel_groups(model, heads=self.heads)
        groups = choose(channels, self.skip, model, outcome)
        if not groups:
            outcome.notes.append("nothing changed, because no group of channels may shrink; --explain says why")
            return outcome
        original = model.copy(share_tensors=True)
        full = 1.0 if kind == "latency" else remaining(kind, model, channels, groups).measure({})
        account = Account.open(model, groups)
        least = {group.name: max(1, round(self.keep * group.size)) for group in groups}
        checkpoints = Checkpoints.of(workspace.checkpoints, str(self), model)
        done = checkpoints.last()
        data = self.calibration(model, workspace)
        steps = self.steps or self._default_steps(model, data)
        teacher, history = Teacher.of(model), History()
        if done:
            history = History.resume(done.told, outcome, workspace)
            model.module = done.model.module
            channels = channel_groups(model, heads=self.heads)
            for removed in history.steps:
                account.follow(removed)
                teacher = teacher.after(removed.kept)
            teacher = Teacher.of(model) if self.between else teacher
            workspace.progress.say(f"{self.name}: goes on after step {done.step} of {steps} in {workspace.checkpoints}")
        for step in range(done.step + 1 if done else 1, steps + 1):
            before = model.copy(share_tensors=True)
            goal = Goal(kind, value, full, full * share, full * (1 - (1 - share) * step / steps), least, original)
            evidence = Evidence(model, channels, data, workspace.seed, workspace.progress)
            found = Outcome()
            if removal := self._step(evidence, goal, workspace, teacher, found):
                removed = Removed.from_model(before, channels.kept(removal))
                account.follow(removed)
                teacher = teacher.after(removed.kept)
                history.steps.append(removed)
            outcome.notes += [f"step {step} of {steps}: {note}" if steps > 1 else note for note in found.notes]
            outcome.skipped += [skip for skip in found.skipped if skip not in outcome.skipped]
            if self.between:
                Pipeline.parse(self.between).run_inside(model, workspace)
                verify(model)
                teacher = Teacher.of(model)
            channels = channel_groups(model, heads=self.heads)
            checkpoints.save(step, model, history.to_json(outcome, workspace))
        if self.data not in workspace.data:
            tell_of_missing_data(outcome)
        account.close(model, outcome)
        if kind == "latency":
            account.time(original, model, workspace.target_stopwatch(), share, outcome)
        return outcome

    def _default_steps(self, model: Model, data: Calibration | None) -> int:
        """Several where much is to go, and each can learn from data what the one before has left."""
        is_open = not (self.ranking or self.sensitivity or self.between or self.latency)
        return _STEPS if is_open and self._share < _MUCH and data is not None and not too_dear(model, data) else 1

    def _step(
        self, evidence: Evidence, goal: Goal, workspace: Workspace, teacher: Teacher, outcome: Outcome
    ) -> Removal:
        """Bring the model of the evidence down to a goal; return what was removed."""
        model, channels = evidence.model, evidence.channels
        groups = tuple(group for group in channels.free if group.name in goal.least)
        cost = remaining("macs" if goal.kind == "latency" else goal.kind, model, channels, groups)
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
        """Take what brings the model down to the goal; `UsageError` where nothing does."""
        goal, cost = setting.goal, setting.cost
        narrowest = queue.narrowest
        least = cost.measure(narrowest)
        if goal.kind != "latency":
            if least > goal.last:
                raise _out_of_reach(goal, least / goal.today, cost.name)
            return queue.take(cost, goal.allowed)
        stopwatch, full = setting.workspace.target_stopwatch(), cost.measure({})
        found = until_fast(
            goal.allowed,
            lambda share: queue.take(cost, share * full),
            lambda removal: cost.measure(removal) / full,
            race_after(setting.evidence.model, setting.evidence.channels, goal.original, stopwatch),
            least / full,
        )
        if found.choice == narrowest and found.race.share > goal.last:
            raise _out_of_reach(goal, found.race.share, f"latency on {stopwatch.name}")
        return found.choice

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
        return make_queue(judged, found.known, prices, goal.least, self._multiples(setting))

    def _multiples(self, setting: Setting) -> dict[str, int]:
        """Of how many units each group's width is a multiple."""
        is_timed = setting.goal.kind == "latency"
        liked = self.multiple or (setting.workspace.target_stopwatch().channel_multiple if is_timed else 1)
        return {group.name: find_multiple(group, liked) for group in setting.groups}

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


def _out_of_reach(goal: Goal, least: float, of: str) -> UsageError:
    why = "every group that may shrink is then at the least width that it may have"
    return out_of_reach((goal.kind, goal.value), least, of, why, ("lower keep=", "or skip fewer groups"))
