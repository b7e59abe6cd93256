"""Compare a quantised model with the floating-point one, layer by layer, on a data set.

FLOAT and QUANTISED are models of any kind; instead of QUANTISED a pipeline can be given, which makes it from FLOAT:

  lvc compare float.onnx int8.onnx --data photos/
  lvc compare torchvision.models:resnet18 -p int8-fast --data photos/

Of each layer the table has signal-to-noise ratios in decibels, 6 dB a bit: of what arrives at it, of what it adds by
itself (the quantised layer on the floating-point model's values), and of what leaves it. The layers that add most
stand first. A compiled artefact holds code, not layers, so only its outputs are compared.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lvc.compiler.cli.model_options import MODEL_HELP, add_model_options
from lvc.compiler.cli.subject import add_metric_options, add_task_option, positive
from lvc.compiler.errors import UsageError
from lvc.compiler.pipeline.catalogue import FOLDED, SCALING, TO_INTEGERS
from lvc.compiler.text import counted, percent, title

if TYPE_CHECKING:
    from lvc.compiler.cli.console import Console
    from lvc.compiler.ir.model import Model
    from lvc.compiler.measure.comparison.layerwise import LayerError
    from lvc.compiler.measure.comparison.outputs import Images, OutputError
    from lvc.compiler.measure.comparison.pairs import Pairing

SUMMARY = "show which layers of a quantised model hurt"

_ORDERS = ("adds", "leaves", "place")
_SCALED = 20.0
"""Layers that are so many decibels further from their partners than the outputs are, have another unit."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="FLOAT", help=MODEL_HELP)
    parser.add_argument("quantised", metavar="QUANTISED", nargs="?", help="the same kinds, or a compiled artefact")
    add_model_options(parser, positional=False)
    parser.add_argument("-p", "--pipeline", metavar="TEXT", help="make QUANTISED from FLOAT, such as int8-fast")
    parser.add_argument(
        "--data",
        metavar="[NAME=]PATH",
        action="append",
        required=True,
        help="the images to compare on, which passes know as calib; with NAME= a data set for the pipeline alone",
    )
    parser.add_argument("--images", metavar="N", type=positive, default=64, help="use at most N images (default 64)")
    parser.add_argument("--limit", metavar="N", type=positive, help="show only the first N layers of the table")
    parser.add_argument(
        "--sort", choices=_ORDERS, default="adds", help="worst first by what a layer adds or leaves, or in place"
    )
    parser.add_argument("--plot", metavar="FILE", type=Path, help="draw the table as .svg or .png")
    parser.add_argument("--preprocess", metavar="TEXT", help="image preprocessing: imagenet, cifar10 or key=value,...")
    add_metric_options(parser)
    add_task_option(parser)


def execute(options: argparse.Namespace, console: Console) -> int:
    _check(options)
    if options.pipeline is None and (_is_code(options.model) or _is_code(options.quantised)):
        _compare_code(options, console)
    else:
        _compare_models(options, console)
    return 0


def _check(options: argparse.Namespace) -> None:
    from lvc.compiler.measure.pictures.canvas import check_drawable

    if (options.quantised is None) == (options.pipeline is None):
        raise UsageError("give either QUANTISED or a pipeline with -p", help="for example -p int8-fast")
    if options.plot:
        check_drawable(options.plot)


def _is_code(text: str) -> bool:
    """Whether a text names an artefact that holds code instead of a graph."""
    from lvc.compiler.container import is_artefact, read
    from lvc.compiler.ir import serialise

    return is_artefact(Path(text)) and serialise.GRAPH not in read(Path(text)).files


def _compare_models(options: argparse.Namespace, console: Console) -> None:
    from lvc.compiler.files import write_atomically
    from lvc.compiler.ir.operators.uncalibrated import refuse_uncalibrated
    from lvc.compiler.measure.comparison.outputs import compare_layers
    from lvc.compiler.measure.comparison.pairs import pair_layers
    from lvc.compiler.measure.comparison.picture import MOST, layer_picture

    floating, quantised = _pair(options, console)
    refuse_uncalibrated(quantised.module.graph)
    pairing = pair_layers(floating.module.graph, quantised.module.graph)
    floating.preprocessing = floating.preprocessing or quantised.preprocessing
    floating.labels = floating.labels or quantised.labels
    images = _images(options, floating, console)
    found, outputs = compare_layers(floating, quantised, pairing, images)
    layers = _sorted(found, options.sort)
    if options.plot:
        picture = layer_picture(floating.name, layers, options.sort, len(images), options.limit or MOST)
        write_atomically(options.plot, picture.render(options.plot.suffix))
    _show_layers(layers[: options.limit], pairing, console)
    _show_outputs(outputs, console)
    scores = _scores(options, (floating, quantised), images, console)
    _say_if_scaled(layers, outputs, console)
    console.json(
        {
            **scores,
            "pairs": len(pairing.pairs),
            "unpaired": [n.name for n in (*pairing.only_floating, *pairing.only_quantised)],
            "layers": [_layer_json(layer) for layer in layers],
            "outputs": [_output_json(error) for error in outputs],
        }
    )


