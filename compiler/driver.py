"""The whole way in one straight line: load, run the pipeline, build, check."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

from lvc.compiler.artefact import Artefact
from lvc.compiler.backend import Target
from lvc.compiler.data.preprocess import Preprocess
from lvc.compiler.ir.counts import visible
from lvc.compiler.ir.model import Model
from lvc.compiler.ir.operators.uncalibrated import refuse_uncalibrated
from lvc.compiler.ir.task import check_task, task_of_model
from lvc.compiler.load.request import LoadRequest
from lvc.compiler.measure.comparison.judge import Judge, judged_set
from lvc.compiler.measure.comparison.loss_bound import LossBound
from lvc.compiler.measure.comparison.verdict import loss_lines
from lvc.compiler.measure.coverage import Requirement
from lvc.compiler.measure.inspection import layers
from lvc.compiler.measure.latency import TargetStopwatch
from lvc.compiler.pipeline import catalogue
from lvc.compiler.pipeline.observers import Drift, Timer, Verifier
from lvc.compiler.pipeline.passes import Effect
from lvc.compiler.pipeline.pipeline import Observer, Pipeline, Step
from lvc.compiler.pipeline.workspace import Workspace
from lvc.compiler.recipe.stages import Stages
from lvc.compiler.report import Report, Size, group_labels, reports_of
from lvc.compiler.variants import Shapes, check_variants, load_variants, rewritten_variants, with_batches
from lvc.compiler.verification.verification import Verification


def compile(
    model: Model | LoadRequest | str,
    pipeline: Pipeline | str = "O2",
    target: Target | str = "native",
    *,
    precision: str = "fp32",
    check: bool = False,
    max_loss: str | None = None,
    verify: bool = True,
    workspace: Workspace | None = None,
    observers: Sequence[Observer] = (),
    batches: Sequence[int] = (),
) -> Artefact:
    """Compile a model for a target.

    The model is left as it was. A backend may complete the pipeline: for code, what is quantised is computed in
    integers. ``precision`` is what contractions multiply: ``bf16`` adds ``lower-precision`` to the
    pipeline, and is refused for targets without the instructions.

    A model that is loaded here is compared with what its source computes, and the built artefact with the model, on one
    set of seeded inputs; ``verify=False`` leaves that out. With ``check`` there are inputs like images as well, and the
    drift of every pass is measured. `CheckError` if something is beyond its bound.

    What passes that move outputs cost is judged where the workspace has images for it: `CheckError` if all of them
    together lose more than ``max_loss``, such as ``"20dB"`` or ``"1%"`` of the first choices.

    With ``batches`` it is built for these numbers of images as well, in one artefact that serves any number; images
    must not depend on each other, which is proved.

    The record of what was done is ``artefact.metadata["report"]``, without the seconds it took, so that equal inputs
    give equal artefacts.
    """
    pipeline = pipeline if isinstance(pipeline, Pipeline) else Pipeline.parse(pipeline)
    lowered = pipeline.with_precision(precision)
    target = target if isinstance(target, Target) else Target.parse(target)
    check_request(lowered, target)
    request = None
    if not isinstance(model, Model):
        request = LoadRequest(model) if isinstance(model, str) else model
        model = request.load()
    return compile_and_report(
        model,
        lowered,
        target,
        check=check,
        verify=verify,
        workspace=workspace,
        observers=observers,
        request=request,
        max_loss=LossBound.parse(max_loss) if max_loss is not None else None,
        variants=with_batches(model, batches),
    )[0]


def compile_and_report(
    model: Model | LoadRequest | str,
    pipeline: Pipeline | str = "O2",
    target: Target | str = "native",
    *,
    check: bool = False,
    verify: bool = True,
    workspace: Workspace | None = None,
    observers: Sequence[Observer] = (),
    request: LoadRequest | None = None,
    requirement: Requirement | None = None,
    max_loss: LossBound | None = None,
    stages: Stages | None = None,
    variants: Sequence[Shapes] = (),
) -> tuple[Artefact, Report]:
    """Compile as `compile` does; return the artefact and the report with its seconds.

    ``request`` says how a model that is already loaded, and still as it was, was loaded. `CheckError` if it is not what
    its source computes, if the rewritten model does not meet the ``requirement``, or if the passes lost more than
    ``max_loss``; then nothing is built. ``stages``, whose passes are those of the pipeline, run it part by part.
    ``variants`` are shapes for which it is built as well, into the same artefact; see `lvc.compiler.variants`.
    """
    workspace = workspace or Workspace()
    pipeline = pipeline if isinstance(pipeline, Pipeline) else Pipeline.parse(pipeline)
    target = target if isinstance(target, Target) else Target.parse(target)
    check_request(pipeline, target)
    check_variants(variants, target)
    if not isinstance(model, Model):
        request = LoadRequest(model) if isinstance(model, str) else model
        model = request.load()
    _usage(model)
    verification = Verification.of(model, workspace, check=check, verify=verify)
    loaded = verification.source() if request else None
    forms = load_variants(model, variants, request, pipeline)
    others = [Verification.of(form.model, workspace, check=check, verify=verify) for form in forms[1:]]
    for form, other in zip(forms[1:], others, strict=True):
        if form.like is None:
            other.source()

    workspace = dataclasses.replace(workspace, stopwatch=TargetStopwatch(target, workspace))
    backend = catalogue.BACKENDS.get(target.backend)
    rewritten, steps = optimise(
        model,
        pipeline,
        workspace,
        check=check,
        observers=observers,
        share_tensors=not any(item.trains for item in pipeline),
        completion=backend.completion,
        max_loss=max_loss,
        stages=stages,
    )
    rewritten.records = next((found for item in reversed(tuple(pipeline)) if (found := item.records) is not None), None)
    pipeline += Pipeline(tuple(step.item for step in steps[len(pipeline) :]))
    refuse_uncalibrated(rewritten.module.graph)
    if requirement:
        check_requirement(requirement, rewritten, steps, simulated=backend.keeps_simulation)

    started = time.perf_counter()
    built = rewritten_variants(rewritten, forms, lambda form: optimise(form, pipeline, workspace, check=check)[0])
    artefact = (
        backend.build_variants(built, target, workspace) if variants else backend.build(rewritten, target, workspace)
    )
    build_seconds = time.perf_counter() - started

    report = make_report(model, rewritten, pipeline, target.text, steps)
    report.build_seconds = round(build_seconds, 3)
    report.stages = tuple(stages.reports) if stages else ()
    report.notes += (*backend.remarks(rewritten, target), *artefact.metadata.get("remarks", ()))
    report.files = {name: len(content) for name, content in artefact.files.items()}
    report.loaded = loaded
    report.built = verification.artefact(artefact, rewritten, pipeline)
    for signature, other, variant in zip(artefact.variants, others, built[1:], strict=True):
        report.variants[signature.shapes()] = other.artefact(artefact, variant, pipeline)
    report.difference = report.built.difference if check else None
    described = [layer.to_json() for layer in layers(rewritten)]
    metadata = {**artefact.metadata, **_metadata(rewritten, request, report), **_usage(rewritten), "layers": described}
    return dataclasses.replace(artefact, metadata=metadata), report


def check_request(pipeline: Pipeline, target: Target) -> None:
    """Raise `UsageError` if a target cannot run what a pipeline makes, `CompileError` if this machine lacks what makes
    code for it."""
    backend = catalogue.BACKENDS.get(target.backend)
    if error := backend.refusal(pipeline.elements, target) or backend.missing(target):
        raise error


def check_requirement(
    requirement: Requirement, rewritten: Model, steps: Sequence[Step], *, simulated: bool = False
) -> None:
    """Raise `CheckError` if a rewritten model does not meet a requirement, to which ``simulated`` layers may count."""
    skips = [skip for step in steps if step.item.explains_integers for skip in step.outcome.skipped]
    requirement.check(rewritten, skips, simulated=simulated)


def optimise(
    model: Model,
    pipeline: Pipeline,
    workspace: Workspace | None = None,
    *,
    check: bool = False,
    observers: Sequence[Observer] = (),
    done: int = 0,
    share_tensors: bool = False,
    completion: Callable[[Model], str] | None = None,
    max_loss: LossBound | None = None,
    stages: Stages | None = None,
) -> tuple[Model, list[Step]]:
    """Run a pipeline with the observers that every run has: timing, verification and, with ``check``, drift.

    If it has passes that move outputs, and there are images, what these cost is judged against the model as it is
    given: `CheckError` if together they lose more than ``max_loss``, `UsageError` if that cannot be judged.
    """
    workspace = workspace or Workspace()
    to_come = pipeline + Pipeline.parse(completion(model) if completion else "")
    ends = Pipeline(tuple(item for item in to_come if item.ends))
    is_lossy = any(item.effect is Effect.LOSSY for item in to_come)
    if max_loss and is_lossy:
        max_loss.check_request(model, workspace, ends)
    if workspace.stopwatch is None:
        workspace = dataclasses.replace(workspace, stopwatch=TargetStopwatch(None, workspace))
    watching: list[Observer] = [Timer(), Verifier(), *([Drift(workspace.seed)] if check else []), *observers]
    if is_lossy and (images := judged_set(model, workspace)):
        watching.append(Judge(workspace, images, ends))
    rewritten, steps = pipeline.run(
        model, workspace, watching, done, share_tensors=share_tensors, completion=completion, division=stages
    )
    if max_loss:
        max_loss.check(steps)
    if rewritten.task:
        check_task(rewritten.task, rewritten.inputs, visible(rewritten.outputs, rewritten.counts))
    return rewritten, steps


def make_report(model: Model, rewritten: Model, pipeline: Pipeline, target: str, steps: Sequence[Step]) -> Report:
    return Report(
        model=model.name,
        source=model.source,
        pipeline=str(pipeline),
        target=target,
        before=Size.of(model),
        after=Size.of(rewritten),
        passes=reports_of(steps),
        groups=group_labels(rewritten),
        losses=tuple(loss_lines(steps, model.inputs)),
        notes=tuple(rewritten.notes),
    )


def _usage(model: Model) -> dict[str, Any]:
    """What whoever runs the model must know, with the preprocessing spelled out: devices know no preset by its name.

    `UsageError` for a preprocessing that is none.
    """
    usage = model.usage
    if "preprocessing" in usage:
        usage["preprocessing"] = str(Preprocess.parse(usage["preprocessing"]))
    return usage


def _metadata(model: Model, request: LoadRequest | None, report: Report) -> dict[str, Any]:
    source = request.to_json() if request else {"source": model.source}
    told = {"source": source, "pipeline": report.pipeline, "report": report.timeless().to_json()}
    return {**told, "task": task_of_model(model)}
