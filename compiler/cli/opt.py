"""Run passes on a model and write the rewritten model: .onnx, .pt2, .lvc, or the printed graph as .txt or on stdout."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from lvc.compiler.cli.compile import write_report
from lvc.compiler.cli.device_options import on_device
from lvc.compiler.cli.following import follow_pipeline
from lvc.compiler.cli.model_options import add_model_options, load_request
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

if TYPE_CHECKING:
    from lvc.compiler.cli.console import Console
    from lvc.compiler.measure.device import Device

SUMMARY = "run passes on a model and write it again"


def configure(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser)
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, help="where to write the model; without it the graph is printed"
    )
    add_pipeline_options(parser)


def execute(options: argparse.Namespace, console: Console) -> int:
    if options.ranks.follows:
        return follow_pipeline(options, console)
    return on_device(options, console, lambda device: _optimise(device, options, console))


def _optimise(device: Device, options: argparse.Namespace, console: Console) -> int:
    from lvc.compiler.driver import check_requirement, make_report, optimise
    from lvc.compiler.files import check_writable
    from lvc.compiler.verification.verification import Verification
    from lvc.compiler.writing import check_model_suffix, keeps_simulation, write_model

    pipeline, requirement = read_pipeline(options), read_requirement(options)
    max_loss = read_max_loss(options)
    pipeline.check_data(read_data_names(options), options.stop_after)
    for path in (options.output, options.report):
        if path:
            check_writable(path)
    if options.output:
        check_model_suffix(options.output)
    model = load_request(options).load()
    describe_data(options, model)
    workspace = make_workspace(options, model, console, device)
    loaded = Verification.of(model, workspace, check=options.check, verify=options.verify).source()
    rewritten, steps = optimise(
        model,
        pipeline,
        workspace,
        check=options.check,
        observers=make_observers(options),
        max_loss=max_loss,
    )
    if requirement:
        simulated = options.output is not None and keeps_simulation(options.output)
        check_requirement(requirement, rewritten, steps, simulated=simulated)
    say_of_data(workspace, console)
    report = make_report(model, rewritten, pipeline, "", steps)
    report.loaded = loaded
    if options.output:
        write_model(rewritten, options.output)
        show_passes(options, console, report)
        console.result("\n".join([*report.verified_lines(), written(options.output)]))
    else:
        for line in [*report.note_lines(), *report.verified_lines()]:
            console.say(line)
        console.result(rewritten.to_text().rstrip())
    if options.report:
        write_report(report, options.report)
    console.json({"output": str(options.output) if options.output else None, **report.to_json()})
    return 0