def _scores(
    options: argparse.Namespace, models: tuple[Model, Model], images: Images, console: Console
) -> dict[str, Any]:
    """Say how well both do by the metric of their task, where it is known what the images show; the same as JSON."""
    from lvc.compiler.measure.task_metric import TaskMetric
    from lvc.compiler.pipeline.pipeline import Pipeline
    from lvc.compiler.running.run import Run

    ends = Pipeline().with_ends(options.postprocess)
    ended = [ends.run(model)[0] for model in models] if len(ends) else models
    metric = TaskMetric.of(ended[0], images.known((labels for _, labels in images), images.batch))
    if metric is None:
        if options.postprocess:
            console.say("note: the data do not tell what the pictures show, so --postprocess has nothing to measure")
        return {}
    scores = []
    for model in ended:
        run = Run(model, frozen=True)
        scores.append(metric.score(model, [run(batch) for batch, _ in images]))
    console.result(f"{metric.name}: {percent(scores[0], 2)}, {percent(scores[1], 2)} quantised")
    return {"metric": metric.name, "scores": scores}


def _compare_code(options: argparse.Namespace, console: Console) -> None:
    import torch

    from lvc.compiler.cli.subject import Subject, chosen_preprocess, open_subject
    from lvc.compiler.data import open_data
    from lvc.compiler.measure.comparison.outputs import Images, compare_outputs
    from lvc.compiler.measure.device import ThisMachine

    options.threads, here = None, ThisMachine(emulate=True)
    first, second = (
        open_subject(_options_for(options, text), text, here) for text in (options.model, options.quantised)
    )
    _check_signatures(first.inputs, second.inputs)
    preprocess = chosen_preprocess(options, first) or chosen_preprocess(options, second)
    if options.plot:
        raise UsageError("there is nothing to draw", why="a compiled artefact holds code, not layers")
    if options.postprocess:
        raise UsageError("--postprocess is for models", why="a compiled artefact is code", help="measure by lvc eval")

    def runner(subject: Subject) -> Any:
        return lambda batch: [torch.from_numpy(output) for output in subject.run(batch.numpy())]

    data = open_data(_path(options), preprocess, first.inputs)
    if not len(data):
        raise UsageError(f"the data set '{_path(options)}' is empty")
    images = Images(data, first.inputs[0].spec.shape[0], options.images, options.seed, console.progress)
    outputs = compare_outputs(runner(first), runner(second), [value.name for value in first.outputs], images)
    console.say("note: a compiled artefact holds code, not layers: only outputs are compared")
    _show_outputs(outputs, console)
    console.json({"layers": [], "outputs": [_output_json(error) for error in outputs]})


def _options_for(options: argparse.Namespace, text: str) -> argparse.Namespace:
    """The model options as they apply to what ``text`` names: weights and arguments are for factories."""
    given = {**vars(options), "model": text}
    if ":" not in text or Path(text).exists():
        given |= {"weights": None, "arg": []}
    return argparse.Namespace(**given)


def _load(options: argparse.Namespace, text: str) -> Model:
    from lvc.compiler.cli.model_options import load_model

    return load_model(_options_for(options, text))


def _pair(options: argparse.Namespace, console: Console) -> tuple[Model, Model]:
    """The floating-point model as it was before anything was quantised, and the quantised one.

    Both are as far folded and scaled: a pipeline is cut before its first pass that quantises; a file without batch
    normalisation is compared with the folded model.
    """
    from lvc.compiler.cli.pipeline_options import describe_data

    floating = _load(options, options.model)
    describe_data(options, floating)
    if options.pipeline is not None:
        return _cut(options, floating, console)
    quantised = _load(options, options.quantised)
    _check_signatures(floating.inputs, quantised.inputs)
    return _folded_like(quantised, floating), quantised


def _cut(options: argparse.Namespace, floating: Model, console: Console) -> tuple[Model, Model]:
    """Make both models of a pair by a pipeline."""
    from functools import partial

    from lvc.compiler.cli.pipeline_options import open_data_set
    from lvc.compiler.driver import optimise
    from lvc.compiler.pipeline.pipeline import Pipeline
    from lvc.compiler.pipeline.workspace import Workspace

    named = dict(text.split("=", 1) for text in options.data if _name(text))
    sets = {name: partial(open_data_set, path, floating) for name, path in {"calib": _path(options), **named}.items()}
    workspace = Workspace(data=sets, seed=options.seed, progress=console.progress)
    passes = Pipeline.parse(options.pipeline).passes
    first = next((place for place, item in enumerate(passes) if item.quantises), 0)
    before, steps = optimise(floating, Pipeline(passes[:first]), workspace)
    made, more = optimise(before, Pipeline(passes[first:]), workspace, done=first)
    for step in [*steps, *more]:
        for note in step.outcome.notes:
            console.say(f"{step.item.name}: {note}")
    return before if first else _folded_like(made, before), made


