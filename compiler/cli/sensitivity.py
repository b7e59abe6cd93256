"""Prune each group of channels alone at several ratios, and show what that does to the outputs on a data set.

The file written with -o is what 'prune-channels{sensitivity=FILE}' reads; --plot draws the
curves.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lvc.compiler.cli.model_options import add_model_options, load_model
from lvc.compiler.cli.subject import add_metric_options, add_task_option

if TYPE_CHECKING:
    from lvc.compiler.cli.console import Console
    from lvc.compiler.measure.pictures.curves import Curves
    from lvc.compiler.pipeline.passes import Table

SUMMARY = "show how much each group of channels matters"


def configure(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser)
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="write the curves as .json")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="draw the curves as .svg or .png")
    parser.add_argument(
        "--data", metavar="[calib=]PATH", required=True, help="the images, with labels if there are any"
    )
    parser.add_argument("--preprocess", metavar="TEXT", help="image preprocessing: imagenet, cifar10 or key=value,...")
    add_metric_options(parser)
    add_task_option(parser)
    parser.add_argument(
        "--options", metavar="TEXT", default="", help="options of the pass, such as 'ratios=0.5 criterion=taylor'"
    )


def execute(options: argparse.Namespace, console: Console) -> int:
    from lvc.compiler.cli.following import follow
    from lvc.compiler.cli.pipeline_options import NamedData, describe_data
    from lvc.compiler.files import check_writable
    from lvc.compiler.measure.pictures.canvas import check_drawable
    from lvc.compiler.pipeline.catalogue import SENSITIVITY
    from lvc.compiler.pipeline.pipeline import Pipeline
    from lvc.compiler.pipeline.text import with_option
    from lvc.compiler.pipeline.workspace import Workspace
    from lvc.compiler.running.synthesis import Synthesiser

    (asked,) = Pipeline.parse(f"{SENSITIVITY}{{{options.options}}}")
    if options.postprocess is not None:
        asked = with_option(asked, "postprocess", options.postprocess)
    pipeline = Pipeline((asked,))
    if options.output and not options.ranks.follows:
        check_writable(options.output)
    if options.plot and not options.ranks.follows:
        check_drawable(options.plot)
    model = load_model(options)
    describe_data(options, model)
    data = NamedData(options.data.removeprefix("calib="), model)
    data.synthesiser = Synthesiser(model, options.seed, console.progress)
    workspace = Workspace(data={"calib": data}, seed=options.seed, progress=console.progress, ranks=options.ranks)
    if options.ranks.follows:
        return follow(model, workspace)
    _, (step,) = pipeline.run(model, workspace)
    (table,) = step.outcome.tables
    _show(table, console)
    for note in step.outcome.notes:
        console.say(note)
    rows = [dict(zip(table.headers, row, strict=True)) for row in table.rows]
    found = {"model": model.name, "pipeline": str(pipeline), "metric": _metric(table), "rows": rows}
    _write(found, options)
    console.json(found)
    return 0


def _show(table: Table, console: Console) -> None:
    """Print one line a group: the error of the outputs, or the metric of the task where there is one, at each ratio."""
    ratios = sorted({float(row[2]) for row in table.rows})
    lines: dict[str, list[str]] = {}
    for group, size, _, _, error, share in table.rows:
        shown = f"{error:.2g}" if share == "" else f"{float(share):.1%}"
        lines.setdefault(str(group), [str(group), str(size)]).append(shown)
    what = _metric(table) or "error"
    headers = ("group", "channels", *(f"{what} at -{ratio:.0%}" for ratio in ratios))
    console.table(headers, list(lines.values()), "lr")


def _metric(table: Table) -> str:
    """The metric that the last column holds; empty where it holds none."""
    return table.title.partition(", ")[2]


def _write(found: dict[str, Any], options: argparse.Namespace) -> None:
    import json

    from lvc.compiler.files import write_atomically

    if options.output:
        write_atomically(options.output, json.dumps(found, indent=1).encode())
    if options.plot:
        picture = _picture(found["model"], found["metric"], found["rows"])
        write_atomically(options.plot, picture.render(options.plot.suffix))


def _picture(model: str, metric: str, rows: list[dict[str, Any]]) -> Curves:
    """One curve a group over the channels removed: the metric if one was measured, else the error from none at all."""
    from lvc.compiler.measure.choices import TOP1
    from lvc.compiler.measure.pictures.canvas import Head
    from lvc.compiler.measure.pictures.curves import Curves

    is_judged = bool(metric)
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        points = curves.setdefault(row["group"], [] if is_judged else [(0.0, 0.0)])
        points.append((row["removed"] / row["channels"], 100 * row["accuracy"] if is_judged else row["error"]))
    name = "top-1 accuracy" if metric == TOP1 else metric
    measure = f"{name}, %" if is_judged else "squared error of the outputs, relative to their variance"
    return Curves(
        Head(
            f"{model}: what pruning costs, group by group",
            f"Each group of channels is pruned alone, without training; "
            f"{'higher' if is_judged else 'lower'} is better, and a group whose curve stays flat can be pruned.",
        ),
        across="channels removed from the group, %",
        up=measure,
        noun="group",
        curves=curves,
        high_is_good=is_judged,
    )
