"""Time artefacts beside other engines: in one process and in turns, since only ratios of one run can be compared."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lvc.compiler.cli.device_options import add_device_options, on_device
from lvc.compiler.cli.model_options import MODEL_HELP, add_model_options
from lvc.compiler.cli.subject import add_emulate, positive
from lvc.compiler.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from lvc.compiler.bench.comparison import Contestant, Row
    from lvc.compiler.bench.engine import Original
    from lvc.compiler.bench.steps import Step
    from lvc.compiler.cli.bench_cases import Case
    from lvc.compiler.cli.console import Console
    from lvc.compiler.ir.model import Model
    from lvc.compiler.load.request import LoadRequest
    from lvc.compiler.loaded import Loaded
    from lvc.compiler.measure.device import Device

SUMMARY = "time artefacts beside other engines, in turns"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artefacts", metavar="ARTEFACT", nargs="+", type=Path, help="files of 'lvc compile'")
    parser.add_argument("--against", metavar="ENGINES", default="", help="such as onnxruntime,torch,openvino")
    parser.add_argument("--threads", metavar="N", type=positive, default=1, help="threads of every engine (default 1)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--seconds", metavar="S", type=float, default=10.0, help="how long to measure each shape (default 10)"
    )
    length.add_argument("--repeats", metavar="N", type=positive, help="measure so many rounds instead")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: time of the process's own work")
    parser.add_argument("--per-op", action="store_true", help="also time each kernel of the first artefact")
    parser.add_argument("--sort", choices=("order", "time"), default="order", help="how --per-op lists the kernels")
    parser.add_argument(
        "--data",
        metavar="PATH",
        help="what is put in: an image, a folder of which the first images are taken, a .npy or .npz file (default: "
        "random numbers, in which a detector finds little)",
    )
    parser.add_argument("--preprocess", metavar="TEXT", help="how images become inputs (default: as the file says)")
    add_emulate(parser)
    add_device_options(parser)
    parser.add_argument("--model", metavar="MODEL", help=f"what the engines run (default: the source): {MODEL_HELP}")
    add_model_options(parser, positional=False)


def execute(options: argparse.Namespace, console: Console) -> int:
    if options.device and options.against:
        raise UsageError("--device and --against are both given", help="boards run artefacts alone; leave one out")
    work = partial(_race_on, options=options, console=console)
    return on_device(options, console, work, options.artefacts)


def _race_on(device: Device, options: argparse.Namespace, console: Console) -> int:
    from lvc.compiler.cli.bench_cases import cases

    loaded = [_load(path, options.threads, device) for path in options.artefacts]
    chosen = cases(options, loaded)
    _warn_if_busy(console, *device.busy())
    threads = f"{options.threads} thread{'s' * (options.threads > 1)}"
    raced = []
    for place, case in enumerate(chosen):
        rows = _race(case, loaded, device, options, console)
        console.result(f"{device.processor + '; ' + threads + '; ' if not place else ''}{case.text}\n")
        _show(console, rows)
        if case.nothing_found(loaded[0]):
            console.say(
                "note: the first artefact found nothing in these inputs, so that what selects boxes had nothing to do: "
                "give pictures with --data"
            )
        if place < len(chosen) - 1:
            console.result("")
        raced.append((case, rows))
    found = _time_steps(loaded[0], chosen[0].inputs, options.clock) if options.per_op else []
    if options.sort == "time":
        found.sort(key=lambda step: -step.seconds)
    if found:
        _show_steps(console, found)
    shapes = [
        {"inputs": [str(value) for value in case.signature.inputs], "engines": [row.to_json() for row in rows]}
        for case, rows in raced
    ]
    console.json(
        {
            "processor": device.processor,
            "threads": options.threads,
            "clock": options.clock,
            **shapes[0],
            **({"shapes": shapes} if len(shapes) > 1 else {}),
            **({"steps": [step.to_json() for step in found]} if options.per_op else {}),
        }
    )
    return 0


def _race(case: Case, loaded: list[Loaded], device: Device, options: argparse.Namespace, console: Console) -> list[Row]:
    import tempfile

    from lvc.compiler.bench.comparison import compare

    with tempfile.TemporaryDirectory(prefix="lvc-bench-") as scratch:
        contestants = [_own(path, one) for path, one in zip(options.artefacts, loaded, strict=True)]
        contestants += _peers(options, case, loaded[0], Path(scratch), console)
        return compare(
            contestants,
            case.inputs,
            device,
            seconds=options.seconds,
            repeats=options.repeats,
            clock=options.clock,
            progress=console.progress,
        )


def _load(path: Path, threads: int, device: Device) -> Loaded:
    from lvc.compiler import container
    from lvc.compiler.backend import check_timed

    if path.exists() and not container.is_artefact(path):
        raise UsageError(f"'{path}' is not an artefact", help="make one with 'lvc compile'")
    loaded = device.open(container.read(path), threads)
    check_timed(loaded.executable)
    return loaded


def _own(path: Path, loaded: Loaded) -> Contestant:
    import lvc
    from lvc.compiler.bench.comparison import Contestant
    from lvc.compiler.ir.counts import cut

    version = f"lvc {lvc.__version__}, {loaded.artefact.target}"
    results = partial(cut, loaded.artefact.outputs, loaded.artefact.counts)
    return Contestant(path.stem, version, loaded.executable, results)


def _cut(model: Model, arrays: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """What an engine gives for a model, lists cut to their counts where it gives these."""
    from lvc.compiler.ir.counts import cut

    whole = len(arrays) == len(model.outputs)
    return cut(model.outputs, model.counts, arrays) if whole else tuple(arrays)


def _peers(options: argparse.Namespace, case: Case, first: Loaded, scratch: Path, console: Console) -> list[Contestant]:
    """Prepare the engines that were asked for; those that cannot run are told, unless that is all of them. A model that
    is not to be had in another shape than the first has no peers there."""
    from lvc.compiler.bench.comparison import Contestant
    from lvc.compiler.bench.engine import Original, find_engine, prepare
    from lvc.compiler.errors import LvcError

    engines = [find_engine(name) for name in dict.fromkeys(filter(None, options.against.split(",")))]
    if not engines:
        return []
    original = Original(case.request(_request(options, first, console, say=case.is_first)), scratch)
    try:
        _check_loads(original)
    except LvcError as error:
        if case.is_first:
            raise
        console.say(f"note: the engines have no model for {case.signature.shapes()}: {error.what}")
        return []
    peers, failures = [], []
    for engine in engines:
        try:
            version = engine.version()
            run = prepare(engine, original, options.threads)
            peers.append(Contestant(engine.name, version, run, partial(_cut, original.model)))
        except UsageError as error:
            failures.append(error)
            console.say(f"note: {error}")
    if not peers:
        raise failures[0]
    return peers


def _check_loads(original: Original) -> None:
    """Load the model once, before any engine does; where it lies may have changed since it was compiled."""
    from lvc.compiler.errors import LvcError

    try:
        _ = original.model
    except LvcError as error:
        help = error.help or "name the model that the engines shall run with --model"
        raise type(error)(error.what, where=error.where, why=error.why, help=help) from error


def _request(options: argparse.Namespace, first: Loaded, console: Console, *, say: bool) -> LoadRequest:
    """What the peers run: the model of the options, or the source that the artefact names."""
    from lvc.compiler.bench.source import stored_request
    from lvc.compiler.cli.model_options import load_request, shapes_of

    if options.model:
        shape = options.shape if len(shapes_of(options.shape)) == 1 else []
        return load_request(argparse.Namespace(**{**vars(options), "shape": shape}))
    request = stored_request(first.artefact)
    if say:
        console.say(f"the engines run {request.source}, which the artefact was made of")
    return request


def _time_steps(loaded: Loaded, inputs: tuple[np.ndarray, ...], clock: str) -> list[Step]:
    from lvc.compiler.bench.steps import TimesSteps, steps
    from lvc.compiler.measure.artefact import artefact_layers
    from lvc.compiler.measure.timing import CLOCKS

    if not isinstance(loaded.executable, TimesSteps):
        raise UsageError(f"the {loaded.artefact.backend} backend cannot time its kernels", help="leave out --per-op")
    times = loaded.executable.time_steps(inputs, 20, CLOCKS[clock])
    return steps(times, artefact_layers(loaded.artefact), loaded.executable.peak_flops())


def _show(console: Console, rows: list[Row]) -> None:
    from lvc.compiler.text import duration

    console.table(
        ("engine", "version", "min", "median", "p90", "ratio", "difference"),
        [
            (
                row.name,
                row.version,
                duration(row.timing.best),
                duration(row.timing.median),
                duration(row.timing.p90),
                f"{row.ratio:.2f}",
                f"{row.difference:.1e}" if place else "",
            )
            for place, row in enumerate(rows)
        ],
        "llrrrrr",
    )
    if len(rows) > 1:
        console.say(f"ratio: min over that of {rows[0].name}; above 1, {rows[0].name} is faster")


def _show_steps(console: Console, found: list[Step]) -> None:
    from lvc.compiler.bench.steps import Step
    from lvc.compiler.text import duration, si

    rows = [
        (
            step.title,
            duration(step.seconds),
            f"{step.share * 100:.1f} %",
            si(step.macs) if step.macs else "",
            f"{step.flops / 1e9:.1f}" if step.macs else "",
            f"{step.peak_share * 100:.0f} %" if step.macs and step.peak else "",
            " + ".join(step.nodes),
        )
        for step in found
    ]
    console.result("")
    total, work = sum(step.seconds for step in found), sum(step.macs for step in found)
    whole = Step("all", "all", (), total, 1.0, work, found[0].peak)
    of_peak = f"{whole.peak_share * 100:.0f} %" if whole.peak else ""
    rows.append(("all", duration(total), "", si(work), f"{whole.flops / 1e9:.1f}", of_peak, ""))
    console.table(("layer", "time", "share", "MACs", "GFLOP/s", "of peak", "nodes"), rows, "lrrrrrl")
    if whole.peak:
        console.say(
            f"peak: {whole.peak / 1e9:.1f} GFLOP/s, what a kernel of multiply-adds alone reaches on this machine"
        )
    if any(step.peak_share > 1 for step in found):
        console.say(
            "more than 100 % of peak: MACs are those of the layer's definition, of which Winograd's algorithm does a "
            "part, and short types do several at once"
        )


def _warn_if_busy(console: Console, load: float, cores: int) -> None:
    if load > 0.5 * cores:
        console.say(f"note: the machine is busy (load {load:.1f} on {cores} cores); only the ratios tell something")
