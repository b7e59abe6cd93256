"""A pipeline: a tuple of frozen passes, run in order on a copy of the model, watched by observers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from lvc.compiler.errors import LvcError, UsageError
from lvc.compiler.ir.graph import settle_names
from lvc.compiler.ir.model import Model
from lvc.compiler.pipeline.catalogue import FUSE_PREPROCESS, PASSES, POSTPROCESS, PRECISIONS, TIDY
from lvc.compiler.pipeline.passes import Outcome, Pass
from lvc.compiler.pipeline.text import parse_passes, with_option
from lvc.compiler.pipeline.workspace import Workspace, no_data_set


@dataclass
class Step:
    """One pass of a run: its place (from 1), and after it ran what it did and what observers measured.

    ``inner`` are the passes that the pass itself ran on the model, whose ``outer`` it is.
    """

    number: int
    total: int
    item: Pass
    outcome: Outcome = field(default_factory=Outcome)
    measured: dict[str, Any] = field(default_factory=dict)
    inner: list[Step] = field(default_factory=list)
    outer: Step | None = field(default=None, repr=False, compare=False)

    @property
    def place(self) -> str:
        """Its number, behind those of the passes around it: ``2.1`` is the first pass that the second one ran."""
        return f"{self.outer.place}.{self.number}" if self.outer else str(self.number)

    @property
    def path(self) -> tuple[str, ...]:
        """The names of the passes around it, and its own."""
        return (*(self.outer.path if self.outer else ()), self.item.name)

    def __str__(self) -> str:
        if self.outer:
            return f"pass {self.place}, {' > '.join(self.path)}"
        return f"pass {self.number} of {self.total}, {self.item.name}"


@dataclass(frozen=True)
class Surroundings:
    """What the passes that a pass runs stand in: the step of that pass, and who watches the run."""

    step: Step
    observers: Sequence[Observer]


class Observer:
    """Watches a run. Override what is needed; `before` may end the run by returning False.

    Passes that a pass runs are seen too, between `before` and `after` of that pass: ``step.outer`` is its step.
    """

    def start(self, model: Model) -> None:
        """Called once, with the model as it comes in."""

    def before(self, step: Step, model: Model) -> bool:
        """Called before each pass; False stops the run here, or what the pass around this one runs."""
        return True

    def after(self, step: Step, model: Model) -> None:
        """Called after each pass; put measurements into ``step.measured``."""

    def resume(self, model: Model) -> None:
        """Called where the run goes on with a model that passes had left before, in place of running them again."""


class Division(Protocol):
    """How a run is divided into parts; see `lvc.compiler.recipe.stages`."""

    def run(self, model: Model, workspace: Workspace, observers: Sequence[Observer]) -> tuple[Model, list[Step]]:
        """Rewrite the model by all parts in order, or bring what they left before."""
        ...


@dataclass(frozen=True)
class Pipeline:
    """An immutable sequence of passes. ``Pipeline.parse(str(pipeline)) == pipeline``."""

    passes: tuple[Pass, ...] = ()

    @classmethod
    def parse(cls, text: str, extra: Iterable[type[Pass]] = ()) -> Pipeline:
        """Read the written form; see `lvc.compiler.pipeline.text`. ``extra`` are more passes that it may name."""
        return cls(parse_passes(text, extra))

    def with_precision(self, name: str) -> Pipeline:
        """The same pipeline and after it what a precision such as ``bf16`` adds; `UsageError` for another name."""
        if name not in PRECISIONS:
            raise UsageError(f"there is no precision '{name}'", help="known: " + ", ".join(PRECISIONS))
        return self + Pipeline.parse(PRECISIONS[name])

    def with_ends(self, postprocess: str | None, *, preprocess: bool = False) -> Pipeline:
        """The same pipeline and after it what appends steps, such as ``yolox,nms``, to the outputs, and what takes
        pictures in place of prepared inputs; `UsageError` for steps that there are not."""
        ends: list[Pass] = []
        if postprocess is not None:
            ends.append(with_option(PASSES.get(POSTPROCESS)(), "steps", postprocess))
        if preprocess:
            ends.append(PASSES.get(FUSE_PREPROCESS)())
        return self + Pipeline((*ends, *parse_passes(TIDY))) if ends else self

    def __str__(self) -> str:
        return ",".join(map(str, self.passes))

    def __iter__(self) -> Iterator[Pass]:
        return iter(self.passes)

    def __len__(self) -> int:
        return len(self.passes)

    def __add__(self, other: Pipeline) -> Pipeline:
        return Pipeline(self.passes + other.passes)

    @property
    def elements(self) -> frozenset[str]:
        """Names of element types that its passes may have a model multiply."""
        return frozenset[str]().union(*(item.elements for item in self.passes))

    def check_data(self, given: Collection[str], passes: int | None = None) -> None:
        """Raise `UsageError` if a data set is not given that one of the first ``passes`` cannot do without."""
        for item in self.passes[:passes]:
            for name in item.data_sets - set(given):
                raise no_data_set(name, given, where=str(item))

    def run(
        self,
        model: Model,
        workspace: Workspace | None = None,
        observers: Sequence[Observer] = (),
        done: int = 0,
        *,
        share_tensors: bool = False,
        completion: Callable[[Model], str] | None = None,
        division: Division | None = None,
    ) -> tuple[Model, list[Step]]:
        """Rewrite a copy of the model; return it with a record of every pass that ran. ``done`` passes ran before.

        ``share_tensors`` is for results that are not trained; see `Model.copy`. Once all passes have run,
        ``completion`` is asked for more, as a backend is by its method of that name. With ``division`` the passes,
        which must be those of its parts, run part by part.
        """
        workspace = workspace or Workspace()
        workspace = replace(workspace, original=workspace.original or model)
        model = model.copy(share_tensors=share_tensors)
        for observer in observers:
            observer.start(model)
        if division:
            model, steps = division.run(model, workspace, observers)
        else:
            steps = self.rewrite(model, workspace, observers, done)
        if completion and len(steps) == len(self) and (rest := Pipeline.parse(completion(model))):
            steps += rest.rewrite(model, workspace, observers, done + len(self))
        return model, steps

    def run_inside(self, model: Model, workspace: Workspace) -> None:
        """Rewrite the model as a part of what a pass does that has this workspace.

        The passes run on a copy, so that models which share tensors with the model stay as they are. The observers of
        the run see them, and they stand in its record beneath the pass.
        """
        twin, around = model.copy(), workspace.surroundings
        if around is None:
            self.rewrite(twin, workspace, (), 0)
        else:
            steps = self.rewrite(twin, workspace, around.observers, len(around.step.inner), outer=around.step)
            around.step.inner += steps
        model.module, model.output_names, model.notes = twin.module, twin.output_names, twin.notes
        model.counts, model.preprocessing = twin.counts, twin.preprocessing

    def rewrite(
        self,
        model: Model,
        workspace: Workspace,
        observers: Sequence[Observer],
        done: int,
        *,
        total: int | None = None,
        outer: Step | None = None,
    ) -> list[Step]:
        """Run the passes on the model itself, until an observer ends the run, as a part of one of ``total`` passes."""
        steps: list[Step] = []
        for number, item in enumerate(self.passes, done + 1):
            step = Step(number, total or done + len(self.passes), item, outer=outer)
            verdicts = [observer.before(step, model) for observer in observers]
            if not all(verdicts):
                break
            before = _written(model)
            try:
                if item.is_divided:
                    workspace.ranks.call(item, model)
                step.outcome = item.apply(model, replace(workspace, surroundings=Surroundings(step, observers)))
                settle_names(model.module.graph)
                step.outcome.settle(model.module.graph)
                if _written(model) != before:
                    model.module.recompile()
                for observer in observers:
                    observer.after(step, model)
            except LvcError as error:
                if f"pass {step.place}." in error.where:  # it happened in a pass that this one ran
                    raise
                place = f"{error.where}  ({step})" if error.where else str(step)
                raise error.at(place) from error
            steps.append(step)
        return steps


def _written(model: Model) -> list[tuple[object, ...]]:
    """What the Python code of a graph is made of."""
    return [(node, node.target, node.args, node.kwargs) for node in model.module.graph.nodes]
