"""Run a model or an artefact on photographs or arrays: the best classes, boxes, or a summary of each output."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lvc.compiler.cli.device_options import add_device_options, on_device
from lvc.compiler.cli.model_options import add_model_options
from lvc.compiler.cli.subject import Subject, add_run_options, chosen_preprocess, open_subject, positive
from lvc.compiler.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np

    from lvc.compiler.cli.console import Console
    from lvc.compiler.data.feed import Feed
    from lvc.compiler.measure.device import Device

SUMMARY = "run a model or an artefact on photographs or arrays"


def configure(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser)
    add_input_options(parser)
    add_device_options(parser)


def add_input_options(parser: argparse.ArgumentParser) -> None:
    """Add what a model is run on, and what becomes of its outputs."""
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="*",
        type=Path,
        help="images, folders of images, .npy or .npz files (default: random numbers)",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        help="write the outputs as .npz; or .png, .jpg or .webp, or a folder of them: the pictures with what was found",
    )
    parser.add_argument("--top", metavar="N", type=positive, default=5, help="how many classes to print (default 5)")
    parser.add_argument(
        "--score", metavar="X", type=_share, default=0.3, help="print and draw boxes with at least this score (0.3)"
    )
    add_run_options(parser)


def execute(options: argparse.Namespace, console: Console) -> int:
    return on_device(options, console, lambda device: run_on(device, options, console), [options.model])


def run_on(device: Device, options: argparse.Namespace, console: Console) -> int:
    """Run what the options name on a device."""
    from lvc.compiler.cli.found import Drawn, of_task
    from lvc.compiler.files import check_writable

    drawn = Drawn.of(options.output, options.files)
    if options.output and not drawn:
        check_writable(options.output)
    subject = open_subject(options, options.model, device)
    if drawn:
        drawn.check(subject)
    elif options.output and subject.counts and len(options.files) > 1:
        raise UsageError(
            f"'{options.output}' cannot hold the outputs of {len(options.files)} files",
            why=f"'{next(iter(subject.counts))}' has another length for each",
            help="run one file at a time, each with an output file of its own",
        )
    kept: list[tuple[np.ndarray, ...]] = []
    results: list[dict[str, Any]] = []
    for feed in _feeds(options, subject, console):
        outputs = subject.run(*feed.arrays)
        if options.output and not drawn:
            kept.append(feed.without_padding(outputs))
        if found := of_task(subject, feed, outputs):
            results.extend(item.to_json(options) for item in found)
            if drawn:
                drawn.write(found, options)
        else:
            results.append({"input": ", ".join(feed.names), "outputs": _summaries(outputs, subject)})
    _show(console, results)
    if drawn:
        for path in drawn.written:
            console.say(f"wrote {path}")
    elif options.output:
        _write(options.output, subject, kept)
        console.say(f"wrote {options.output}")
    console.json({"model": options.model, "results": results})
    return 0


def _feeds(options: argparse.Namespace, subject: Subject, console: Console) -> Iterable[Feed]:
    from lvc.compiler.data.feed import Feed, feeds
    from lvc.compiler.data.seeded import seeded_inputs

    if options.files:
        preprocess = chosen_preprocess(options, subject)
        return feeds(options.files, subject.inputs, preprocess, subject.most, any_shape=subject.any_shape)
    console.say(f"note: no input given, so it runs on random numbers of seed {options.seed}")
    return [Feed.whole(f"random numbers, seed {options.seed}", seeded_inputs(subject.inputs, options.seed))]


def _summaries(outputs: tuple[np.ndarray, ...], subject: Subject) -> list[dict[str, Any]]:
    from lvc.compiler.ir.spec import TensorSpec

    return [
        {
            "name": value.name,
            "spec": str(TensorSpec.of_array(array)),
            "min": float(array.min()) if array.size else None,
            "mean": float(array.mean()) if array.size else None,
            "max": float(array.max()) if array.size else None,
        }
        for value, array in zip(subject.outputs, outputs, strict=True)
    ]


def _show(console: Console, results: list[dict[str, Any]]) -> None:
    for place, result in enumerate(results):
        if place:
            console.result("")
        if "outputs" not in result:
            from lvc.compiler.cli.found import table_of

            console.table(*table_of(result))
        else:
            outputs: list[tuple[str, ...]] = [_output_row(item) for item in result["outputs"]]
            console.table(("output", result["input"], "min", "mean", "max"), outputs, "llr")


def _output_row(item: dict[str, Any]) -> tuple[str, ...]:
    numbers = (item[key] for key in ("min", "mean", "max"))
    return item["name"], item["spec"], *("" if number is None else f"{number:.4g}" for number in numbers)


def _write(path: Path, subject: Subject, runs: list[tuple[np.ndarray, ...]]) -> None:
    """Write each output under its name, those of several runs joined along the first dimension."""
    import io
    import zipfile

    import numpy as np

    from lvc.compiler.files import write_atomically

    arrays = {
        value.name: np.concatenate(parts) if parts[0].ndim else np.stack(parts)
        for value, parts in zip(subject.outputs, zip(*runs, strict=True), strict=True)
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # np.savez has arguments of its own, whose names an output may have
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    write_atomically(path, buffer.getvalue())


def _share(text: str) -> float:
    """Read a number from 0 to 1 as the value of an option."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 0 to 1")
    return number
