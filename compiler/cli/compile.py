"""Compile a model for a target: load, rewrite, generate code, and with --check compare the result with PyTorch.

A recipe holds all that in a file: 'lvc recipe list' shows some.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lvc.compiler.cli.device_options import on_device
from lvc.compiler.cli.emission_options import add_emission_options, check_output, output_path, write_output
from lvc.compiler.cli.following import follow_pipeline
from lvc.compiler.cli.model_options import add_model_options, batch_sizes, load_variants
from lvc.compiler.cli.pipeline_options import (
    add_pipeline_options,
    describe_data,
    make_observers,
    make_workspace,
    read_data_names,
    read_max_loss,
    read_pipeline,
    read_requirement,
    say_of_data,
    show_passes,
    written,
)
from lvc.compiler.cli.recipe_options import add_recipe_options, read_plan
from lvc.compiler.errors import UsageError
from lvc.compiler.text import si

if TYPE_CHECKING:
    from lvc.compiler.cli.console import Console
    from lvc.compiler.cli.recipe_options import Plan
    from lvc.compiler.ir.model import Model
    from lvc.compiler.measure.device import Device
    from lvc.compiler.report import Report
    from lvc.compiler.variants import Shapes

SUMMARY = "compile a model for a target"


def configure(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser, is_optional=True)
    parser.add_argument(
        "-t", "--target", metavar="TEXT", help="see 'lvc targets' (default: this machine, or the board)"
    )
    parser.add_argument(
        "--batch",
        metavar="1,4,16",
        type=batch_sizes,
        default=(),
        help="numbers of images at once to build for, into one file that takes any number",
    )
    add_emission_options(parser)
    add_pipeline_options(parser)
    add_recipe_options(parser)


def execute(options: argparse.Namespace, console: Console) -> int:
    plan = read_plan(options)
    if options.ranks.follows:
        return follow_pipeline(options, console, plan)
    return on_device(options, console, lambda device: _compile(device, options, console, plan))


def _compile(device: Device, options: argparse.Namespace, console: Console, plan: Plan | None) -> int:
    import time

    from lvc.compiler.backend import Target
    from lvc.compiler.imports import large_imports

    with large_imports():
        from lvc.compiler.driver import check_request, compile_and_report
    from lvc.compiler.files import check_writable

    pipeline, target = plan.pipeline if plan else read_pipeline(options), Target.parse(options.target or device.target)
    requirement, max_loss = read_requirement(options), read_max_loss(options)
    pipeline.check_data(plan.for_passes(plan.parts) if plan else read_data_names(options), options.stop_after)
    check_request(pipeline, target)
    check_output(options, target)
    if options.report:
        check_writable(options.report)
    started = time.perf_counter()
    request, model, variants = load_variants(options)
    describe_data(options, model)
    _check_pictures(options, model, variants)
    loaded = time.perf_counter() - started
    workspace = make_workspace(options, model, console, device, plan.for_passes(plan.sets(model)) if plan else None)
    course = plan and plan.course(request, model, target, workspace)
    artefact, report = compile_and_report(
        model,
        pipeline,
        target,
        check=options.check,
        verify=options.verify,
        workspace=workspace,
        observers=make_observers(options),
        request=request,
        requirement=requirement,
        max_loss=max_loss,
        stages=course.stages if course else None,
        variants=variants,
    )
    say_of_data(workspace, console)
    report.load_seconds = round(loaded, 3)
    verdicts = course.examine(artefact, report) if course else []
    output = output_path(options, artefact)
    if all(verdict.holds for verdict in verdicts):
        write_output(options, artefact, output)
        if options.report:
            write_report(report, options.report)
    show_passes(options, console, report)
    if course:
        course.show(report, verdicts, console, explain=options.explain)
    console.result(_summary(report, output))
    console.json({"output": str(output), **report.to_json()})
    return 0


def _check_pictures(options: argparse.Namespace, model: Model, variants: Sequence[Shapes]) -> None:
    """Raise `UsageError` for a preprocessing whose pictures have the size of no shape that the model is built for."""
    from lvc.compiler.data.preprocess import Preprocess
    from lvc.compiler.data.samples import Fit

    size = Preprocess.parse(options.preprocess).size if options.preprocess else None
    if size is None or len(model.inputs) != 1 or len(model.inputs[0].spec.shape) != 4:
        return
    fits = Fit.of(model.inputs)
    axis = 1 if fits.is_channels_last else 2
    sizes = [fits.picture_size, *(tuple(shape)[axis : axis + 2] for one in variants for shape in one.values())]
    if size not in sizes:
        made, taken = ("x".join(map(str, one)) for one in (size, sizes[0]))
        raise UsageError(
            f"--preprocess makes pictures of {made}, and input '{fits.name}' takes {taken}",
            help="give the same size to both, by letterbox=, resize= or crop=, or by --shape",
        )


def write_report(report: Report, path: Path) -> None:
    import json

    from lvc.compiler.files import write_atomically

    write_atomically(path, json.dumps(report.to_json(), indent=2).encode())


def _summary(report: Report, output: Path) -> str:
    lines = [
        f"{report.model} for {report.target}: {report.before.calls} operators in, "
        f"{report.after.calls} left, {len(report.groups)} fused groups; "
        f"{si(report.after.parameters)} parameters",
        f"loaded in {report.load_seconds:.1f} s, built in {report.build_seconds:.1f} s",
    ]
    return "\n".join([*lines, *report.verified_lines(), written(output)])
