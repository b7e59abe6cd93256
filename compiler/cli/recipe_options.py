"""The options of a recipe: what it says stands where the command line says nothing."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lvc.compiler.errors import UsageError

if TYPE_CHECKING:
    from lvc.compiler.artefact import Artefact
    from lvc.compiler.backend import Target
    from lvc.compiler.cli.console import Console
    from lvc.compiler.cli.pipeline_options import NamedData
    from lvc.compiler.ir.model import Model
    from lvc.compiler.load.request import LoadRequest
    from lvc.compiler.pipeline.passes import Pass
    from lvc.compiler.pipeline.pipeline import Pipeline
    from lvc.compiler.pipeline.workspace import Stopwatch, Workspace
    from lvc.compiler.recipe.checks import Checks, Verdict
    from lvc.compiler.recipe.recipe import DataPart, Recipe
    from lvc.compiler.recipe.stages import Stage, Stages
    from lvc.compiler.report import Report

T = TypeVar("T")

_DEFAULTS = {"precision": "fp32", "seed": 0}


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """Add the options; what a recipe may say too has no default of its own any more."""
    group = parser.add_argument_group("recipe")
    group.add_argument("--recipe", metavar="FILE", help="a .toml file, or a recipe that 'lvc recipe list' shows")
    group.add_argument(
        "--set",
        metavar="STAGE.OPTION=VALUE",
        action="append",
        default=[],
        help="an option of a pass, or a key such as checks.max-drop, in place of what the recipe says",
    )
    parser.set_defaults(**dict.fromkeys(_DEFAULTS))


@dataclasses.dataclass(frozen=True)
class Course:
    """How one compilation runs: its stages, and the checks on what is built."""

    stages: Stages
    checks: Checks
    place: str

    def examine(self, artefact: Artefact, report: Report) -> list[Verdict]:
        """Complete the report by what was built; return what was found for each check."""
        compiled, verdicts = self.checks.examine(artefact)
        report.stages = (*report.stages, dataclasses.replace(compiled, seconds=report.build_seconds))
        report.checks = tuple(dataclasses.asdict(verdict) for verdict in verdicts)
        return verdicts

    def show(self, report: Report, verdicts: Sequence[Verdict], console: Console, *, explain: bool) -> None:
        """Print what each stage gave, with ``explain`` why it ran, and what was checked; `CheckError` if that fails."""
        from lvc.compiler.recipe.checks import failed

        console.result("")
        limits = self.checks.limits
        headers, rows = report.stage_table(limits.metric if limits.data else report.metric)
        console.table(headers, rows, "lr")
        if explain:
            for line in report.stage_lines():
                console.result(line)
        if error := failed(verdicts, self.place):
            raise error
        for verdict in verdicts:
            console.result(f"checked: {verdict.text}")


@dataclasses.dataclass(frozen=True)
class Plan:
    """A recipe together with the options: its stages, and the data sets by name."""

    recipe: Recipe
    stages: tuple[Stage, ...]
    parts: Mapping[str, DataPart]
    plugins: tuple[str, ...]
    kinds: tuple[type[Pass], ...]

    @property
    def pipeline(self) -> Pipeline:
        from lvc.compiler.pipeline.pipeline import Pipeline

        return sum((stage.pipeline for stage in self.stages), Pipeline())

    @property
    def is_withheld(self) -> bool:
        """Whether passes do not see the data set of the checks: none of them names it."""
        from lvc.compiler.pipeline.held_out import JUDGE

        data = self.recipe.limits.data
        return data not in (JUDGE, "calib") and not any(stage.mentions(data) for stage in self.stages)

    def sets(self, model: Model) -> dict[str, NamedData]:
        """The data sets as inputs of a model."""
        from lvc.compiler.cli.pipeline_options import NamedData

        return {name: NamedData(part.path, model, part.preprocess, part.limit) for name, part in self.parts.items()}

    def for_passes(self, sets: Mapping[str, T]) -> dict[str, T]:
        """Those of the data sets that passes see."""
        hidden = self.recipe.limits.data if self.is_withheld else ""
        return {name: data for name, data in sets.items() if name != hidden}

    def course(self, request: LoadRequest, model: Model, target: Target, workspace: Workspace) -> Course:
        """Prepare to run; `UsageError` for what cannot be measured here."""
        from lvc.compiler.measure.device import ThisMachine
        from lvc.compiler.recipe import digests
        from lvc.compiler.recipe.checks import Checks
        from lvc.compiler.recipe.meter import Meter, ScoredOn
        from lvc.compiler.recipe.stages import Stages
        from lvc.compiler.recipe.store import Store

        limits, sets = self.recipe.limits, self.sets(model)
        known = {name: cache(partial(digests.of_data, data.place, *data.settings)) for name, data in sets.items()}
        store = Store.at(workspace.checkpoints, workspace.progress.say) if workspace.checkpoints else None
        name = limits.data
        scored = ScoredOn(name, limits.metric, sets[name], known[name]) if name else None
        checks = Checks(
            limits=limits,
            meter=Meter(
                model,
                target,
                scored=scored,
                stopwatch=self._stopwatch(target, workspace),
                store=store,
                processor=(workspace.device or ThisMachine()).processor,
                progress=workspace.progress,
            ),
            model=model,
            request=request,
            target=target,
            workspace=workspace,
        )
        checks.check_request()
        stages = Stages(self.stages, checks.meter, store, known, self.plugins, self.kinds, target.text)
        return Course(stages, checks, self.recipe.source.name)

    def _stopwatch(self, target: Target, workspace: Workspace) -> Stopwatch | None:
        from lvc.compiler.backend import Place
        from lvc.compiler.measure.latency import TargetStopwatch
        from lvc.compiler.pipeline import catalogue

        is_here = catalogue.BACKENDS.get(target.backend).place(target) is Place.HERE
        if not (self.recipe.times_stages and (is_here or workspace.device)):
            return None
        return TargetStopwatch(target, dataclasses.replace(workspace, threads=self.recipe.limits.threads))


def read_plan(options: argparse.Namespace) -> Plan | None:
    """Return the recipe that the options name, and complete the options with what it says; None if they name none."""
    recipe = _find(options)
    if recipe:
        _complete(options, recipe)
    if not options.model:
        help = "give MODEL, or source under [model] of a recipe; 'lvc compile --help' shows what can be given"
        raise UsageError("there is no model to compile", help=help)
    for name, default in _DEFAULTS.items():
        if getattr(options, name) is None:
            setattr(options, name, default)
    return _plan(options, recipe) if recipe else None


def _plan(options: argparse.Namespace, recipe: Recipe) -> Plan:
    from lvc.compiler.cli.pipeline_options import check_verified, plugin_passes, read_data_names
    from lvc.compiler.pipeline.catalogue import FUSE_PREPROCESS, PRECISIONS
    from lvc.compiler.pipeline.pipeline import Pipeline
    from lvc.compiler.recipe.recipe import DataPart
    from lvc.compiler.recipe.stages import Stage

    check_verified(options)
    kinds = plugin_passes(options)
    stages = recipe.stage_pipelines(kinds)
    if PRECISIONS[options.precision]:
        stages = (*stages, Stage(options.precision, Pipeline.parse(PRECISIONS[options.precision])))
    if ends := Pipeline().with_ends(options.postprocess, preprocess=options.fuse_preprocess):
        stages = (*stages, Stage("postprocess" if options.postprocess else FUSE_PREPROCESS, ends))
        if options.fuse_preprocess and recipe.limits.data:
            why = f"--{FUSE_PREPROCESS} makes a model of pictures, and the checks run both models on the same inputs"
            raise UsageError(f"the recipe checks the {recipe.limits.metric}", why=why, help="leave one of them out")
    given = read_data_names(options)
    recipe.check_places(given)
    parts = {**recipe.data, **{name: DataPart(path) for name, path in given.items()}}
    return Plan(recipe, stages, parts, tuple(options.plugin), tuple(kinds))


def _find(options: argparse.Namespace) -> Recipe | None:
    if options.recipe is None:
        if options.set:
            raise UsageError("--set changes a recipe, and none is given", help="name one with --recipe")
        return None
    from lvc.compiler.recipe.recipe import Recipe

    of_pipeline = {
        "-O": options.level,
        "-p": options.pipeline,
    }
    given = [name for name, value in of_pipeline.items() if value is not None]
    if given:
        help = "change an option of a stage with --set STAGE.OPTION=VALUE"
        raise UsageError(f"--recipe and {given[0]} are both given", why="a recipe has a pipeline", help=help)
    if options.stop_after is not None:
        raise UsageError("--recipe and --stop-after are both given", why="a recipe's stages run as a whole")
    return Recipe.find(options.recipe, options.set)


def _complete(options: argparse.Namespace, recipe: Recipe) -> None:
    part, limits = recipe.model, recipe.limits
    if options.model is None:
        options.model, options.weights = part.source, options.weights or part.weights
        options.shape = options.shape or [f"{name}={text}" if name else text for name, text in part.shapes.items()]
        options.arg = [*(f"{name}={value!r}" for name, value in part.arguments.items()), *options.arg]
    said = {
        "preprocess": part.preprocess,
        "labels": part.labels,
        "task": part.task,
        "seed": part.seed,
        "target": recipe.target,
        "precision": recipe.precision,
        "postprocess": recipe.postprocess,
        "require": limits.require,
        "max_loss": limits.max_loss,
        "checkpoints": recipe.checkpoints and Path(recipe.checkpoints),
        "output": recipe.output and Path(recipe.output),
    }
    for name, value in said.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    options.fuse_preprocess = options.fuse_preprocess or recipe.fuses_preprocess
    options.plugin = [*recipe.plugins, *options.plugin]