def _folded_like(quantised: Model, floating: Model) -> Model:
    from lvc.compiler.ir.dialect import aten
    from lvc.compiler.ir.graph import calls
    from lvc.compiler.pipeline.pipeline import Pipeline

    if any(calls(quantised.module.graph, aten.batch_norm.default)):
        return floating
    return Pipeline.parse(FOLDED).run(floating)[0]


def _check_signatures(ours: Any, theirs: Any) -> None:
    if [value.spec for value in ours] != [value.spec for value in theirs]:
        texts = (", ".join(map(str, inputs)) for inputs in (ours, theirs))
        raise UsageError("the two models take different inputs", why=" against ".join(texts))


def _name(text: str) -> str:
    """The name in ``NAME=PATH``; empty without one."""
    name, equals, _ = text.partition("=")
    return name if equals and name.isidentifier() else ""


def _path(options: argparse.Namespace) -> str:
    """Where the images are: the data without a name, else that called calib, else the first."""
    unnamed = [text for text in options.data if not _name(text)]
    named = dict(text.split("=", 1) for text in options.data if _name(text))
    path: str = unnamed[0] if unnamed else named.get("calib", next(iter(named.values()), ""))
    return path


def _images(options: argparse.Namespace, model: Model, console: Console) -> Images:
    from lvc.compiler.cli.pipeline_options import open_data_set
    from lvc.compiler.measure.comparison.outputs import Images

    data = open_data_set(_path(options), model)
    if not len(data):
        raise UsageError(f"the data set '{_path(options)}' is empty")
    return Images(data, model.inputs[0].spec.shape[0], options.images, options.seed, console.progress)


def _sorted(layers: list[LayerError], order: str) -> list[LayerError]:
    if order == "place":
        return layers
    if order == "leaves":
        return sorted(layers, key=lambda layer: layer.leaves)
    return sorted(layers, key=lambda layer: layer.leaves if layer.adds is None else layer.adds)


def _show_layers(layers: list[LayerError], pairing: Pairing, console: Console) -> None:
    from lvc.compiler.ir.graph import origin
    from lvc.compiler.measure.comparison.pairs import kind

    rows = [
        (e.title, kind(e.pair.floating), *map(_decibels, (e.arrives, e.adds, e.leaves)), f"{e.cosine:.6f}", e.name)
        for e in layers
    ]
    headers = ("layer", "operator", "arrives, dB", "adds, dB", "leaves, dB", "cosine", "node")
    if rows:
        console.table(headers, rows, "llrrrrl")
    console.result(f"{counted(len(pairing.pairs), 'layer')} paired")
    for nodes, whose in ((pairing.only_floating, "first"), (pairing.only_quantised, "second")):
        if nodes:
            names = ", ".join(title(origin(node)) for node in nodes[:8]) + (", ..." if len(nodes) > 8 else "")
            console.result(f"{counted(len(nodes), 'layer')} of the {whose} model without a partner: {names}")
    if any(layer.is_integer for layer in layers):
        console.say(
            "note: layers in integers are compared up to one factor, and what they add cannot be told: "
            f"compare before {TO_INTEGERS} to see it"
        )


def _show_outputs(outputs: list[OutputError], console: Console) -> None:
    for error in outputs:
        agreement = "" if error.agreement is None else f", {error.agreed} of {error.images} first choices agree"
        share = "" if error.agreement is None else f" ({percent(error.agreement, 2)})"
        noise = "equal" if error.moments.sqnr == math.inf else f"SQNR {_decibels(error.moments.sqnr)} dB"
        figures = f"{noise}, cosine {error.moments.cosine:.6f}"
        console.result(f"output '{error.name}': {figures}{agreement}{share}")


def _say_if_scaled(layers: list[LayerError], outputs: list[OutputError], console: Console) -> None:
    """Say so where layers are much further from their partners than the outputs are: they have another unit."""
    least = min(error.moments.sqnr for error in outputs)
    if far := sum(layer.leaves < least - _SCALED for layer in layers):
        console.say(
            f"note: {counted(far, 'layer')} with much more error than the outputs: {SCALING} may have scaled "
            "the channels; compare with -p, or with a floating-point model that went through it"
        )


def _decibels(value: float | None) -> str:
    if value is None:
        return ""
    return "exact" if value == math.inf else "lost" if value == -math.inf else f"{value:.1f}"


def _layer_json(layer: LayerError) -> dict[str, Any]:
    figures = {what: _finite(getattr(layer, what)) for what in ("arrives", "adds", "leaves", "cosine")}
    return {"layer": layer.name, "partner": layer.pair.quantised.name, "origin": layer.origin, **figures}


def _output_json(error: OutputError) -> dict[str, Any]:
    figures = {"sqnr": _finite(error.moments.sqnr), "cosine": error.moments.cosine}
    return {"output": error.name, **figures, "agreement": error.agreement, "images": error.images}


def _finite(value: float | None) -> float | str | None:
    """A number as JSON has it: infinities as texts."""
    return value if value is None or math.isfinite(value) else str(value)
